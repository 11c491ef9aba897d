package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// stopTime is how long a consumer whose context has ended waits for its handlers.
const stopTime = 30 * time.Second

// Handler handles one message. Nil is an ack. An error is a nack with its text as the reason: the message is charged a retry
// and comes again, or goes to the dead-letter queue. A panic is a nack too and is logged. The message may also be settled by
// its methods; then what the handler returns does not count.
//
// The context ends when that of the consumer ends, and when the lease is lost for certain. A handler that returns the error of
// an ended context gives its message back uncharged.
type Handler func(ctx context.Context, m *Message) error

// DeliveryHandler handles the messages of a delivery together; see Handler and Batch.
type DeliveryHandler func(ctx context.Context, d *Delivery) error

// Summary is what a consumer has done. Reason is "limit", "idle", "stopped", "closed" or "error". Acked and Nacked count
// messages, of a consumer of a stream windows.
type Summary struct {
	Reason     string `json:"reason"`
	Deliveries int    `json:"deliveries"` // none of a stream
	Windows    int    `json:"windows"`    // only of a stream, each as often as it came
	Messages   int    `json:"messages"`
	Acked      int    `json:"acked"`
	Nacked     int    `json:"nacked"`
	Unsettled  int    `json:"unsettled"` // none of a stream
	Lost       int    `json:"lost"`      // windows whose verdict does not count; they come again
}

// Consume handles messages until the context ends, a Limit or IdleTimeout is reached, the client is closed, or the broker
// refuses for good, which is an error. Nil when it ended otherwise; when the context ended, handlers have finished first.
func (q *Queue) Consume(ctx context.Context, handler Handler, options ...Option) error {
	consumer, err := q.Start(ctx, handler, options...)
	if err != nil {
		return err
	}
	_, err = consumer.Wait(context.Background())
	return err
}

// Start is Consume without the waiting.
func (q *Queue) Start(ctx context.Context, handler Handler, options ...Option) (*Consumer, error) {
	for _, o := range options {
		if o.Name == "batch" { // many messages to a lease, one to a call
			options = append(append([]Option{}, options...), Set("each", true))
			break
		}
	}
	if handler == nil {
		return q.start(ctx, nil, options)
	}
	return q.start(ctx, func(ctx context.Context, d *Delivery) error {
		for _, m := range d.Messages { // one
			if err := handler(ctx, m); err != nil {
				return err
			}
		}
		return nil
	}, options)
}

// ConsumeDeliveries is Consume for handlers that take the messages of a delivery together: up to Batch of them, one without.
func (q *Queue) ConsumeDeliveries(ctx context.Context, handler DeliveryHandler, options ...Option) error {
	consumer, err := q.StartDeliveries(ctx, handler, options...)
	if err != nil {
		return err
	}
	_, err = consumer.Wait(context.Background())
	return err
}

// StartDeliveries is ConsumeDeliveries without the waiting.
func (q *Queue) StartDeliveries(ctx context.Context, handler DeliveryHandler, options ...Option) (*Consumer, error) {
	return q.start(ctx, handler, options)
}

func (q *Queue) start(ctx context.Context, handler DeliveryHandler, options []Option) (*Consumer, error) {
	if q.bad != nil {
		return nil, q.bad
	}
	if handler == nil {
		return nil, newError(ErrInvalidArgument, "the handler is nil; give a function")
	}
	all := q.where(options)
	settings, err := encode(all)
	if err != nil {
		return nil, err
	}
	c := &Consumer{client: q.client, handler: handler}
	// What the core makes of them; it says what is wrong with them too.
	asked := struct {
		Concurrency int
		AutoAck     bool
	}{1, true}
	_ = json.Unmarshal(settings, &asked)
	c.concurrency, c.manual = asked.Concurrency, !asked.AutoAck
	return c.start(ctx, func(handle *C.queen_client_t, p *pump, failed **C.queen_error_t) *C.queen_consumer_t {
		return C.queen_consume_events(handle, chars(settings), C.size_t(len(settings)), p.queue, c.tag, failed)
	})
}

// start has the core begin.
func (c *Consumer) start(ctx context.Context,
	begin func(*C.queen_client_t, *pump, **C.queen_error_t) *C.queen_consumer_t) (*Consumer, error) {
	c.ended, c.running = make(chan struct{}), map[job]func(){}
	c.ctx, c.cancel = context.WithCancel(ctx)
	handle, err := c.client.core.enter()
	if err != nil {
		c.cancel()
		return nil, err
	}
	defer c.client.core.leave()
	var failed *C.queen_error_t
	c.tag = c.client.pump.sinks.add(c)
	// The first event may come before the handle is here; nothing needs it before Stop.
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handle = begin(handle, c.client.pump, &failed)
	if c.handle == nil {
		c.client.pump.sinks.remove(c.tag)
		c.cancel()
		return nil, takeError(failed)
	}
	go c.watch()
	return c, nil
}

// job is what a handler is called for: a delivery or a window.
type job interface {
	source(c *Consumer) string // for the log
	handle(ctx context.Context, c *Consumer) error
	end(c *Consumer, err error, interrupted bool) // as the handler has ended
	isLost(leaseID string) bool                   // when the lease of that id is
}

// Consumer is a running consumer. It ends by itself when its context ends.
type Consumer struct {
	client      *Client
	handler     DeliveryHandler
	windows     WindowHandler // instead, of a stream
	stream      string
	group       string
	concurrency int
	manual      bool // verdicts come from the program
	ctx         context.Context
	cancel      context.CancelFunc
	tag         C.uint64_t

	mu      sync.Mutex
	handle  *C.queen_consumer_t
	waiting []job
	workers int
	running map[job]func() // cancels the context of its handler
	over    bool           // the core has told the end
	closed  bool           // ended is closed

	ended   chan struct{} // closed when no handler runs any more
	summary Summary
	err     error
}

// watch stops the consumer when its context ends.
func (c *Consumer) watch() {
	select {
	case <-c.ended:
	case <-c.ctx.Done():
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		_, _ = c.Stop(ctx) // Wait tells the outcome
	}
	c.cancel()
}

// Done is closed when the consumer has ended and its last handler has returned.
func (c *Consumer) Done() <-chan struct{} { return c.ended }

// Wait waits until the consumer has ended and its last handler has returned. The end of this context ends only the waiting.
func (c *Consumer) Wait(ctx context.Context) (Summary, error) {
	select {
	case <-c.ended:
		return c.summary, c.err
	case <-ctx.Done():
		e := newError(ErrCancelled, "the wait for the end of the consumer is over: %v", ctx.Err())
		e.cause = ctx.Err()
		return Summary{}, e
	}
}

// Stop ends the consumer: it polls no more, gives back what no handler has, and waits for handlers and verdicts until the
// deadline of the context, 30 seconds without one. What is unsettled then is let go and comes again. ErrTimeout says that
// handlers still run; their contexts have ended. Of a consumer that has ended it tells the summary.
func (c *Consumer) Stop(ctx context.Context) (Summary, error) {
	wait := stopTime
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	if wait < 0 || ctx.Err() != nil {
		wait = 0
	}
	_, err := operation(context.Background(), func(p *pump, r route) (*C.queen_future_t, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.handle == nil {
			return nil, newError(ErrClosed, "the consumer has ended")
		}
		return p.routed(C.queen_consumer_stop(c.handle, C.int64_t(wait.Milliseconds())), r), nil
	})
	if codeOf(err) != ErrTimeout {
		select {
		case <-c.ended:
			return c.summary, c.err
		case <-ctx.Done():
			err = newError(ErrTimeout, "handlers still run; Wait waits longer, and what they have comes again")
		}
	}
	c.cancel() // handlers that look at their context end now
	return Summary{}, err
}

// take is told what the core has for the consumer.
func (c *Consumer) take(e *event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.kind {
	case C.QUEEN_EVENT_DELIVERY:
		for _, d := range e.deliveries {
			d.client = c.client
			c.add(d)
		}
	case C.QUEEN_EVENT_WINDOW:
		c.add(e.window)
	case C.QUEEN_EVENT_LEASE_LOST:
		var lost struct {
			LeaseID string
			Certain bool
		}
		if json.Unmarshal(e.json, &lost) == nil && lost.Certain {
			for j, cancel := range c.running {
				if j.isLost(lost.LeaseID) {
					cancel()
				}
			}
		}
	case C.QUEEN_EVENT_CONSUMER_ENDED:
		c.over = true
		c.err = e.failure()
		if c.err == nil {
			_ = json.Unmarshal(e.json, &c.summary)
		} else if failed, ok := c.err.(*Error); ok {
			_ = json.Unmarshal(failed.Result, &c.summary)
		}
		c.finish()
	}
}

// add has a job done. The lock is held.
func (c *Consumer) add(j job) {
	c.waiting = append(c.waiting, j)
	if c.workers < c.concurrency {
		c.workers++
		go c.work()
	}
}

// finish ends the consumer when the core has told its end and no handler runs. The lock is held.
func (c *Consumer) finish() {
	if !c.over || c.workers > 0 || c.closed {
		return
	}
	c.closed = true
	C.queen_consumer_free(c.handle)
	c.handle = nil
	close(c.ended)
}

// work handles what waits, and ends when nothing does.
func (c *Consumer) work() {
	finished := false
	defer func() {
		if !finished { // the handler has called runtime.Goexit
			go c.work()
		}
	}()
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.workers--
			c.finish()
			c.mu.Unlock()
			finished = true
			return
		}
		j := c.waiting[0]
		c.waiting = c.waiting[1:]
		ctx, cancel := context.WithCancel(c.ctx)
		c.running[j] = cancel
		c.mu.Unlock()
		c.do(ctx, j)
	}
}

// handlerPanic is told already when the verdict is given.
type handlerPanic struct{ cause any }

func (p handlerPanic) Error() string { return fmt.Sprintf("panic: %v", p.cause) }

// do calls the handler and gives the verdict that it asks for, whatever becomes of it.
func (c *Consumer) do(ctx context.Context, j job) {
	err := errors.New("the handler ended its goroutine")
	defer func() {
		if cause := recover(); cause != nil {
			err = handlerPanic{cause}
			c.client.config.errorLog.Printf("queen: a handler of %s panicked: %v\n%s", j.source(c), cause, debug.Stack())
		}
		c.mu.Lock()
		cancel := c.running[j]
		delete(c.running, j)
		c.mu.Unlock()
		interrupted := err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err())
		cancel()
		j.end(c, err, interrupted)
	}()
	err = j.handle(ctx, c)
}

func (d *Delivery) source(*Consumer) string { return fmt.Sprintf("queue %q", d.Queue) }

func (d *Delivery) handle(ctx context.Context, c *Consumer) error { return c.handler(ctx, d) }

func (d *Delivery) isLost(leaseID string) bool { return d.LeaseID == leaseID }

func (d *Delivery) end(c *Consumer, err error, interrupted bool) {
	switch {
	case interrupted:
		d.Release()
	case err != nil:
		reason := reasonText(err.Error())
		if handle := d.lease.take(); handle != nil {
			C.qgo_nack_and_free(handle, chars(reason))
		}
	case c.manual:
		d.keep()
	default:
		if handle := d.lease.take(); handle != nil && c.ctx.Err() != nil {
			C.qgo_ack_and_free(handle)
		} else if handle != nil {
			c.follow(C.qgo_next_and_free(handle))
		}
	}
}

// follow has the delivery handled that the core hands over right behind another, if there is one.
func (c *Consumer) follow(next *C.qgo_delivery) {
	if next == nil {
		return
	}
	d := newDelivery(next)
	C.qgo_forget(next)
	d.client = c.client
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append([]job{d}, c.waiting...)
}

// keep leaves the delivery to the verdicts of the program.
func (d *Delivery) keep() {
	d.lend(d.client)
	d.lease.mu.Lock()
	d.lease.own = true
	d.lease.mu.Unlock()
	d.lease.settled()
}
