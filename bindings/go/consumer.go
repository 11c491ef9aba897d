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

// Summary is what a consumer has done. Reason is "limit", "idle", "stopped", "closed" or "error".
type Summary struct {
	Reason     string `json:"reason"`
	Deliveries int    `json:"deliveries"`
	Messages   int    `json:"messages"`
	Acked      int    `json:"acked"`
	Nacked     int    `json:"nacked"`
	Unsettled  int    `json:"unsettled"`
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
	c := &Consumer{client: q.client, handler: handler, ended: make(chan struct{}), running: map[*Delivery]func(){}}
	// What the core makes of them; it says what is wrong with them too.
	asked := struct {
		Concurrency int
		AutoAck     bool
	}{1, true}
	_ = json.Unmarshal(settings, &asked)
	c.concurrency, c.manual = asked.Concurrency, !asked.AutoAck
	c.ctx, c.cancel = context.WithCancel(ctx)
	handle, err := q.client.core.enter()
	if err != nil {
		c.cancel()
		return nil, err
	}
	defer q.client.core.leave()
	var failed *C.queen_error_t
	c.tag = q.client.pump.sinks.add(c)
	// The first delivery may come before the handle is here; nothing needs it before Stop.
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handle = C.queen_consume_events(handle, chars(settings), C.size_t(len(settings)), q.client.pump.queue, c.tag, &failed)
	if c.handle == nil {
		q.client.pump.sinks.remove(c.tag)
		c.cancel()
		return nil, takeError(failed)
	}
	go c.watch()
	return c, nil
}

// Consumer is a running consumer. It ends by itself when its context ends.
type Consumer struct {
	client      *Client
	handler     DeliveryHandler
	concurrency int
	manual      bool // verdicts come from the program
	ctx         context.Context
	cancel      context.CancelFunc
	tag         C.uint64_t

	mu      sync.Mutex
	handle  *C.queen_consumer_t
	waiting []*Delivery
	workers int
	running map[*Delivery]func() // cancels the context of its handler
	over    bool                 // the core has told the end
	closed  bool                 // ended is closed

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
			c.waiting = append(c.waiting, d)
			if c.workers < c.concurrency {
				c.workers++
				go c.work()
			}
		}
	case C.QUEEN_EVENT_LEASE_LOST:
		var lost struct {
			LeaseID string
			Certain bool
		}
		if json.Unmarshal(e.json, &lost) == nil && lost.Certain {
			for d, cancel := range c.running {
				if d.LeaseID == lost.LeaseID {
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
		d := c.waiting[0]
		c.waiting = c.waiting[1:]
		ctx, cancel := context.WithCancel(c.ctx)
		c.running[d] = cancel
		c.mu.Unlock()
		c.handle1(ctx, d)
	}
}

// handle1 calls the handler and gives the verdict that it asks for, whatever becomes of it.
func (c *Consumer) handle1(ctx context.Context, d *Delivery) {
	err := errors.New("the handler ended its goroutine")
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
			c.client.config.errorLog.Printf("queen: a handler of queue %q panicked: %v\n%s", d.Queue, cause, debug.Stack())
		}
		c.mu.Lock()
		cancel := c.running[d]
		delete(c.running, d)
		c.mu.Unlock()
		interrupted := err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err())
		cancel()
		c.settle(d, err, interrupted)
	}()
	err = c.handler(ctx, d)
}

func (c *Consumer) settle(d *Delivery, err error, interrupted bool) {
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
		if handle := d.lease.take(); handle != nil {
			C.qgo_ack_and_free(handle)
		}
	}
}

// keep leaves the delivery to the verdicts of the program.
func (d *Delivery) keep() {
	d.lend(d.client)
	d.lease.mu.Lock()
	d.lease.own = true
	d.lease.mu.Unlock()
	d.lease.settled()
}
