package queen_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// windows is a stream over a queue of that name, with windows of a tenth of a second; nil where there are no streams.
func windows(t *testing.T, client *queen.Client, name string, options ...queen.Option) *queen.Stream {
	t.Helper()
	_, err := client.QueueCreate(short(t), name)
	must(t, err)
	stream := client.Stream(name)
	options = append([]queen.Option{queen.Sources(name), queen.Tumbling(100 * time.Millisecond), queen.GracePeriod(0)}, options...)
	err = stream.Define(short(t), "tests", options...)
	if errors.Is(err, queen.ErrUnsupported) {
		if !strings.Contains(t.Name(), "official") || !strings.Contains(err.Error(), "0.7") {
			t.Fatal(err)
		}
		_, err = stream.Poll(short(t), "g")
		wants(t, err, queen.ErrUnsupported)
		wants(t, stream.Consume(short(t), "g", func(context.Context, *queen.Window) error { return nil }), queen.ErrUnsupported)
		return nil
	}
	must(t, err)
	return stream
}

// pollMessages acks windows until one has messages.
func pollMessages(t *testing.T, stream *queen.Stream, group string) *queen.Window {
	t.Helper()
	for {
		window, err := stream.Poll(short(t), group)
		must(t, err)
		if window == nil {
			t.Fatal("no window came")
		}
		t.Cleanup(window.Release)
		if window.OriginalSize() > 0 {
			return window
		}
		must(t, window.Ack(short(t)))
	}
}

func TestAWindowIsFilteredGroupedAndSummed(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		stream := windows(t, client, name)
		if stream == nil {
			return
		}
		var payloads []any
		for _, text := range []string{`{"by":"ann","n":1}`, `{"by":"bob","n":2.5}`, `{"by":"ann","n":9007199254740993}`, `{"n":"x"}`} {
			payloads = append(payloads, json.RawMessage(text))
		}
		_, err := client.Queue(name).PushAll(short(t), payloads)
		must(t, err)
		w := pollMessages(t, stream, "g")
		if w.Size() != 4 || w.Key != "__GLOBAL__" || !strings.Contains(w.ID, ":__GLOBAL__:") || w.Stream() != name || w.Group() != "g" {
			t.Fatalf("%+v", w)
		}
		if length := w.End.Sub(w.Start); length != 100*time.Millisecond {
			t.Errorf("a window of %v", length)
		}
		for _, m := range w.Messages() {
			if m.ID == "" || m.CreatedAt.Before(w.Start) || !m.CreatedAt.Before(w.End) {
				t.Errorf("%+v is not of %v to %v", m, w.Start, w.End)
			}
		}
		groups, err := w.GroupBy("data.by")
		must(t, err)
		if len(groups) != 3 || groups[0].Key != "ann" || len(groups[0].Messages) != 2 || groups[1].Key != "bob" || groups[2].Key != "null_key" {
			t.Errorf("%+v", groups)
		}
		var bob struct{ N float64 }
		must(t, groups[1].Messages[0].Decode(&bob))
		if bob.N != 2.5 {
			t.Errorf("%+v", bob)
		}

		wanted := queen.Aggregation{Count: true, Sum: []string{"data.n"}, Avg: []string{"data.none"}, Min: []string{"data.n"}, Max: []string{"data.by"}}
		ofAnn := func(m *queen.WindowMessage) bool { return strings.Contains(string(m.Data), "ann") }
		sums, err := w.Filter(ofAnn).Aggregate(wanted)
		must(t, err)
		if n, err := sums.Sum["data.n"].Int64(); err != nil || n != 9007199254740994 || sums.Count != 2 {
			t.Errorf("%+v", sums)
		}
		if sums.Avg["data.none"] != "0.0" || sums.Min["data.n"] != "1" || sums.Max["data.by"] != "" {
			t.Errorf("%+v", sums)
		}
		// A second filter is over what the first has left.
		big := w.Filter(func(m *queen.WindowMessage) bool { return strings.Contains(string(m.Data), "9007") })
		if sums, err = big.Aggregate(wanted); err != nil || sums.Count != 1 || sums.Min["data.n"] != "9007199254740993" {
			t.Errorf("%+v %v", sums, err)
		}
		if len(w.AllMessages()) != 4 || w.OriginalSize() != 4 || w.Size() != 1 {
			t.Errorf("%d of %d", w.Size(), w.OriginalSize())
		}
		none := w.Filter(func(*queen.WindowMessage) bool { return false })
		if sums, err = none.Aggregate(wanted); err != nil || sums.Count != 0 || sums.Sum["data.n"] != "0" || sums.Min["data.n"] != "" {
			t.Errorf("%+v %v", sums, err)
		}
		if sums, err = w.Reset().Aggregate(wanted); err != nil || sums.Count != 4 || w.Size() != 4 {
			t.Errorf("%+v %v", sums, err)
		}
		_, err = w.GroupBy("data.\x00")
		wants(t, err, queen.ErrInvalidArgument)

		must(t, w.Ack(short(t)))
		wants(t, w.Nack(short(t)), queen.ErrAlreadySettled)
		if w.Lost() {
			t.Error("it was acked")
		}
		w.Release()
		w.Release()
		if w.Filter(ofAnn).Size() != 2 {
			t.Error("the messages are gone")
		}
		_, err = w.Aggregate(wanted)
		wants(t, err, queen.ErrClosed)
		wants(t, w.Ack(short(t)), queen.ErrClosed)
	})
}

func TestAWindowWithoutAnAckComesAgain(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		stream := windows(t, client, name)
		if stream == nil {
			return
		}
		fill(t, client.Queue(name), 700) // more than one crossing describes
		w := pollMessages(t, stream, "g")
		again := func(what string) *queen.Window {
			t.Helper()
			next, err := stream.Poll(short(t), "g")
			must(t, err)
			if next == nil || next.ID != w.ID || next.OriginalSize() != 700 {
				t.Fatalf("after %s: %+v", what, next)
			}
			return next
		}
		w.Release()
		next := again("a release")
		must(t, next.Nack(short(t)))
		next.Release()
		next = again("a nack")
		for i, m := range next.Messages() {
			var n number
			must(t, m.Decode(&n))
			if n.N != i {
				t.Fatalf("%d at %d", n.N, i)
			}
		}
		must(t, next.Ack(short(t)))
		next.Release()
		must(t, stream.Seek(short(t), "g", w.Start))
		next = again("a seek")
		next.Release()

		_, err := client.Stream("none-"+name).Poll(short(t), "g")
		wants(t, err, queen.ErrNotFound)
	})
}

func TestAPollThatBringsNothing(t *testing.T) {
	client := queentest.Start(t).Client()
	stream := windows(t, client, "s")
	none, err := stream.Poll(short(t), "g", queen.Wait(20*time.Millisecond))
	if none != nil || err != nil {
		t.Fatalf("%+v %v", none, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = stream.Poll(ctx, "g", queen.Wait(time.Minute))
	wants(t, err, queen.ErrCancelled)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTheWindowsOfAStreamAreConsumed(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		logged := &lockedBuffer{}
		client = open(t, brokers()[strings.Split(t.Name(), "/")[1]], queen.WithErrorLog(log.New(logged, "", 0)))
		stream := windows(t, client, name, queen.Partitioned())
		if stream == nil {
			return
		}
		for p := 0; p < 3; p++ {
			fill(t, client.Queue(name).Partition(fmt.Sprint(p)), 10)
		}
		var mu sync.Mutex
		sums, failed := map[string]int64{}, map[string]int{}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		consumer, err := stream.Start(ctx, "g", func(ctx context.Context, w *queen.Window) error {
			if w.Size() == 0 {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			failed[w.Key]++
			switch {
			case w.Key == "0" && failed["0"] == 1:
				return errors.New("not now")
			case w.Key == "1" && failed["1"] == 1:
				panic("no luck")
			case w.Key == "2" && failed["2"] == 1:
				runtime.Goexit()
			}
			told, err := w.Aggregate(queen.Aggregation{Sum: []string{"data.n"}})
			if err != nil {
				return err
			}
			sum, err := told.Sum["data.n"].Int64()
			sums[w.Key] += sum
			if len(sums) == 3 {
				cancel()
			}
			return err
		}, queen.Concurrency(3), queen.Wait(time.Second))
		must(t, err)
		summary, err := consumer.Wait(short(t))
		must(t, err)
		for _, key := range []string{"0", "1", "2"} {
			if sums[key] != 45 || failed[key] != 2 {
				t.Errorf("key %s: a sum of %d with %d calls", key, sums[key], failed[key])
			}
		}
		if summary.Reason != "stopped" || summary.Nacked != 3 || summary.Acked < 3 || summary.Messages != 60 || summary.Windows != summary.Acked+3 {
			t.Errorf("%+v", summary)
		}
		for _, says := range []string{"not now", "panicked: no luck", "ended its goroutine"} {
			if strings.Count(logged.String(), says) != 1 {
				t.Errorf("%q is not once in %s", says, logged.String())
			}
		}
	})
}

func TestManualVerdictsOnWindows(t *testing.T) {
	client := queentest.Start(t).Client()
	stream := windows(t, client, "s")
	fill(t, client.Queue("s"), 5)
	kept := make(chan *queen.Window, 10)
	consumer, err := stream.Start(short(t), "g", func(ctx context.Context, w *queen.Window) error {
		if w.Size() == 0 {
			return w.Ack(ctx)
		}
		kept <- w
		return nil
	}, queen.ManualAck())
	must(t, err)
	w := <-kept
	time.Sleep(50 * time.Millisecond) // the handler is over
	if told, err := w.Aggregate(queen.Aggregation{Count: true}); err != nil || told.Count != 5 {
		t.Fatalf("%+v %v", told, err)
	}
	must(t, w.Nack(short(t)))
	wants(t, w.Ack(short(t)), queen.ErrClosed) // the verdict has released it
	w = <-kept
	must(t, w.Ack(short(t)))
	summary, err := consumer.Stop(short(t))
	must(t, err)
	if summary.Nacked != 1 || summary.Messages != 10 || summary.Lost != 0 {
		t.Fatalf("%+v", summary)
	}
}

func TestAHandlerHearsOfItsLostWindow(t *testing.T) {
	broker := queentest.Start(t)
	client := broker.Client()
	stream := windows(t, client, "s", queen.LeaseTimeout(2*time.Second))
	fill(t, client.Queue("s"), 1)
	var calls, ended int32
	err := stream.Consume(short(t), "g", func(ctx context.Context, w *queen.Window) error {
		if w.Size() == 0 {
			return nil
		}
		if atomic.AddInt32(&calls, 1) > 1 {
			return nil
		}
		broker.Move(time.Hour)
		<-ctx.Done()
		atomic.AddInt32(&ended, 1)
		if !w.Lost() {
			t.Error("the context has ended, and the window is not lost")
		}
		wants(t, w.Ack(context.Background()), queen.ErrLeaseLost)
		return ctx.Err()
	}, queen.IdleTimeout(3*time.Second), queen.Limit(40))
	must(t, err)
	if calls < 2 || ended != 1 {
		t.Fatalf("%d calls, %d contexts have ended", calls, ended)
	}
}

func TestWhatAStreamCannotDo(t *testing.T) {
	client := queentest.Start(t).Client()
	handler := func(context.Context, *queen.Window) error { return nil }
	wants(t, client.Stream("none").Consume(short(t), "g", handler), queen.ErrNotFound)
	_, err := client.Stream("none").Start(short(t), "", handler)
	if e := wants(t, err, queen.ErrInvalidArgument); !strings.Contains(e.Message, "consumerGroup") {
		t.Error(e)
	}
	_, err = client.Stream("none").Start(short(t), "g", nil)
	wants(t, err, queen.ErrInvalidArgument)
	_, err = client.Stream("none").Start(short(t), "g", handler, queen.Batch(3))
	if e := wants(t, err, queen.ErrInvalidConfig); !strings.Contains(e.Message, "batch") {
		t.Error(e)
	}
	_, err = client.Stream("no\x00ne").Poll(short(t), "g")
	wants(t, err, queen.ErrInvalidArgument)
	wants(t, client.Stream("s").Define(short(t), "n", queen.Sources("nowhere")), queen.ErrNotFound)
	for _, name := range []string{"pop", "stream.poll"} {
		wants(t, client.Call(short(t), name, map[string]any{"stream": "s", "consumerGroup": "g", "queue": "q"}, nil), queen.ErrInvalidArgument)
	}
}

// What was lost on the way is told, and gives the window back.
func TestAWindowThatIsForgottenGoesBack(t *testing.T) {
	logged := &lockedBuffer{}
	client := open(t, queentest.Start(t).URL(), queen.WithErrorLog(log.New(logged, "", 0)))
	stream := windows(t, client, "s")
	fill(t, client.Queue("s"), 1)
	func() {
		for {
			window, err := stream.Poll(short(t), "g")
			must(t, err)
			if window.Size() > 0 {
				return
			}
			must(t, window.Ack(short(t)))
			window.Release()
		}
	}()
	until(t, "the finalizer", func() bool {
		runtime.GC()
		return strings.Contains(logged.String(), "never released")
	})
	window, err := stream.Poll(short(t), "g")
	must(t, err)
	defer window.Release()
	if window.Size() != 1 {
		t.Fatalf("%+v", window)
	}
}
