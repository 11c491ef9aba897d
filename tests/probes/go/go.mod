module libqueen/probe

go 1.19
