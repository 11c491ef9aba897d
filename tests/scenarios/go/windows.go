package main

import (
	"context"
	"errors"
	"sync"

	queen "github.com/libqueen/libqueen/bindings/go"
)

// windows handles the windows of a stream.
func (w *world) windows(ctx context.Context, s *step, client *queen.Client) (any, error) {
	var mu sync.Mutex
	got, rules := []any{}, rulesOf(s)
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
		mu.Unlock()
		switch r := rules.next(window.Key); r.Then {
		case "", "ack":
			return nil
		case "nack":
			return errors.New(r.Reason)
		default:
			panic(r.Then + ": " + r.Reason)
		}
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
