//go:build go1.23

package queen_test

import (
	"context"
	"strings"
	"testing"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
	"github.com/libqueen/libqueen/bindings/go/queentest"
)

func TestMessages(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name)
		fill(t, queue, 10)
		at := 0
		for m, err := range queue.Messages(short(t)) {
			must(t, err)
			if n := read(t, m); n != at {
				t.Fatalf("%d instead of %d", n, at)
			}
			if at == 5 {
				break // not acked: it comes again
			}
			at++
		}
		for m, err := range queue.Messages(short(t), queen.Limit(5), queen.Concurrency(2)) {
			must(t, err)
			if n := read(t, m); n != at {
				t.Fatalf("%d instead of %d", n, at)
			}
			if at == 9 {
				must(t, m.Ack(short(t)))
			}
			at++
		}
		if at != 10 {
			t.Fatalf("%d messages", at)
		}
		empty(t, queue)

		// A panic leaves the loop and its message.
		fill(t, queue, 1)
		func() {
			defer func() {
				if cause := recover(); cause != "no luck" {
					t.Errorf("%v", cause)
				}
			}()
			for range queue.Messages(short(t)) {
				panic("no luck")
			}
		}()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		count := 0
		for m, err := range queue.Messages(ctx) {
			must(t, err)
			must(t, m.Ack(short(t)))
			count++
			time.AfterFunc(20*time.Millisecond, cancel)
		}
		if count != 1 {
			t.Fatalf("%d messages", count)
		}
	})
}

func TestMessagesEndWithTheError(t *testing.T) {
	broker := queentest.Start(t)
	client := broker.Client()
	broker.Fault(queen.Fault{Route: "pop", Action: "status", Status: 403})
	errors := 0
	for m, err := range client.Queue("q").Messages(short(t)) {
		wants(t, err, queen.ErrForbidden)
		if m != nil {
			t.Error("a message beside the error")
		}
		errors++
	}
	for _, err := range client.Queue("q").Messages(short(t), queen.Set("nonsense", 1)) {
		wants(t, err, queen.ErrInvalidConfig)
		errors++
	}
	if errors != 2 {
		t.Fatalf("%d errors", errors)
	}
}

func TestWindows(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		stream := windows(t, client, name)
		if stream == nil {
			for _, err := range client.Stream(name).Windows(short(t), "g") {
				wants(t, err, queen.ErrUnsupported)
			}
			return
		}
		fill(t, client.Queue(name), 3)
		left := ""
		for w, err := range stream.Windows(short(t), "g") {
			must(t, err)
			if w.Size() > 0 {
				left = w.ID // not acked: it comes again
				break
			}
		}
		seen := 0
		for w, err := range stream.Windows(short(t), "g", queen.Limit(1)) {
			must(t, err)
			if w.ID != left || w.Size() != 3 {
				t.Fatalf("%s with %d messages instead of %s", w.ID, w.Size(), left)
			}
			seen++
		}
		stands, err := client.StreamConsumers(short(t), name)
		must(t, err)
		if seen != 1 || !strings.Contains(string(stands), `"windowsProcessed":1`) {
			t.Fatalf("%d windows; %s", seen, stands)
		}
	})
}
