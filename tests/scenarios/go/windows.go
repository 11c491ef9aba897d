package main

import (
	"context"
	"errors"
	"sync"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
)

// windows handles the windows of a stream.
func (w *world) windows(ctx context.Context, s *step, client *queen.Client) (any, error) {
	var mu sync.Mutex
	got, calls := []any{}, map[string]int{}
	handle := func(_ context.Context, window *queen.Window) error {
		payloads := []any{}
		for _, m := range window.Messages() {
			payloads = append(payloads, m.Data)
		}
		aggregates, err := window.Aggregate(s.Aggregate)
		if err != nil {
			return err
		}
		mu.Lock()
		got = append(got, map[string]any{"key": window.Key, "start": window.Start, "payloads": payloads, "aggregates": aggregates})
		calls[window.Key]++
		call := calls[window.Key]
		mu.Unlock()
		for _, r := range s.Handler {
			if r.Payload != nil && match(r.Payload, window.Key, "") != "" || r.Call != 0 && r.Call != call {
				continue
			}
			time.Sleep(time.Duration(r.SleepMillis) * time.Millisecond)
			switch r.Then {
			case "", "ack":
				return nil
			case "nack":
				return errors.New(r.Reason)
			}
			panic(r.Then + ": " + r.Reason)
		}
		return nil
	}
	consumer, err := client.Stream(s.Stream).Start(ctx, s.Group, handle, options(s.Options)...)
	if err != nil {
		return nil, err
	}
	summary, err := consumer.Wait(ctx)
	mu.Lock()
	defer mu.Unlock()
	return plain(map[string]any{"windows": got, "summary": summary}), err
}
