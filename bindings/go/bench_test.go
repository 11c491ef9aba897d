package queen_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	queen "github.com/libqueen/libqueen/bindings/go"
)

var payload = json.RawMessage(`{"n":1,"text":"` + strings.Repeat("x", 100) + `"}`)

// BenchmarkPush pushes one message per call.
func BenchmarkPush(b *testing.B) {
	for _, goroutines := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			queue := open(b, "embedded:").Queue("q").Partition("p")
			b.ReportAllocs()
			b.ResetTimer()
			work := make(chan struct{}, goroutines)
			done := make(chan error, goroutines)
			for i := 0; i < goroutines; i++ {
				go func() {
					var failed error
					for range work {
						if _, err := queue.Push(context.Background(), payload); err != nil {
							failed = err
						}
					}
					done <- failed
				}()
			}
			for i := 0; i < b.N; i++ {
				work <- struct{}{}
			}
			close(work)
			for i := 0; i < goroutines; i++ {
				must(b, <-done)
			}
		})
	}
}

// BenchmarkConsume handles one message per call, with the default options.
func BenchmarkConsume(b *testing.B) {
	queue := open(b, "embedded:").Queue("q").Partition("p")
	for left := b.N; left > 0; {
		n := left
		if n > 1000 {
			n = 1000
		}
		batch := make([]any, n)
		for i := range batch {
			batch[i] = payload
		}
		_, err := queue.PushAll(context.Background(), batch)
		must(b, err)
		left -= n
	}
	b.ReportAllocs()
	b.ResetTimer()
	must(b, queue.Consume(context.Background(), func(context.Context, *queen.Message) error { return nil }, queen.Limit(b.N)))
}

// BenchmarkPopAck pops and acks batches of 100.
func BenchmarkPopAck(b *testing.B) {
	queue := open(b, "embedded:").Queue("q").Partition("p")
	batch := make([]any, 100)
	for i := range batch {
		batch[i] = payload
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		b.StopTimer()
		_, err := queue.PushAll(context.Background(), batch)
		must(b, err)
		b.StartTimer()
		got, err := queue.Pop(context.Background(), queen.Batch(100))
		must(b, err)
		_, err = got[0].Ack(context.Background())
		must(b, err)
		got.Release()
	}
}
