package queen_test

import (
	"bytes"
	"context"
	"errors"
	"log"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
	"github.com/libqueen/libqueen/bindings/go/queentest"
)

func TestConsumeInOrder(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		for _, p := range []string{"a", "b", "c"} {
			fill(t, client.Queue(name).Partition(p), 40)
		}
		var mu sync.Mutex
		next := map[string]int{}
		err := client.Queue(name).Consume(short(t), func(ctx context.Context, m *queen.Message) error {
			mu.Lock()
			defer mu.Unlock()
			if n := read(t, m); n != next[m.Partition()] {
				t.Errorf("partition %s: %d instead of %d", m.Partition(), n, next[m.Partition()])
			}
			next[m.Partition()]++
			return nil
		}, queen.Limit(120), queen.Concurrency(3))
		must(t, err)
		if next["a"]+next["b"]+next["c"] != 120 {
			t.Fatalf("%v", next)
		}
		empty(t, client.Queue(name))
	})
}

func TestErrorsAndPanicsAreNacks(t *testing.T) {
	for broker, url := range brokers() {
		url := url
		t.Run(broker, func(t *testing.T) {
			var logged lockedBuffer
			client := open(t, url, queen.WithErrorLog(log.New(&logged, "", 0)))
			name := unique()
			_, err := client.QueueCreate(short(t), name, queen.Set("options", map[string]any{"retryLimit": 1, "retryDelay": 0}))
			must(t, err)
			fill(t, client.Queue(name), 3)
			var calls int32
			err = client.Queue(name).Consume(short(t), func(ctx context.Context, m *queen.Message) error {
				atomic.AddInt32(&calls, 1)
				switch read(t, m) {
				case 0:
					panic("no luck")
				case 1:
					return errors.New("out of \x00 stock")
				case 2:
					if m.Delivery().Group == "" {
						runtime.Goexit()
					}
				}
				return nil
			}, queen.IdleTimeout(1500*time.Millisecond))
			must(t, err)
			if calls < 5 { // two of them twice or more
				t.Errorf("%d calls", calls)
			}
			if text := logged.String(); !strings.Contains(text, "no luck") || !strings.Contains(text, "consumer_test.go") {
				t.Errorf("logged: %s", text)
			}
			letters, err := client.DLQList(short(t), queen.Set("queue", name))
			must(t, err)
			for _, reason := range []string{"panic: no luck", "out of "} {
				if !strings.Contains(string(letters), reason) {
					t.Errorf("no %q in %s", reason, letters)
				}
			}
		})
	}
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func TestGoexitInAHandlerIsANack(t *testing.T) {
	client := queentest.Start(t).Client()
	queue := client.Queue("q")
	fill(t, queue, 2)
	var calls int32
	must(t, queue.Consume(short(t), func(ctx context.Context, m *queen.Message) error {
		if atomic.AddInt32(&calls, 1) == 1 {
			runtime.Goexit()
		}
		return nil
	}, queen.Limit(3)))
	if calls != 3 {
		t.Fatalf("%d calls", calls)
	}
}

func TestBatchesAndManualAcks(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name)
		fill(t, queue, 30)
		seen := 0
		must(t, queue.ConsumeDeliveries(short(t), func(ctx context.Context, d *queen.Delivery) error {
			if len(d.Messages) > 10 {
				t.Errorf("%d messages", len(d.Messages))
			}
			seen += len(d.Messages)
			return nil
		}, queen.Batch(10), queen.Limit(30)))
		if seen != 30 {
			t.Fatalf("%d seen", seen)
		}

		// The handlers hand their messages on; another goroutine settles them.
		fill(t, queue, 10)
		work := make(chan *queen.Message, 10)
		consumer, err := queue.Start(short(t), func(ctx context.Context, m *queen.Message) error {
			work <- m
			return nil
		}, queen.ManualAck(), queen.Limit(10))
		must(t, err)
		for i := 0; i < 10; i++ {
			m := <-work
			if n := read(t, m); n != i {
				t.Fatalf("%d instead of %d", n, i)
			}
			must(t, m.Ack(short(t)))
		}
		summary, err := consumer.Wait(short(t))
		must(t, err)
		if summary.Reason != "limit" || summary.Acked != 10 || summary.Messages != 10 {
			t.Fatalf("%+v", summary)
		}
		if again, err := consumer.Stop(short(t)); err != nil || again != summary {
			t.Fatalf("%+v, %v", again, err)
		}

		// One message to a call also where many come together, and none behind a nack.
		fill(t, queue, 10)
		calls := 0
		must(t, queue.Consume(short(t), func(ctx context.Context, m *queen.Message) error {
			calls++
			return nil
		}, queen.Batch(5), queen.Limit(10)))
		if calls != 10 {
			t.Fatalf("%d calls", calls)
		}
	})
}

// What a handler keeps frees itself with the last verdict, not before and not never.
func TestWhatIsKeptIsFreedOnce(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name)
		fill(t, queue, 3)
		kept := make(chan *queen.Delivery, 1)
		consumer, err := queue.StartDeliveries(short(t), func(ctx context.Context, d *queen.Delivery) error {
			kept <- d
			return nil
		}, queen.ManualAck(), queen.Batch(3), queen.Limit(3))
		must(t, err)
		d := <-kept
		must(t, d.Messages[0].Ack(short(t)))
		wants(t, d.Messages[0].Ack(short(t)), queen.ErrAlreadySettled)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		wants(t, d.Messages[1].Ack(ended), queen.ErrCancelled) // never given
		wants(t, d.Messages[1].Ack(ended), queen.ErrCancelled)
		must(t, d.Messages[1].Ack(short(t)))
		if _, err := client.InTransaction(short(t), func(tx *queen.Transaction) error {
			return tx.Ack(d.Messages[2])
		}); err != nil {
			t.Fatal(err)
		}
		summary, err := consumer.Wait(short(t))
		must(t, err)
		if summary.Acked != 3 || summary.Unsettled != 0 {
			t.Fatalf("%+v", summary)
		}
		wants(t, d.Messages[2].Ack(short(t)), queen.ErrClosed) // freed
		empty(t, queue)
	})
}

// Handlers run side by side as often as Concurrency says, in whatever form it is given, and no more often.
func TestConcurrency(t *testing.T) {
	client := queentest.Start(t).Client()
	for i := 0; i < 8; i++ {
		fill(t, client.Queue("q").Partition(string(rune('a'+i))), 5)
	}
	for _, option := range []queen.Option{queen.Concurrency(4), queen.Set("concurrency", 4.0)} {
		var now, most int32
		must(t, client.Queue("q").Consume(short(t), func(context.Context, *queen.Message) error {
			if n := atomic.AddInt32(&now, 1); n > atomic.LoadInt32(&most) {
				atomic.StoreInt32(&most, n)
			}
			time.Sleep(10 * time.Millisecond)
			atomic.AddInt32(&now, -1)
			return nil
		}, option, queen.Limit(20)))
		if most < 2 || most > 4 {
			t.Errorf("%d side by side", most)
		}
	}
}

func TestStopWaitsForHandlers(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		fill(t, client.Queue(name), 5)
		entered, leave := make(chan struct{}, 5), make(chan struct{})
		consumer, err := client.Queue(name).Start(short(t), func(ctx context.Context, m *queen.Message) error {
			entered <- struct{}{}
			<-leave
			return nil
		})
		must(t, err)
		<-entered
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err = consumer.Stop(ctx)
		wants(t, err, queen.ErrTimeout)
		select {
		case <-consumer.Done():
			t.Fatal("it has ended while a handler runs")
		default:
		}
		close(leave)
		summary, err := consumer.Wait(short(t))
		must(t, err)
		if summary.Reason != "stopped" {
			t.Fatalf("%+v", summary)
		}
	})
}

func TestTheEndOfTheContextEndsTheConsumer(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name)
		fill(t, queue, 1)
		ctx, cancel := context.WithCancel(context.Background())
		// What the end of the context interrupts goes back, and no retry is charged.
		must(t, queue.Consume(ctx, func(ctx context.Context, m *queen.Message) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}))
		got, err := queue.Pop(short(t), queen.Wait(10*time.Second))
		must(t, err)
		defer got.Release()
		if len(got.Messages()) != 1 {
			t.Fatal("the message is gone")
		}
		must(t, got.Messages()[0].Ack(short(t)))

		// One that waits for messages ends at once.
		ctx, cancel = context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		began := time.Now()
		must(t, queue.Consume(ctx, func(context.Context, *queen.Message) error { return nil }))
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("it took %v", took)
		}
	})
}

func TestWhatFollowsGoesBackWhenAHandlerEndsItsConsumer(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name)
		fill(t, queue, 8)
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		consumer, err := queue.Start(ctx, func(context.Context, *queen.Message) error {
			if calls++; calls == 2 {
				cancel()
			}
			return nil
		}, queen.Batch(8))
		must(t, err)
		summary, err := consumer.Wait(short(t))
		must(t, err)
		if calls != 2 || summary.Acked != 2 || summary.Unsettled != 0 {
			t.Fatalf("%d calls, %+v", calls, summary)
		}
		rest, err := queue.Pop(short(t), queen.Batch(8), queen.Wait(10*time.Second))
		must(t, err)
		defer rest.Release()
		if len(rest.Messages()) != 6 {
			t.Fatalf("%d messages are left", len(rest.Messages()))
		}
	})
}

func TestALostLeaseEndsTheContextOfItsHandler(t *testing.T) {
	broker := queentest.Start(t)
	queue := broker.Client().Queue("q")
	fill(t, queue, 1)
	var calls int32
	must(t, queue.Consume(short(t), func(ctx context.Context, m *queen.Message) error {
		if atomic.AddInt32(&calls, 1) > 1 {
			return nil
		}
		broker.Move(time.Hour)
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			t.Error("the handler is not told")
		}
		if !m.Lost() {
			t.Error("the lease is not lost")
		}
		return nil
	}, queen.LeaseTime(time.Second), queen.Limit(2)))
	if calls != 2 {
		t.Fatalf("%d calls", calls)
	}
}

func TestAConsumerThatIsRefusedEndsWithTheError(t *testing.T) {
	broker := queentest.Start(t)
	broker.Fault(queen.Fault{Route: "pop", Action: "status", Status: 403})
	err := broker.Client().Queue("q").Consume(short(t), func(context.Context, *queen.Message) error { return nil })
	wants(t, err, queen.ErrForbidden)
}

func TestAGroupSeesEverything(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		fill(t, client.Queue(name), 5)
		for _, group := range []string{"one", "two"} {
			var seen int32
			must(t, client.Queue(name).Consume(short(t), func(context.Context, *queen.Message) error {
				atomic.AddInt32(&seen, 1)
				return nil
			}, queen.Group(group), queen.SubscriptionMode("all"), queen.Limit(5)))
			if seen != 5 {
				t.Fatalf("group %s has seen %d", group, seen)
			}
		}
	})
}
