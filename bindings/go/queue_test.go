package queen_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
)

func TestPushPopAck(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name).Partition("p")
		result, err := queue.Push(short(t), queen.Item{Payload: number{7}, TransactionID: "tx-" + name})
		must(t, err)
		if result.Status != "queued" || result.TransactionID != "tx-"+name || result.MessageID == "" {
			t.Fatalf("%+v", result)
		}
		again, err := queue.Push(short(t), queen.Item{Payload: number{7}, TransactionID: "tx-" + name})
		must(t, err)
		if again.Status != "duplicate" {
			t.Fatalf("%+v", again)
		}

		got, err := queue.Pop(short(t), queen.Batch(10), queen.Wait(5*time.Second))
		must(t, err)
		defer got.Release()
		if len(got.Messages()) != 1 {
			t.Fatalf("%d messages", len(got.Messages()))
		}
		m := got.Messages()[0]
		if m.Queue() != name || m.Partition() != "p" || m.TransactionID != "tx-"+name || read(t, m) != 7 || m.ID == "" {
			t.Fatalf("%+v of %+v", m, m.Delivery())
		}
		if age := time.Since(m.CreatedAt()); age < -time.Hour || age > time.Hour {
			t.Fatalf("created at %v", m.CreatedAt())
		}
		if m.Lost() {
			t.Fatal("the lease is lost")
		}
		must(t, m.Ack(short(t)))
		wants(t, m.Ack(short(t)), queen.ErrAlreadySettled)
		empty(t, queue)
	})
}

func TestPayloadsGoThroughByteForByte(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name)
		payloads := []string{`{"b":1,"a":12345678901234567890.10}`, `"<&>\u00e9 \ud83d\ude00"`, `null`, `[]`, `"` + strings.Repeat("x", 100000) + `"`}
		for _, payload := range payloads {
			_, err := queue.Push(short(t), json.RawMessage(payload))
			must(t, err)
		}
		got, err := queue.Pop(short(t), queen.Batch(10))
		must(t, err)
		defer got.Release()
		for i, m := range got.Messages() {
			if string(m.Payload) != payloads[i] {
				t.Errorf("%.60s became %.60s", payloads[i], m.Payload)
			}
		}
		_, err = got[0].Ack(short(t))
		must(t, err)
	})
}

func TestVerdicts(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		_, err := client.QueueCreate(short(t), name, queen.Set("options", map[string]any{"retryLimit": 5, "retryDelay": 0}))
		must(t, err)
		queue := client.Queue(name)
		fill(t, queue, 3)
		got, err := queue.Pop(short(t), queen.Batch(3))
		must(t, err)
		results, err := got[0].Settle(short(t), queen.Verdict{Index: 0, Status: queen.Completed},
			queen.Verdict{Index: 1, Status: queen.DeadLetter, Error: "not wanted"})
		must(t, err)
		if len(results) != 2 || !results[1].DLQ {
			t.Fatalf("%+v", results)
		}
		got.Release() // the third goes back
		_, err = got[0].Ack(short(t))
		wants(t, err, queen.ErrClosed)

		got, err = queue.Pop(short(t), queen.Batch(3), queen.Wait(10*time.Second))
		must(t, err)
		if len(got.Messages()) != 1 || read(t, got.Messages()[0]) != 2 {
			t.Fatalf("%d messages", len(got.Messages()))
		}
		_, err = got[0].Nack(short(t), "once more")
		must(t, err)
		got.Release()
		got, err = queue.Pop(short(t), queen.Batch(3), queen.Wait(10*time.Second))
		must(t, err)
		defer got.Release()
		must(t, got.Messages()[0].Ack(short(t)))

		var letters struct {
			Messages []struct{ Data number }
		}
		text, err := client.DLQList(short(t), queen.Set("queue", name))
		must(t, err)
		must(t, json.Unmarshal(text, &letters))
		if len(letters.Messages) != 1 || letters.Messages[0].Data.N != 1 {
			t.Fatalf("%s", text)
		}
	})
}

func TestAckByID(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name)
		fill(t, queue, 1)
		got, err := queue.Pop(short(t), queen.Group("g"), queen.SubscriptionMode("all"))
		must(t, err)
		defer got.Release()
		m := got.Messages()[0]
		results, err := client.AckByID(short(t), []queen.Ack{{TransactionID: m.TransactionID, PartitionID: m.Delivery().PartitionID,
			LeaseID: m.Delivery().LeaseID}}, queen.Group("g"))
		must(t, err)
		if len(results) != 1 || !results[0].Success {
			t.Fatalf("%+v", results)
		}
		_, err = client.AckByID(short(t), nil)
		wants(t, err, queen.ErrInvalidArgument)
	})
}

func TestTransaction(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		from, to := client.Queue(name), client.Queue(name+"-out").Partition("eu")
		fill(t, from, 1)
		got, err := from.Pop(short(t))
		must(t, err)
		defer got.Release()
		result, err := client.InTransaction(short(t), func(tx *queen.Transaction) error {
			if err := tx.Ack(got.Messages()[0]); err != nil {
				return err
			}
			return tx.Push(to, number{1}, number{2})
		})
		must(t, err)
		if len(result.Results) != 3 {
			t.Fatalf("%+v", result)
		}
		wants(t, got.Messages()[0].Ack(short(t)), queen.ErrAlreadySettled)
		out, err := to.Pop(short(t), queen.Batch(5))
		must(t, err)
		defer out.Release()
		if len(out.Messages()) != 2 {
			t.Fatalf("%d messages", len(out.Messages()))
		}
		_, err = out[0].Ack(short(t))
		must(t, err)

		// What the function refuses is not sent.
		no := errors.New("no")
		if _, err := client.InTransaction(short(t), func(tx *queen.Transaction) error {
			must(t, tx.Push(to, number{3}))
			return no
		}); err != no {
			t.Fatal(err)
		}
		empty(t, to)
		tx, err := client.Transaction()
		must(t, err)
		_, err = tx.Commit(short(t))
		wants(t, err, queen.ErrInvalidArgument)
		wants(t, tx.Push(to, number{4}), queen.ErrClosed)
	})
}

func TestTraces(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		fill(t, client.Queue(name), 1)
		got, err := client.Queue(name).Pop(short(t))
		must(t, err)
		defer got.Release()
		m := got.Messages()[0]
		must(t, m.Trace(short(t), "step", map[string]any{"at": "till"}, name))
		must(t, m.Ack(short(t)))
		must(t, m.Trace(short(t), "", "afterwards"))
		text, err := client.TraceByName(short(t), name)
		must(t, err)
		if !strings.Contains(string(text), "till") {
			t.Fatalf("%s", text)
		}
	})
}

func TestBuffersAndReports(t *testing.T) {
	for broker, url := range brokers() {
		url := url
		t.Run(broker, func(t *testing.T) {
			var mu sync.Mutex
			told := map[string]string{}
			client := open(t, url, queen.WithReports(func(reports []queen.Report, dropped int) {
				mu.Lock()
				defer mu.Unlock()
				for _, r := range reports {
					told[r.TransactionID] = r.Status
				}
			}))
			queue := client.Queue(unique())
			for i := 0; i < 50; i++ {
				result, err := queue.Push(short(t), number{i}, queen.Set("buffer", queen.Buffer{Messages: 20, Time: time.Minute}))
				must(t, err)
				if result.Status != "buffered" {
					t.Fatalf("%+v", result)
				}
			}
			must(t, queue.Flush(short(t)))
			must(t, client.Flush(short(t)))
			until(t, "50 reports", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) == 50 })
			for id, status := range told {
				if status != "queued" {
					t.Errorf("%s is %s", id, status)
				}
			}
			s, err := client.Statistics(short(t))
			must(t, err)
			if s.Number("messages.queued") != 50 || s.Number("no.such.field") != 0 {
				t.Errorf("%v", s)
			}
		})
	}
}

// until waits for a condition.
func until(t testing.TB, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestRefusals(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		_, err := client.Queue("").Push(short(t), 1)
		wants(t, err, queen.ErrInvalidArgument)
		_, err = client.Queue("a\x00b").Push(short(t), 1)
		wants(t, err, queen.ErrInvalidArgument)
		_, err = client.Queue("a\xffb").Push(short(t), 1)
		wants(t, err, queen.ErrInvalidUTF8)
		_, err = client.Queue(name).Push(short(t), json.RawMessage("{"))
		wants(t, err, queen.ErrInvalidJSON)
		_, err = client.Queue(name).Push(short(t), json.RawMessage(" "))
		wants(t, err, queen.ErrInvalidJSON)
		_, err = client.Queue(name).Push(short(t), func() {})
		wants(t, err, queen.ErrInvalidJSON)
		_, err = client.Queue(name).Push(short(t), 1, queen.Set("nonsense", 1))
		if e := wants(t, err, queen.ErrInvalidConfig); !strings.Contains(e.Message, "nonsense") {
			t.Fatal(e)
		}
		_, err = client.Queue(name).Pop(short(t), queen.Batch(-1))
		if err == nil {
			t.Fatal("a batch of -1")
		}
		_, err = client.Queue(name).Start(short(t), func(context.Context, *queen.Message) error { return nil }, queen.Concurrency(0))
		wants(t, err, queen.ErrInvalidConfig)
		_, err = client.Queue(name).Start(short(t), nil)
		wants(t, err, queen.ErrInvalidArgument)
		wants(t, client.Call(short(t), "no.such", nil, nil), queen.ErrUnknownOperation)
		wants(t, client.Call(short(t), "queue.get", nil, nil), queen.ErrInvalidJSON)
		_, err = client.MessageGet(short(t), "00000000-0000-0000-0000-000000000000", "none")
		if e := wants(t, err, queen.ErrNotFound); e.HTTPStatus != 404 || e.Outcome != queen.Refused || e.Retriable {
			t.Fatalf("%+v", e)
		}
		var number int
		if err := client.Call(short(t), "health", nil, &number); !errors.Is(err, queen.ErrBadAnswer) {
			t.Fatal(err)
		}
	})
	_, err := queen.Open(context.Background(), "ftp://nowhere")
	wants(t, err, queen.ErrInvalidConfig)
	_, err = queen.Open(context.Background(), "embedded:", queen.WithSetting("nonsense", 1))
	wants(t, err, queen.ErrInvalidConfig)
}

func TestEveryOperationByName(t *testing.T) {
	client := open(t, "embedded:")
	var operations []struct{ Name string }
	must(t, json.Unmarshal(queen.Operations(), &operations))
	if len(operations) < 40 {
		t.Fatalf("%d operations", len(operations))
	}
	for _, o := range operations {
		err := client.Call(short(t), o.Name, nil, nil)
		if errors.Is(err, queen.ErrUnknownOperation) {
			t.Errorf("%s: %v", o.Name, err)
		}
	}
	if queen.Version() == "" {
		t.Error("no version")
	}
}
