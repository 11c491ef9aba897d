package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
)

// step is what a scenario asks for; the README tells what each field is.
type step struct {
	Do, Client, Queue, Partition, As, Of, Reason, Name, Operation string
	Stream, Group                                                 string
	Aggregate                                                     queen.Aggregation
	Items                                                         []item
	Options, Config, Parameters, Change                           map[string]any
	Verdicts                                                      []queen.Verdict
	Acks                                                          []queen.Ack
	Operations                                                    []map[string]any
	Handler                                                       []rule
	Faults                                                        []queen.Fault
	Step                                                          map[string]any
	Expect                                                        map[string]any
	Save                                                          map[string]string
	TimeoutMillis                                                 *int64
	StopMillis, Millis, Within                                    int64
}

type item struct {
	Payload                json.RawMessage
	TransactionID, TraceID string
}

type rule struct {
	Payload              any
	Call                 int
	Then, Reason, Status string
	Queue                string
	Items                []item
	SleepMillis          int64
}

// rules are those of a handler, and how often each payload came.
type rules struct {
	list  []rule
	mu    sync.Mutex
	calls map[string]int
}

func rulesOf(s *step) *rules { return &rules{list: s.Handler, calls: map[string]int{}} }

// next is the one that decides on this call, once its time to sleep is over; an ack where there is none.
func (r *rules) next(payload any) *rule {
	key := fmt.Sprint(payload)
	r.mu.Lock()
	r.calls[key]++
	call := r.calls[key]
	r.mu.Unlock()
	for i := range r.list {
		one := &r.list[i]
		if one.Payload != nil && match(one.Payload, payload, "") != "" || one.Call != 0 && one.Call != call {
			continue
		}
		time.Sleep(time.Duration(one.SleepMillis) * time.Millisecond)
		return one
	}
	return &rule{}
}

func items(from []item) []any {
	out := make([]any, len(from))
	for i, one := range from {
		out[i] = queen.Item{Payload: one.Payload, TransactionID: one.TransactionID, TraceID: one.TraceID}
	}
	return out
}

func options(from map[string]any) []queen.Option {
	var out []queen.Option
	for name, value := range from {
		out = append(out, queen.Set(name, value))
	}
	return out
}

// do does a step; the result is plain JSON.
func (w *world) do(ctx context.Context, s *step) (any, error) {
	client := w.client(s.Client)
	switch s.Do {
	case "open":
		return nil, w.open(s.Client, s.Config)
	case "close":
		wait := patience
		if s.TimeoutMillis != nil {
			wait = time.Duration(*s.TimeoutMillis) * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		return nil, client.Close(ctx)
	case "push":
		results, err := w.queue(s).PushAll(ctx, items(s.Items), options(s.Options)...)
		if results == nil {
			return nil, err
		}
		return plain(results), err
	case "pop":
		got, err := w.queue(s).Pop(ctx, options(s.Options)...)
		if s.As != "" {
			w.keep(s.As, got)
		} else {
			defer got.Release()
		}
		return tell(got.Messages(), map[string]any{"deliveries": len(got)}), err
	case "ack", "nack":
		var all []queen.AckResult
		for _, d := range w.kept(s.Of) {
			verdict := d.Ack
			if s.Do == "nack" {
				verdict = func(ctx context.Context) ([]queen.AckResult, error) { return d.Nack(ctx, s.Reason) }
			}
			results, err := verdict(ctx)
			all = append(all, results...)
			if err != nil {
				return plain(all), err
			}
		}
		return plain(all), nil
	case "settle":
		results, err := w.kept(s.Of)[0].Settle(ctx, s.Verdicts...)
		return plain(results), err
	case "release":
		w.kept(s.Of).Release()
		return nil, nil
	case "lost":
		return w.kept(s.Of)[0].Lost(), nil
	case "ack.ids":
		results, err := client.AckByID(ctx, s.Acks, options(s.Options)...)
		return plain(results), err
	case "transaction":
		return w.transaction(ctx, s, client)
	case "consume":
		return w.consume(ctx, s, client)
	case "windows":
		return w.windows(ctx, s, client)
	case "flush":
		if s.Queue == "" {
			return nil, client.Flush(ctx)
		}
		return nil, w.queue(s).Flush(ctx)
	case "reports":
		w.mu.Lock()
		defer w.mu.Unlock()
		return plain(append([]queen.Report{}, w.reports[name(s.Client)]...)), nil
	case "statistics":
		statistics, err := client.Statistics(ctx)
		return plain(statistics), err
	case "call":
		var result any
		err := client.Call(ctx, s.Operation, s.Parameters, &result)
		return result, err
	case "sleep":
		time.Sleep(time.Duration(s.Millis) * time.Millisecond)
		return nil, nil
	}
	if strings.HasPrefix(s.Do, "broker.") && w.broker != nil {
		return w.steer(ctx, s)
	}
	return nil, fmt.Errorf("no such step here: %s", s.Do)
}

func (w *world) steer(ctx context.Context, s *step) (any, error) {
	switch s.Do {
	case "broker.add_faults":
		faults, err := w.broker.AddFaults(ctx, s.Faults...)
		return plain(faults), err
	case "broker.faults":
		faults, err := w.broker.Faults(ctx)
		return tellFaults(faults), err
	case "broker.remove_faults":
		return nil, w.broker.RemoveFaults(ctx, 0)
	case "broker.requests":
		requests, err := w.broker.Requests(ctx)
		return plain(requests), err
	case "broker.reset_requests":
		return nil, w.broker.ResetRequests(ctx)
	case "broker.clock":
		if frozen, ok := s.Change["frozen"].(bool); ok {
			if err := w.broker.Freeze(ctx, frozen); err != nil {
				return nil, err
			}
		}
		millis, _ := s.Change["advanceMillis"].(float64)
		return nil, w.broker.Advance(ctx, time.Duration(millis)*time.Millisecond)
	case "broker.stop":
		return nil, w.broker.Stop(ctx)
	case "broker.kill":
		return nil, w.broker.Kill(ctx)
	case "broker.restart":
		return nil, w.broker.Restart(ctx)
	}
	return nil, fmt.Errorf("no such step: %s", s.Do)
}

// tellFaults adds what the binding leaves out when it writes a fault.
func tellFaults(faults []queen.Fault) any {
	out := []any{}
	for _, fault := range faults {
		one := plain(fault).(map[string]any)
		one["id"], one["matched"], one["applied"] = float64(fault.ID), float64(fault.Matched), float64(fault.Applied)
		out = append(out, one)
	}
	return out
}

func (w *world) queue(s *step) *queen.Queue {
	queue := w.client(s.Client).Queue(s.Queue)
	if s.Queue == "" { // found by namespace or task
		if namespace, ok := s.Options["namespace"].(string); ok {
			queue = w.client(s.Client).Namespace(namespace)
		} else if task, ok := s.Options["task"].(string); ok {
			queue = w.client(s.Client).Task(task)
		}
	}
	if s.Partition != "" {
		queue = queue.Partition(s.Partition)
	}
	return queue
}

// tell describes messages.
func tell(messages []*queen.Message, more map[string]any) any {
	payloads, all := []any{}, []any{}
	for _, m := range messages {
		d := m.Delivery()
		payloads = append(payloads, m.Payload)
		all = append(all, map[string]any{"queue": d.Queue, "partition": d.Partition, "partitionId": d.PartitionID, "leaseId": d.LeaseID,
			"consumerGroup": d.Group, "id": m.ID, "transactionId": m.TransactionID, "traceId": m.TraceID, "payload": m.Payload})
	}
	more["payloads"], more["messages"] = payloads, all
	return plain(more)
}

func (w *world) transaction(ctx context.Context, s *step, client *queen.Client) (any, error) {
	t, err := client.Transaction()
	if err != nil {
		return nil, err
	}
	defer t.Release()
	for _, o := range s.Operations {
		// The commit tells the error of an addition; the binding has told it before.
		var failed error
		if of, ok := o["ack"].(string); ok {
			index, _ := o["index"].(float64)
			status, ok := o["status"].(string)
			if !ok {
				status = "completed"
			}
			failed = t.Settle(w.kept(of).Messages()[int(index)], queen.Status(status))
		} else {
			var pushed []item
			bytes, _ := json.Marshal(o["items"])
			if err := json.Unmarshal(bytes, &pushed); err != nil {
				return nil, err
			}
			queue := client.Queue(o["push"].(string))
			if partition, ok := o["partition"].(string); ok {
				queue = queue.Partition(partition)
			}
			failed = t.Push(queue, items(pushed)...)
		}
		if failed != nil {
			return nil, failed
		}
	}
	result, err := t.Commit(ctx)
	return plain(result), err
}

func (w *world) consume(ctx context.Context, s *step, client *queen.Client) (any, error) {
	var mu sync.Mutex
	var got []*queen.Message
	rules := rulesOf(s)
	stop := make(chan struct{}, 100)
	handle := func(ctx context.Context, messages []*queen.Message) error {
		mu.Lock()
		got = append(got, messages...)
		mu.Unlock()
		return w.react(ctx, rules.next(plain(messages[0].Payload)), client, messages, stop)
	}
	settings := options(s.Options)
	var consumer *queen.Consumer
	var err error
	if s.Options["batch"] != nil && s.Options["each"] == nil {
		consumer, err = w.queue(s).StartDeliveries(ctx, func(ctx context.Context, d *queen.Delivery) error {
			return handle(ctx, d.Messages)
		}, settings...)
	} else {
		consumer, err = w.queue(s).Start(ctx, func(ctx context.Context, m *queen.Message) error {
			return handle(ctx, []*queen.Message{m})
		}, settings...)
	}
	if err != nil {
		return nil, err
	}
	after := make(<-chan time.Time)
	if s.StopMillis > 0 {
		after = time.After(time.Duration(s.StopMillis) * time.Millisecond)
	}
	var summary queen.Summary
	select {
	case <-consumer.Done():
		summary, err = consumer.Wait(ctx)
	case <-after:
		summary, err = consumer.Stop(ctx)
	case <-stop:
		summary, err = consumer.Stop(ctx)
	case <-ctx.Done():
		<-consumer.Done()
		return nil, ctx.Err()
	}
	mu.Lock()
	defer mu.Unlock()
	return tell(got, map[string]any{"summary": summary}), err
}

func (w *world) react(ctx context.Context, r *rule, client *queen.Client, messages []*queen.Message, stop chan<- struct{}) error {
	switch r.Then {
	case "", "ack":
		return nil
	case "nack":
		return errors.New(r.Reason)
	case "throw":
		panic(r.Reason)
	case "stop":
		stop <- struct{}{}
		return nil
	case "settle":
		m := messages[0]
		switch queen.Status(r.Status) {
		case queen.Completed:
			return m.Ack(ctx)
		case queen.Failed:
			return m.Nack(ctx, r.Reason)
		case queen.Retry:
			return m.Retry(ctx)
		case queen.DeadLetter:
			return m.DeadLetter(ctx, r.Reason)
		}
	case "transaction":
		_, err := client.InTransaction(ctx, func(t *queen.Transaction) error {
			if err := t.Ack(messages[0]); err != nil {
				return err
			}
			return t.Push(client.Queue(r.Queue), items(r.Items)...)
		})
		return err
	}
	panic("no such rule: " + r.Then)
}
