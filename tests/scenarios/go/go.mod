module github.com/libqueen/libqueen/tests/scenarios/go

go 1.19

require github.com/libqueen/libqueen/bindings/go v0.0.0

replace github.com/libqueen/libqueen/bindings/go => ../../../bindings/go
