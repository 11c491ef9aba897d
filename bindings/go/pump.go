package queen

/*
#include "bridge.h"
#include <stdlib.h>
*/
import "C"

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// event is a queen_event_t with everything that it lends copied into Go's memory.
type event struct {
	kind       C.int32_t
	code       int32
	json       []byte
	err        []byte // the error as JSON
	deliveries []*Delivery
	window     *Window
}

// failure is the error of the event, nil when it went well.
func (e *event) failure() error {
	if e.code == 0 {
		return nil
	}
	text := e.err
	if text == nil {
		text = e.json
	}
	return parseError(e.code, text)
}

// release gives back what nobody wants.
func (e *event) release() {
	for _, d := range e.deliveries {
		d.Release()
	}
	if e.window != nil {
		e.window.Release()
	}
}

// sink takes the events of one tag. It runs on the pump's goroutine and must not block.
type sink interface {
	take(e *event)
}

// pump drains the one event queue of the process. It starts with the first client and waits in Go's network poller, so that
// it occupies no thread while nothing happens.
type pump struct {
	queue *C.queen_event_queue_t
	batch *C.qgo_batch
	sinks table
}

var (
	startPump sync.Once
	thePump   *pump
	pumpError error
)

func getPump() (*pump, error) {
	startPump.Do(func() {
		if pumpError = checkVersion(); pumpError == nil {
			thePump, pumpError = newPump()
		}
	})
	return thePump, pumpError
}

// checkVersion compares the library that is loaded with the header that this package was compiled with.
func checkVersion() error {
	header, library := uint32(C.QUEEN_VERSION_NUMBER), uint32(C.queen_version_number())
	if header>>16 != library>>16 || library < header {
		return newError(ErrInvalidState, "the program was built with libqueen %s and runs with %s; install one that is not older",
			C.QUEEN_VERSION_STRING, C.GoString(C.queen_version_string()))
	}
	return nil
}

func newPump() (*pump, error) {
	queue := C.queen_event_queue_new()
	descriptor := C.queen_event_queue_fd(queue)
	if descriptor < 0 {
		C.queen_event_queue_free(queue)
		return nil, newError(Code(descriptor), "the event queue has no descriptor")
	}
	// os.File must own what it has, and the descriptor stays the queue's.
	dup, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(descriptor), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		C.queen_event_queue_free(queue)
		return nil, fmt.Errorf("queen: the descriptor of the event queue cannot be duplicated: %w", errno)
	}
	p := &pump{queue: queue, batch: (*C.qgo_batch)(C.calloc(1, C.sizeof_qgo_batch))}
	file := os.NewFile(dup, "queen events")
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("queen: the event queue cannot be watched: %w", err)
	}
	go func() {
		defer file.Close() // for ever: keeps the file alive
		// Returns only when the descriptor breaks.
		err := conn.Read(func(uintptr) bool {
			p.drain()
			return false
		})
		panic(fmt.Sprintf("queen: the event queue cannot be watched any more: %v", err))
	}()
	return p, nil
}

// drain takes events until none wait.
func (p *pump) drain() {
	var sinks [C.QGO_EVENTS]sink
	for {
		n := int(C.qgo_poll(p.queue, p.batch))
		if n <= 0 {
			return
		}
		events := p.batch.events[:n]
		p.sinks.find(events, sinks[:n])
		for i := range events {
			e := &events[i]
			got := event{kind: e._type, code: int32(e.code), json: copyBytes(e.json, e.json_len), err: copyBytes(e.error, e.error_len)}
			for d := e.deliveries; d != nil; d = d.next {
				got.deliveries = append(got.deliveries, newDelivery(d))
			}
			if e.window != nil {
				got.window = &Window{lease: &windowLease{handle: e.window}}
			}
			if sinks[i] != nil {
				sinks[i].take(&got)
			} else {
				got.release()
			}
			sinks[i] = nil
		}
		if n < C.QGO_EVENTS {
			C.qgo_clear(p.batch)
			return
		}
	}
}

// table finds sinks by tag. A tag is a place and how often the place was used, so that a late event finds nobody.
type table struct {
	mu     sync.Mutex
	places []place
	free   []uint32
}

type place struct {
	uses uint32
	sink sink
}

func (t *table) add(s sink) C.uint64_t {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.free) == 0 {
		t.places = append(t.places, place{})
		t.free = append(t.free, uint32(len(t.places)-1))
	}
	at := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.places[at].sink = s
	return C.uint64_t(t.places[at].uses)<<32 | C.uint64_t(at)
}

// remove frees a tag whose last event has come, or which gets none.
func (t *table) remove(tag C.uint64_t) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(tag)
}

func (t *table) drop(tag C.uint64_t) {
	at := uint32(tag)
	if p := &t.places[at]; p.uses == uint32(tag>>32) {
		p.uses++
		p.sink = nil
		t.free = append(t.free, at)
	}
}

// find looks up the sinks of a batch. After the last event of a future or consumer its tag is free.
func (t *table) find(events []C.qgo_event, sinks []sink) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range events {
		tag := events[i].tag
		p := &t.places[uint32(tag)]
		if p.uses != uint32(tag>>32) {
			continue
		}
		sinks[i] = p.sink
		if kind := events[i]._type; kind == C.QUEEN_EVENT_FUTURE || kind == C.QUEEN_EVENT_CONSUMER_ENDED {
			t.drop(tag)
		}
	}
}

func copyBytes(text *C.char, n C.size_t) []byte {
	if text == nil {
		return nil
	}
	return append(make([]byte, 0, int(n)), unsafe.Slice((*byte)(unsafe.Pointer(text)), int(n))...)
}

// nul is the text with the NUL at its end that C wants. A text with a NUL inside of it would be cut short.
func nul(what, text string) ([]byte, error) {
	for i := 0; i < len(text); i++ {
		if text[i] == 0 {
			return nil, newError(ErrInvalidArgument, "%s %q has a NUL byte", what, text)
		}
	}
	return append(append(make([]byte, 0, len(text)+1), text...), 0), nil
}

// chars is the beginning of a text made by nul, NULL for none. C reads it during the call and keeps nothing.
func chars(text []byte) *C.char {
	if len(text) == 0 {
		return nil
	}
	return (*C.char)(unsafe.Pointer(&text[0]))
}
