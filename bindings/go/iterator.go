//go:build go1.23

package queen

import (
	"context"
	"iter"
)

// Messages hands over messages one at a time, for a loop:
//
//	for m, err := range queue.Messages(ctx) {
//		if err != nil {
//			return err
//		}
//		...
//	}
//
// A message is acked when the body of the loop has ended and nothing else has settled it. One on which the loop is left, by break,
// return or a panic, is not: it goes back uncharged, so Ack it before a break if it is done. The loop ends as Consume does; an
// error comes once, last, with no message.
func (q *Queue) Messages(ctx context.Context, options ...Option) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		type turn struct {
			message *Message
			done    chan bool // whether the body has ended
		}
		turns := make(chan turn)
		consumer, err := q.Start(ctx, func(ctx context.Context, m *Message) error {
			t := turn{m, make(chan bool, 1)}
			select {
			case turns <- t:
			case <-ctx.Done():
				return ctx.Err()
			}
			if !<-t.done {
				m.delivery.Release()
			}
			return nil
		}, options...)
		if err != nil {
			cancel()
			yield(nil, err)
			return
		}
		// Also when the body panics.
		defer func() {
			cancel()
			<-consumer.Done()
		}()
		body := func(t turn) (goOn bool) {
			defer func() { t.done <- goOn }()
			return yield(t.message, nil)
		}
		for {
			select {
			case t := <-turns:
				if !body(t) {
					return
				}
			case <-consumer.Done():
				if _, err := consumer.Wait(context.Background()); err != nil {
					yield(nil, err)
				}
				return
			}
		}
	}
}
