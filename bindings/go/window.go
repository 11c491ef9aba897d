package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"runtime"
	"sync"
	"time"
)

// Window is a window of a stream under one lease: the messages that the broker stored in a span of time, of one partition name
// or of all. Its messages are Go's own memory and may be kept. Filters change what is left of them for Messages, GroupBy and
// Aggregate, not the messages; they are for one goroutine at a time. The verdict may come from any.
type Window struct {
	ID    string    // the same each time that the window comes
	Key   string    // the partition's name, or "__GLOBAL__" where the stream is not partitioned
	Start time.Time // its first moment
	End   time.Time // the first moment behind it

	stream, group string
	all, left     []*WindowMessage
	lease         *windowLease
}

// WindowMessage is a message of a window.
type WindowMessage struct {
	ID        string
	CreatedAt time.Time // when the broker stored it
	Data      json.RawMessage
}

// Decode reads the data.
func (m *WindowMessage) Decode(into any) error {
	if err := json.Unmarshal(m.Data, into); err != nil {
		return newError(ErrInvalidJSON, "the data of message %s does not fit into a %T: %v", m.ID, into, err)
	}
	return nil
}

// windowLease is the handle of a window. It is apart so that a handler that keeps the window keeps no finalizer waiting.
type windowLease struct {
	id      string
	mu      sync.RWMutex // held for reading while C has the handle
	handle  *C.queen_window_t
	settled bool
	own     bool // frees itself with the verdict, because nobody else does
}

// windowViews is how many messages one crossing into C describes.
const windowViews = 256

// load copies what C has. It is not done where events are taken: a window may be large.
func (w *Window) load(stream, group string) {
	w.stream, w.group = stream, group
	_ = w.lease.with(func(handle *C.queen_window_t) {
		w.ID, w.Key = C.GoString(C.queen_window_id(handle)), C.GoString(C.queen_window_key(handle))
		w.Start, w.End = moment(C.GoString(C.queen_window_start(handle))), moment(C.GoString(C.queen_window_end(handle)))
		messages := make([]WindowMessage, int(C.queen_window_original_size(handle)))
		w.all = make([]*WindowMessage, len(messages))
		views := make([]C.queen_message_view_t, windowViews)
		for at := 0; at < len(messages); {
			n := int(C.queen_window_view(handle, &views[0], C.sizeof_queen_message_view_t, C.size_t(at), windowViews))
			if n <= 0 {
				break
			}
			for i := range views[:n] {
				v := &views[i]
				messages[at] = WindowMessage{
					ID: text(v.id, v.id_len), CreatedAt: moment(text(v.created_at, v.created_at_len)), Data: copyBytes(v.payload, v.payload_len),
				}
				w.all[at] = &messages[at]
				at++
			}
		}
	})
	w.lease.id = w.ID
	w.left = w.all
}

// moment is the zero time where the broker's time cannot be read.
func moment(text string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, text)
	return t
}

// lend hands the window to the program, which is to release it.
func (w *Window) lend(c *Client) *Window {
	errorLog, stream := c.config.errorLog, w.stream
	runtime.SetFinalizer(w.lease, func(l *windowLease) {
		errorLog.Printf("queen: window %s of stream %q was never released; call Release. It goes back.", l.id, stream)
		l.release()
	})
	return w
}

// take gives up the handle, nil when it is gone.
func (l *windowLease) take() *C.queen_window_t {
	l.mu.Lock()
	defer l.mu.Unlock()
	handle := l.handle
	l.handle = nil
	return handle
}

func (l *windowLease) release() {
	if handle := l.take(); handle != nil {
		C.queen_window_free(handle)
		runtime.SetFinalizer(l, nil)
	}
}

// with lends the handle to a function.
func (l *windowLease) with(use func(*C.queen_window_t)) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.handle == nil {
		return newError(ErrClosed, "window %s was released", l.id)
	}
	use(l.handle)
	return nil
}

// note says that the window has its verdict, or that it frees itself with it.
func (l *windowLease) note(settled, own bool) {
	l.mu.Lock()
	l.settled, l.own = l.settled || settled, l.own || own
	over := l.settled && l.own
	l.mu.Unlock()
	if over {
		l.release()
	}
}

// Stream is the name of the stream.
func (w *Window) Stream() string { return w.stream }

// Group is the consumer group.
func (w *Window) Group() string { return w.group }

// Messages is what is left of the messages, in the order of their times.
func (w *Window) Messages() []*WindowMessage { return append([]*WindowMessage(nil), w.left...) }

// AllMessages is every message of the window, whatever was filtered.
func (w *Window) AllMessages() []*WindowMessage { return append([]*WindowMessage(nil), w.all...) }

// Size is how many messages are left.
func (w *Window) Size() int { return len(w.left) }

// OriginalSize is how many messages the window has.
func (w *Window) OriginalSize() int { return len(w.all) }

// Filter leaves only the messages that are wanted, and returns the window.
func (w *Window) Filter(wanted func(m *WindowMessage) bool) *Window {
	var left []*WindowMessage
	var places []C.size_t
	for place, m := range w.left {
		if wanted(m) {
			left, places = append(left, m), append(places, C.size_t(place))
		}
	}
	w.left = left
	// After the release there is nobody to tell. The places are those that are left, so that they cannot be wrong.
	_ = w.lease.with(func(handle *C.queen_window_t) {
		var first *C.size_t
		if len(places) > 0 {
			first = &places[0]
		}
		C.queen_window_keep(handle, first, C.size_t(len(places)))
	})
	return w
}

// Reset takes back every filter, and returns the window.
func (w *Window) Reset() *Window {
	w.left = w.all
	_ = w.lease.with(func(handle *C.queen_window_t) { C.queen_window_reset(handle) })
	return w
}

// WindowGroup is messages with the same value.
type WindowGroup struct {
	Key      string
	Messages []*WindowMessage
}

// GroupBy groups what is left by the value at a dot path, which begins in the message, such as "data.customer"; in the order
// in which the groups begin. What is missing, null, false, 0 or "" is in the group "null_key".
func (w *Window) GroupBy(path string) ([]WindowGroup, error) {
	at, err := nul("the path", path)
	if err != nil {
		return nil, err
	}
	var told []struct {
		Key     string
		Indices []int
	}
	if err := w.told(&told, func(handle *C.queen_window_t) *C.queen_future_t {
		return C.queen_window_group_by(handle, chars(at))
	}); err != nil {
		return nil, err
	}
	groups := make([]WindowGroup, len(told))
	for i, group := range told {
		groups[i] = WindowGroup{group.Key, make([]*WindowMessage, len(group.Indices))}
		for j, place := range group.Indices {
			groups[i].Messages[j] = w.left[place]
		}
	}
	return groups, nil
}

// Aggregation says what to compute, each over the values at dot paths, which begin in the message, such as "data.amount".
type Aggregation struct {
	Count bool     `json:"count,omitempty"`
	Sum   []string `json:"sum,omitempty"`
	Avg   []string `json:"avg,omitempty"`
	Min   []string `json:"min,omitempty"`
	Max   []string `json:"max,omitempty"`
}

// Aggregates is what was computed, by path. What is no number counts for nothing; of nothing, sums and means are 0, and
// extremes "". Whole numbers are exact to 64 bits: read them with Int64, others with Float64.
type Aggregates struct {
	Count int                    `json:"count"`
	Sum   map[string]json.Number `json:"sum"`
	Avg   map[string]json.Number `json:"avg"`
	Min   map[string]json.Number `json:"min"`
	Max   map[string]json.Number `json:"max"`
}

// Aggregate computes over what is left.
func (w *Window) Aggregate(wanted Aggregation) (Aggregates, error) {
	var told Aggregates
	text, err := json.Marshal(wanted)
	if err != nil {
		return told, newError(ErrInvalidJSON, "the aggregation cannot be written as JSON: %v", err)
	}
	err = w.told(&told, func(handle *C.queen_window_t) *C.queen_future_t {
		return C.queen_window_aggregate(handle, chars(text), C.size_t(len(text)))
	})
	return told, err
}

// told reads a future that is complete already.
func (w *Window) told(into any, ask func(*C.queen_window_t) *C.queen_future_t) error {
	var text []byte
	var failed *Error
	err := w.lease.with(func(handle *C.queen_window_t) {
		future := ask(handle)
		defer C.queen_future_free(future)
		var n C.size_t
		if e := C.queen_future_error(future); e != nil {
			why := C.queen_error_json(e, &n)
			failed = parseError(int32(C.queen_error_code(e)), copyBytes(why, n))
			return
		}
		found := C.queen_future_json(future, &n)
		text = copyBytes(found, n)
	})
	if err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if err := json.Unmarshal(text, into); err != nil {
		return newError(ErrBadAnswer, "the result cannot be read: %v", err)
	}
	return nil
}

// Ack finishes the window, and waits for the broker's answer: the next of its key follows.
func (w *Window) Ack(ctx context.Context) error {
	return w.verdict(ctx, func(handle *C.queen_window_t) *C.queen_future_t { return C.queen_window_ack(handle) })
}

// Nack gives the window back: it comes again at once, as often as it takes.
func (w *Window) Nack(ctx context.Context) error {
	return w.verdict(ctx, func(handle *C.queen_window_t) *C.queen_future_t { return C.queen_window_nack(handle) })
}

// verdict counts as soon as the call has begun, whatever becomes of the waiting.
func (w *Window) verdict(ctx context.Context, begin func(*C.queen_window_t) *C.queen_future_t) error {
	begun := false
	_, err := operation(ctx, func(p *pump, r route) (future *C.queen_future_t, err error) {
		err = w.lease.with(func(handle *C.queen_window_t) { future, begun = p.routed(begin(handle), r), true })
		return future, err
	})
	if begun {
		w.lease.note(true, false)
	}
	return err
}

// Lost says that the lease is over for certain: no verdict counts any more, and the window comes again.
func (w *Window) Lost() bool {
	lost := false
	_ = w.lease.with(func(handle *C.queen_window_t) { lost = C.queen_window_is_lost(handle) == 1 })
	return lost
}

// Release lets go of the window. Without a verdict it goes back and comes again. It never blocks; afterwards the messages are
// there still, and GroupBy, Aggregate and verdicts answer ErrClosed.
func (w *Window) Release() { w.lease.release() }
