//go:build queen_static

package queen

// #cgo LDFLAGS: -l:libqueen.a -lgcc_s -lpthread -lm -ldl
import "C"
