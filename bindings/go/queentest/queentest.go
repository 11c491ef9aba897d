// Package queentest gives each test an embedded broker of its own, which fails when it is told to and has a clock that the test
// moves. No socket is used, and nothing is left behind.
//
//	func TestOrderIsChargedOnce(t *testing.T) {
//		broker := queentest.Start(t)
//		client := broker.Client()
//		broker.Fault(queen.Fault{Route: "ack", Action: "cutAfterCommit", Times: 1})
//		...
//	}
//
// docs/TESTING.md of libqueen lists the faults, and tells what clients make of them.
package queentest

import (
	"context"
	"testing"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
)

// patience bounds what the helpers wait for.
const patience = 30 * time.Second

// Broker is an embedded broker that ends with its test. What goes wrong with a helper ends the test.
type Broker struct {
	*queen.Broker
	t testing.TB
}

// Start starts a broker in memory, whose faults and clock the test steers.
func Start(t testing.TB) *Broker {
	t.Helper()
	return StartWith(t, queen.BrokerOptions{})
}

// StartWith starts a broker with options; Testing is on in any case.
func StartWith(t testing.TB, options queen.BrokerOptions) *Broker {
	t.Helper()
	options.Testing = true
	broker, err := queen.StartBroker(options)
	if err != nil {
		t.Fatalf("queentest: the broker does not start: %v", err)
	}
	t.Cleanup(broker.Release)
	return &Broker{broker, t}
}

// Client opens a client that repeats quickly after faults and is closed at the end of the test.
func (b *Broker) Client(options ...queen.ClientOption) *queen.Client {
	b.t.Helper()
	options = append([]queen.ClientOption{queen.WithSetting("retryDelayMillis", 5)}, options...)
	client, err := queen.Open(context.Background(), b.URL(), options...)
	if err != nil {
		b.t.Fatalf("queentest: no client: %v", err)
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := client.Close(ctx); err != nil {
			b.t.Errorf("queentest: the client does not close: %v", err)
		}
	})
	return client
}

// Fault adds a fault and tells its id.
func (b *Broker) Fault(fault queen.Fault) uint64 {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	added, err := b.AddFaults(ctx, fault)
	if err != nil || len(added) != 1 {
		b.t.Fatalf("queentest: the fault cannot be added: %v", err)
	}
	return added[0].ID
}

// Applied is how many requests the fault has taken.
func (b *Broker) Applied(id uint64) int {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	faults, err := b.Faults(ctx)
	if err != nil {
		b.t.Fatalf("queentest: the faults cannot be told: %v", err)
	}
	for _, fault := range faults {
		if fault.ID == id {
			return fault.Applied
		}
	}
	b.t.Fatalf("queentest: there is no fault %d", id)
	return 0
}

// Heal removes all faults; requests that hang go their usual way.
func (b *Broker) Heal() {
	b.t.Helper()
	b.must(func(ctx context.Context) error { return b.RemoveFaults(ctx, 0) })
}

// Move moves the broker's time: leases end, delays are over.
func (b *Broker) Move(by time.Duration) {
	b.t.Helper()
	b.must(func(ctx context.Context) error { return b.Advance(ctx, by) })
}

// Count is how many requests of a route, such as "push", the broker has seen.
func (b *Broker) Count(route string) int {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	requests, err := b.Requests(ctx)
	if err != nil {
		b.t.Fatalf("queentest: the requests cannot be told: %v", err)
	}
	return requests[route]
}

func (b *Broker) must(do func(context.Context) error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := do(ctx); err != nil {
		b.t.Fatalf("queentest: %v", err)
	}
}
