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
	return loop(ctx, func(ctx context.Context, handler func(context.Context, *Message) error) (*Consumer, error) {
		return q.Start(ctx, handler, options...)
	}, func(m *Message) { m.delivery.Release() })
}

// Windows hands over the windows of a group one at a time, for a loop, as Queue.Messages does with messages: a window is acked
// when the body of the loop has ended, and comes again when the loop is left on it.
func (s *Stream) Windows(ctx context.Context, group string, options ...Option) iter.Seq2[*Window, error] {
	return loop(ctx, func(ctx context.Context, handler func(context.Context, *Window) error) (*Consumer, error) {
		return s.Start(ctx, group, handler, options...)
	}, (*Window).Release)
}

// loop runs a consumer whose handler is the body of a loop.
func loop[T any](ctx context.Context, start func(context.Context, func(context.Context, *T) error) (*Consumer, error),
	release func(*T)) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		type turn struct {
			item *T
			done chan bool // whether the body has ended
		}
		turns := make(chan turn)
		consumer, err := start(ctx, func(ctx context.Context, m *T) error {
			t := turn{m, make(chan bool, 1)}
			select {
			case turns <- t:
			case <-ctx.Done():
				return ctx.Err()
			}
			if !<-t.done {
				release(m)
			}
			return nil
		})
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
			return yield(t.item, nil)
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
