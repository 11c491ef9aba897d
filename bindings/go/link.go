//go:build !queen_static

package queen

// #cgo LDFLAGS: -lqueen
import "C"
