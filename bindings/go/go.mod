module github.com/libqueen/libqueen/bindings/go

go 1.19
