module libqueen/probe

go 1.21
