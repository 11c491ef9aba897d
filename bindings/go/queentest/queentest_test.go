package queentest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
	"github.com/libqueen/libqueen/bindings/go/queentest"
)

// An application that charges each order once, also when its message comes twice.
type shop struct {
	charged map[string]bool
	charges int
	calls   int32
}

func (s *shop) handle(ctx context.Context, m *queen.Message) error {
	atomic.AddInt32(&s.calls, 1)
	if !s.charged[m.TransactionID] {
		s.charged[m.TransactionID] = true
		s.charges++
	}
	return nil
}

func TestAnAckWhoseAnswerGetsLost(t *testing.T) {
	broker := queentest.Start(t)
	client := broker.Client()
	orders := client.Queue("orders")
	if _, err := orders.Push(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	cut := broker.Fault(queen.Fault{Route: "ack", Action: "cutAfterCommit", Times: 1})
	s := &shop{charged: map[string]bool{}}
	if err := orders.Consume(context.Background(), s.handle, queen.Limit(1)); err != nil {
		t.Fatal(err)
	}
	if s.calls != 1 || s.charges != 1 || broker.Applied(cut) != 1 || broker.Count("ack") != 2 {
		t.Fatalf("%+v, %d acks", s, broker.Count("ack"))
	}
}

func TestAnAckThatNeverArrives(t *testing.T) {
	broker := queentest.Start(t)
	s := &shop{charged: map[string]bool{}}
	first, err := queen.Open(context.Background(), broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Queue("orders").Push(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	hang := broker.Fault(queen.Fault{Route: "ack", Action: "hang", Times: 1})
	if _, err := first.Queue("orders").Start(context.Background(), s.handle); err != nil {
		t.Fatal(err)
	}
	for broker.Applied(hang) == 0 {
		time.Sleep(time.Millisecond)
	}
	dies, cancel := context.WithCancel(context.Background())
	cancel()
	if err := first.Close(dies); err != nil { // the program dies: nothing is waited for
		t.Fatal(err)
	}
	broker.Move(61 * time.Second)
	if err := broker.Client().Queue("orders").Consume(context.Background(), s.handle, queen.Limit(1)); err != nil {
		t.Fatal(err)
	}
	if s.charges != 1 || s.calls != 2 {
		t.Fatalf("%+v", s)
	}
}

func TestFaultsAndTheClock(t *testing.T) {
	ctx := context.Background()
	broker := queentest.StartWith(t, queen.BrokerOptions{Listen: []string{"127.0.0.1:0"}})
	if broker.Address(0) == "" || broker.Address(1) != "" {
		t.Fatalf("listens on %q, %q", broker.Address(0), broker.Address(1))
	}
	overTCP, err := queen.Open(ctx, broker.Address(0))
	if err != nil {
		t.Fatal(err)
	}
	defer overTCP.Close(ctx)
	_, err = overTCP.Queue("q").Push(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := overTCP.Queue("q").Pop(ctx, queen.LeaseTime(10*time.Second))
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	defer got.Release()
	if err := broker.Freeze(ctx, true); err != nil {
		t.Fatal(err)
	}
	broker.Move(11 * time.Second)
	if err := got.Messages()[0].Ack(ctx); !errors.Is(err, queen.ErrLeaseLost) {
		t.Fatalf("acked after the end of the lease: %v", err)
	}

	if _, err := broker.AddFaults(ctx, queen.Fault{Action: "nonsense"}); !errors.Is(err, queen.ErrInvalidConfig) {
		t.Fatal(err)
	}
	broker.Fault(queen.Fault{Route: "push", Action: "status", Status: 400, Body: map[string]any{"error": "no", "code": "quota"}})
	var refused *queen.Error
	if _, err := overTCP.Queue("q").Push(ctx, 1); !errors.As(err, &refused) || refused.HTTPStatus != 400 || refused.BrokerCode != "quota" {
		t.Fatalf("%+v", refused)
	}
	broker.Heal()
	if err := broker.ResetRequests(ctx); err != nil || broker.Count("push") != 0 {
		t.Fatal(err)
	}
	if err := broker.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := broker.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := queen.StartBroker(queen.BrokerOptions{Durability: "nonsense"}); !errors.Is(err, queen.ErrInvalidConfig) {
		t.Fatal(err)
	}
	released, err := queen.StartBroker(queen.BrokerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	released.Release()
	released.Release()
	if err := released.Kill(ctx); !errors.Is(err, queen.ErrClosed) || released.Address(0) != "" {
		t.Fatal(err)
	}
}
