package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Stream is what is pushed to some queues, cut into windows; docs/STREAMS.md tells what a window is. It costs nothing to make
// and may be kept. Brokers of generation 0.7 and the embedded one have streams, others answer ErrUnsupported.
type Stream struct {
	client *Client
	name   string
}

// Stream names a stream.
func (c *Client) Stream(name string) *Stream { return &Stream{c, name} }

// Name is the name of the stream.
func (s *Stream) Name() string { return s.name }

// Sources are the queues that a stream reads.
func Sources(queues ...string) Option { return Set("sources", append([]string{}, queues...)) }

// Tumbling is the length of windows, one after another; a minute without.
func Tumbling(length time.Duration) Option { return Set("windowMillis", length.Milliseconds()) }

// GracePeriod is how long after its end a window closes; 30 seconds without.
func GracePeriod(d time.Duration) Option { return Set("graceMillis", d.Milliseconds()) }

// LeaseTimeout is the length of a window's lease, a minute without. Leases of consumers are renewed.
func LeaseTimeout(d time.Duration) Option { return Set("leaseMillis", d.Milliseconds()) }

// Partitioned gives each partition name windows of its own.
func Partitioned() Option { return Set("partitioned", true) }

// StrictWatermark closes windows only when something later came to every source, as brokers of generation 0.7 do.
func StrictWatermark() Option { return Set("strictWatermark", true) }

// Define defines the stream, or replaces its definition: its sources are added to those that it has, and where groups stand is
// kept. Options are Sources, Tumbling, GracePeriod, LeaseTimeout, Partitioned and StrictWatermark.
func (s *Stream) Define(ctx context.Context, namespace string, options ...Option) error {
	_, err := s.client.StreamDefine(ctx, s.name, namespace, options...)
	return err
}

// Seek moves a group: its next windows begin at that time.
func (s *Stream) Seek(ctx context.Context, group string, to time.Time) error {
	_, err := s.client.StreamSeek(ctx, s.name, group, to.UTC().Format(time.RFC3339Nano))
	return err
}

// streamSettings are options under the names that they have for streams.
func streamSettings(options []Option) []Option {
	all := make([]Option, 0, len(options))
	for _, o := range options {
		wait, isTime := o.Value.(time.Duration)
		switch {
		case o.Name == "limitTotal":
			o.Name = "limit"
		case o.Name == "wait" && isTime:
			o = Set("pollTimeoutMillis", wait.Milliseconds())
		}
		all = append(all, o)
	}
	return all
}

// Poll takes the next window of a group under a lease, waiting for it 30 seconds, or as long as Wait says; nil when none came.
// The lease is as long as the stream defines and is not renewed. The window is to be settled and released.
func (s *Stream) Poll(ctx context.Context, group string, options ...Option) (*Window, error) {
	stream, err := nul("the stream", s.name)
	if err != nil {
		return nil, err
	}
	of, err := nul("the group", group)
	if err != nil {
		return nil, err
	}
	settings, err := encode(streamSettings(options))
	if err != nil {
		return nil, err
	}
	got, err := s.client.do(ctx, func(handle *C.queen_client_t) *C.queen_future_t {
		return C.queen_stream_poll(handle, chars(stream), chars(of), chars(settings), C.size_t(len(settings)))
	})
	if got.window == nil {
		return nil, err
	}
	got.window.load(s.name, group)
	return got.window.lend(s.client), err
}

// WindowHandler handles one window. Nil is an ack. An error or a panic is a nack, and is logged (WithErrorLog): the window
// comes again, as often as it takes. The window may also be settled by its methods; then what the handler returns does not
// count. Afterwards the window is released.
//
// The context ends when that of the consumer ends, and when the lease is lost for certain. A handler that returns the error of
// an ended context gives its window back.
type WindowHandler func(ctx context.Context, w *Window) error

// Consume handles the windows of a group until the context ends, a Limit of windows or IdleTimeout is reached, the client is
// closed, or the broker refuses for good, which is an error. Nil when it ended otherwise; when the context ended, handlers have
// finished first. With Concurrency windows of several keys are handled side by side; with ManualAck every verdict comes from
// Ack and Nack, then or later. Leases are renewed until then.
func (s *Stream) Consume(ctx context.Context, group string, handler WindowHandler, options ...Option) error {
	consumer, err := s.Start(ctx, group, handler, options...)
	if err != nil {
		return err
	}
	_, err = consumer.Wait(context.Background())
	return err
}

// Start is Consume without the waiting.
func (s *Stream) Start(ctx context.Context, group string, handler WindowHandler, options ...Option) (*Consumer, error) {
	if handler == nil {
		return nil, newError(ErrInvalidArgument, "the handler is nil; give a function")
	}
	c := &Consumer{client: s.client, windows: handler, stream: s.name, group: group}
	all := []Option{Set("stream", s.name), Set("consumerGroup", group)}
	for _, o := range streamSettings(options) {
		if auto, ok := o.Value.(bool); ok && o.Name == "autoAck" { // ManualAck; the core waits for a verdict anyway
			c.manual = !auto
			continue
		}
		all = append(all, o)
	}
	settings, err := encode(all)
	if err != nil {
		return nil, err
	}
	asked := struct{ Concurrency int }{1}
	_ = json.Unmarshal(settings, &asked) // the core says what is wrong with them
	c.concurrency = asked.Concurrency
	return c.start(ctx, func(handle *C.queen_client_t, p *pump, failed **C.queen_error_t) *C.queen_consumer_t {
		return C.queen_stream_consume_events(handle, chars(settings), C.size_t(len(settings)), p.queue, c.tag, failed)
	})
}

func (w *Window) source(c *Consumer) string { return fmt.Sprintf("stream %q", c.stream) }

func (w *Window) handle(ctx context.Context, c *Consumer) error {
	w.load(c.stream, c.group)
	return c.windows(ctx, w)
}

// isLost asks the core: a window that has come again has the id of the one that was lost.
func (w *Window) isLost(string) bool { return w.Lost() }

func (w *Window) end(c *Consumer, err error, interrupted bool) {
	switch {
	case interrupted:
		w.Release()
	case err != nil:
		if _, told := err.(handlerPanic); !told {
			c.client.config.errorLog.Printf("queen: a handler of stream %q gives window %s back: %v", c.stream, w.ID, err)
		}
		w.finish(0)
	case c.manual:
		w.lend(c.client).lease.note(false, true)
	default:
		w.finish(1)
	}
}

// finish gives the verdict, which does not count where there is one, and releases the window.
func (w *Window) finish(ack C.int) {
	if handle := w.lease.take(); handle != nil {
		C.qgo_end_window(handle, ack)
	}
}
