package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"sync"
)

// call waits for one future. Its channel is used again and again.
type call struct {
	done chan struct{}
	got  event
}

var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func (c *call) take(e *event) {
	c.got = *e
	c.done <- struct{}{}
}

// route sends a future that C has made to its call.
type route struct {
	tag  C.uint64_t
	keep C.int // 1: the handle is needed for a cancel
}

// operation makes a future with begin, which gets the route and answers with what is kept of the handle, and waits for it.
// The context's end cancels it in the core; it still completes, with its result if that came first.
func operation(ctx context.Context, begin func(p *pump, r route) (*C.queen_future_t, error)) (event, error) {
	p, err := getPump()
	if err != nil {
		return event{}, err
	}
	if err := ctx.Err(); err != nil {
		e := newError(ErrCancelled, "the context had ended before the call: %v", err)
		e.cause = err
		return event{}, e
	}
	c := calls.Get().(*call)
	r := route{tag: p.sinks.add(c)}
	if ctx.Done() != nil {
		r.keep = 1
	}
	future, err := begin(p, r)
	if err != nil {
		p.sinks.remove(r.tag)
		calls.Put(c)
		return event{}, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		C.queen_future_cancel(future)
		<-c.done
	}
	if future != nil {
		C.queen_future_free(future)
	}
	got := c.got
	c.got = event{}
	calls.Put(c)
	if err := got.failure(); err != nil {
		if e, ok := err.(*Error); ok && ctx.Err() != nil && e.Code == ErrCancelled {
			e.cause = ctx.Err()
		}
		return got, err
	}
	return got, nil
}

// routed is for the begin of operations that are not made once for every message.
func (p *pump) routed(future *C.queen_future_t, r route) *C.queen_future_t {
	return C.qgo_route(future, p.queue, r.tag, r.keep)
}
