package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"sync"
	"time"
)

// BrokerOptions are those of docs/TESTING.md. Zero fields take the defaults.
type BrokerOptions struct {
	Name                string   `json:"name,omitempty"`
	Data                string   `json:"data,omitempty"` // an SQLite file; in memory without
	Durability          string   `json:"durability,omitempty"`
	Listen              []string `json:"listen,omitempty"` // "host:port", "unix:/path"
	Tokens              []string `json:"tokens,omitempty"`
	JWTSecret           string   `json:"jwtSecret,omitempty"`
	DefaultSubscription string   `json:"defaultSubscription,omitempty"`
	MaxBodyBytes        int64    `json:"maxBodyBytes,omitempty"`
	Testing             bool     `json:"testing,omitempty"` // a test may add faults and move the clock
	Faults              []Fault  `json:"faults,omitempty"`
}

// Fault says which requests go wrong, and how; docs/TESTING.md has the words.
type Fault struct {
	ID          uint64            `json:"id,omitempty"`    // given by the broker
	Route       string            `json:"route,omitempty"` // every one without
	Method      string            `json:"method,omitempty"`
	Queue       string            `json:"queue,omitempty"`
	Skip        int               `json:"skip,omitempty"`
	Times       int               `json:"times,omitempty"` // no end without
	Share       float64           `json:"share,omitempty"` // all without
	Seed        uint64            `json:"seed,omitempty"`
	Action      string            `json:"action"`
	Status      int               `json:"status,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Body        any               `json:"body,omitempty"`
	AfterCommit bool              `json:"afterCommit,omitempty"`
	DelayMillis int64             `json:"delayMillis,omitempty"`
	Matched     int               `json:"matched,omitempty"` // told by the broker: requests it has met
	Applied     int               `json:"applied,omitempty"` // and those that it has taken
}

// MarshalJSON leaves out what the broker tells.
func (f Fault) MarshalJSON() ([]byte, error) {
	type plain Fault
	f.ID, f.Matched, f.Applied = 0, 0, 0
	return json.Marshal(plain(f))
}

// Broker is an embedded broker that is started and ended by hand, and fails when it is told to. Package queentest starts one
// for a test.
type Broker struct {
	url    string
	mu     sync.RWMutex
	handle *C.queen_broker_t
}

// StartBroker starts an embedded broker. It opens files and waits for nobody.
func StartBroker(options BrokerOptions) (*Broker, error) {
	if _, err := getPump(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(options)
	if err != nil {
		return nil, newError(ErrInvalidConfig, "the options cannot be written as JSON: %v", err)
	}
	var failed *C.queen_error_t
	b := &Broker{handle: C.queen_broker_start(chars(text), C.size_t(len(text)), &failed)}
	if b.handle == nil {
		return nil, takeError(failed)
	}
	b.url = C.GoString(C.queen_broker_url(b.handle))
	return b, nil
}

// URL is the one for clients of this process.
func (b *Broker) URL() string { return b.url }

// Address is where the broker listens, by the place among the options; empty beyond the last.
func (b *Broker) Address(index int) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if address := C.queen_broker_address(b.handle, C.size_t(index)); address != nil {
		return C.GoString(address)
	}
	return ""
}

// do waits for an operation of the broker.
func (b *Broker) do(ctx context.Context, result any, begin func(*C.queen_broker_t) *C.queen_future_t) error {
	got, err := operation(ctx, func(p *pump, r route) (*C.queen_future_t, error) {
		b.mu.RLock()
		defer b.mu.RUnlock()
		if b.handle == nil {
			return nil, newError(ErrClosed, "the broker was released")
		}
		return p.routed(begin(b.handle), r), nil
	})
	return got.read(err, result)
}

// Stop stops the broker in good order; what is not finished by the deadline of the context, 30 seconds without one, is cut off.
func (b *Broker) Stop(ctx context.Context) error {
	wait := stopTime
	if deadline, ok := ctx.Deadline(); ok {
		if wait = time.Until(deadline); wait < 0 {
			wait = 0
		}
	}
	return b.do(context.Background(), nil, func(handle *C.queen_broker_t) *C.queen_future_t {
		return C.queen_broker_stop(handle, C.int64_t(wait.Milliseconds()))
	})
}

// Kill stops the broker abruptly, as a crash would.
func (b *Broker) Kill(ctx context.Context) error {
	return b.do(ctx, nil, func(handle *C.queen_broker_t) *C.queen_future_t { return C.queen_broker_kill(handle) })
}

// Restart starts the broker again, on the same file and addresses.
func (b *Broker) Restart(ctx context.Context) error {
	return b.do(ctx, nil, func(handle *C.queen_broker_t) *C.queen_future_t { return C.queen_broker_restart(handle) })
}

// AddFaults adds faults behind those that are there, and tells their ids.
func (b *Broker) AddFaults(ctx context.Context, faults ...Fault) ([]Fault, error) {
	if faults == nil {
		faults = []Fault{}
	}
	text, err := json.Marshal(faults)
	if err != nil {
		return nil, newError(ErrInvalidConfig, "the faults cannot be written as JSON: %v", err)
	}
	var added []Fault
	err = b.do(ctx, &added, func(handle *C.queen_broker_t) *C.queen_future_t {
		return C.queen_broker_add_faults(handle, chars(text), C.size_t(len(text)))
	})
	return added, err
}

// Faults tells the faults in place, and how many requests each has met and taken.
func (b *Broker) Faults(ctx context.Context) ([]Fault, error) {
	var faults []Fault
	err := b.do(ctx, &faults, func(handle *C.queen_broker_t) *C.queen_future_t { return C.queen_broker_faults(handle) })
	return faults, err
}

// RemoveFaults removes the fault with this id, or all of them with the id 0.
func (b *Broker) RemoveFaults(ctx context.Context, id uint64) error {
	return b.do(ctx, nil, func(handle *C.queen_broker_t) *C.queen_future_t {
		return C.queen_broker_remove_faults(handle, C.uint64_t(id))
	})
}

// Requests is how many requests the broker has seen, by route.
func (b *Broker) Requests(ctx context.Context) (map[string]int, error) {
	var requests map[string]int
	err := b.do(ctx, &requests, func(handle *C.queen_broker_t) *C.queen_future_t { return C.queen_broker_requests(handle) })
	return requests, err
}

// ResetRequests counts the requests from zero.
func (b *Broker) ResetRequests(ctx context.Context) error {
	return b.do(ctx, nil, func(handle *C.queen_broker_t) *C.queen_future_t { return C.queen_broker_reset_requests(handle) })
}

// Advance moves the broker's time, and with it leases, delays, retention and waiting pops.
func (b *Broker) Advance(ctx context.Context, by time.Duration) error {
	return b.moveClock(ctx, map[string]any{"advanceMillis": by.Milliseconds()})
}

// Freeze stops the broker's time, so that it goes only where Advance moves it, or lets it run on.
func (b *Broker) Freeze(ctx context.Context, frozen bool) error {
	return b.moveClock(ctx, map[string]any{"frozen": frozen})
}

func (b *Broker) moveClock(ctx context.Context, change map[string]any) error {
	text, err := json.Marshal(change)
	if err != nil {
		return err
	}
	return b.do(ctx, nil, func(handle *C.queen_broker_t) *C.queen_future_t {
		return C.queen_broker_move_clock(handle, chars(text), C.size_t(len(text)))
	})
}

// Release ends the broker at once, as Kill does, in the background. A second Release does nothing.
func (b *Broker) Release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	C.queen_broker_free(b.handle)
	b.handle = nil
}
