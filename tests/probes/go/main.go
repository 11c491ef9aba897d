// Can a binding for Go be written over the C ABI alone? One goroutine, locked to its thread, sits
// in queen_event_queue_poll and hands out completions by tag; no callback, no other thread.
// usage: probe [URL]; tests/probes/run sets CGO_CFLAGS and CGO_LDFLAGS.
package main

/*
#cgo LDFLAGS: -lqueen
#include <stdlib.h>
#include <queen.h>
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

const measure = C.size_t(C.QUEEN_NUL_TERMINATED)

// text is a C string that lives as long as the probe: there are few.
func text(s string) *C.char { return C.CString(s) }

type result struct {
	code     C.int32_t
	text     string // JSON of a success, message of an error
	delivery *C.queen_delivery_t
}

// poller owns the event queue; waiters and consumers are found by tag.
type poller struct {
	queue     *C.queen_event_queue_t
	mutex     sync.Mutex
	next      uint64
	waiters   map[uint64]chan result
	consumers map[uint64]chan result
	stop      atomic.Bool
	ended     chan struct{}
}

func newPoller() *poller {
	p := &poller{queue: C.queen_event_queue_new(), waiters: map[uint64]chan result{},
		consumers: map[uint64]chan result{}, ended: make(chan struct{})}
	go p.run()
	return p
}

func (p *poller) run() {
	runtime.LockOSThread()
	defer close(p.ended)
	// The array is C's memory: cgo forbids C pointers to be kept in Go's.
	const capacity = 32
	size := C.size_t(unsafe.Sizeof(C.queen_event_t{}))
	events := (*C.queen_event_t)(C.calloc(capacity, size))
	defer C.free(unsafe.Pointer(events))
	for {
		n := C.queen_event_queue_poll(p.queue, events, size, capacity, 60000)
		if n < 0 {
			check(fmt.Sprint("the poll ends with ", n), false)
			return
		}
		if n == 0 && p.stop.Load() {
			return
		}
		batch := unsafe.Slice(events, int(n))
		for i := range batch {
			p.handle(&batch[i])
		}
		C.queen_events_free(events, C.size_t(n))
	}
}

func (p *poller) handle(event *C.queen_event_t) {
	r := result{code: event.code}
	if event.json != nil {
		r.text = C.GoStringN(event.json, C.int(event.json_len))
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	tag := uint64(event.tag)
	switch event._type {
	case C.QUEEN_EVENT_FUTURE:
		future := (*C.queen_future_t)(event.object)
		if r.code != C.QUEEN_OK {
			r.text = C.GoString(C.queen_error_message(C.queen_future_error(future)))
		} else {
			r.delivery = C.queen_future_take_delivery(future)
		}
		p.waiters[tag] <- r
		delete(p.waiters, tag)
	case C.QUEEN_EVENT_DELIVERY:
		r.delivery = C.queen_event_take_delivery(event)
		p.consumers[tag] <- r
	case C.QUEEN_EVENT_CONSUMER_ENDED:
		p.consumers[tag] <- r
	}
}

// channel registers a tag; deep enough that the poller never blocks on it.
func (p *poller) channel(table map[uint64]chan result) (uint64, chan result) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.next++
	table[p.next] = make(chan result, 256)
	return p.next, table[p.next]
}

// send takes a future and returns the channel on which its outcome arrives.
func (p *poller) send(future *C.queen_future_t) chan result {
	tag, channel := p.channel(p.waiters)
	check("deliver", C.queen_future_deliver(future, p.queue, C.uint64_t(tag)) == C.QUEEN_OK)
	C.queen_future_free(future)
	return channel
}

func wait(channel chan result) result {
	select {
	case r := <-channel:
		return r
	case <-time.After(30 * time.Second):
		return result{code: C.QUEEN_E_TIMEOUT, text: "the probe waited 30 s for an event"}
	}
}

var (
	counts         sync.Mutex
	passed, failed int
)

func check(what string, good bool) {
	counts.Lock()
	defer counts.Unlock()
	if good {
		passed++
		return
	}
	failed++
	fmt.Println("go probe: failed:", what)
}

func numbers(delivery *C.queen_delivery_t) (out []int) {
	var doc struct {
		Messages []struct{ Data struct{ N int } }
	}
	if json.Unmarshal([]byte(C.GoString(C.queen_delivery_json(delivery, nil))), &doc) == nil {
		for _, message := range doc.Messages {
			out = append(out, message.Data.N)
		}
	}
	return out
}

func walk(url string) {
	name := fmt.Sprintf("go-%d-%d", os.Getpid(), time.Now().UnixNano())
	p := newPoller()
	client := C.queen_client_new(text(url), measure, nil)
	check("client", client != nil)

	var pushes []chan result
	for i := 0; i < 50; i++ { // many in flight at once
		items := fmt.Sprintf(`[{"payload":{"n":%d}}]`, i)
		pushes = append(pushes, p.send(C.queen_push(client, text(name), text(fmt.Sprintf("p%d", i%3)), text(items), measure, nil)))
	}
	for i, channel := range pushes {
		r := wait(channel)
		check(fmt.Sprint("push ", i, " ", r.text), r.code == C.QUEEN_OK)
	}
	r := wait(p.send(C.queen_push(client, text(""), nil, text("[]"), measure, nil)))
	check("an empty queue name is refused with a message", r.code == C.QUEEN_E_INVALID_ARGUMENT && r.text != "")

	poll := text(`{"wait":true,"pollTimeoutMillis":30000}`) // cancel a long poll
	future := C.queen_pop(client, text("none-"+name), nil, poll)
	tag, channel := p.channel(p.waiters)
	check("deliver", C.queen_future_deliver(future, p.queue, C.uint64_t(tag)) == C.QUEEN_OK)
	start := time.Now()
	C.queen_future_cancel(future)
	C.queen_future_free(future)
	r = wait(channel)
	check("cancelled", r.code == C.QUEEN_E_CANCELLED && r.delivery == nil)
	check("at once", time.Since(start) < 10*time.Second)

	options := fmt.Sprintf(`{"queue":"%s","concurrency":3,"batch":4}`, name)
	consumerTag, inbox := p.channel(p.consumers)
	consumer := C.queen_consume_events(client, text(options), measure, p.queue, C.uint64_t(consumerTag), nil)
	check("consumer", consumer != nil)
	var got []int
	for nacked := false; len(got) < 50; {
		r = wait(inbox)
		if r.delivery == nil {
			check("a delivery: "+r.text, false)
			break
		}
		if !nacked {
			nacked = true // the whole delivery comes again
			r2 := wait(p.send(C.queen_delivery_nack(r.delivery, text("once more"))))
			check("nack "+r2.text, r2.code == C.QUEEN_OK)
		} else {
			got = append(got, numbers(r.delivery)...)
			r2 := wait(p.send(C.queen_delivery_ack(r.delivery)))
			check("ack "+r2.text, r2.code == C.QUEEN_OK)
		}
		C.queen_delivery_free(r.delivery)
	}
	last := [3]int{-3, -2, -1}
	for _, n := range got {
		check("in order", n == last[n%3]+3)
		last[n%3] = n
	}
	sort.Ints(got)
	for i, n := range got {
		check("each message once", i == n)
	}

	var summary struct {
		Reason string
		Acked  int
	}
	r = wait(p.send(C.queen_consumer_stop(consumer, 30000)))
	check("stop "+r.text, r.code == C.QUEEN_OK && json.Unmarshal([]byte(r.text), &summary) == nil)
	check("stopped", summary.Reason == "stopped" && summary.Acked == 50)
	r = wait(inbox)
	check("the end is told as an event", r.delivery == nil && r.code == C.QUEEN_OK)
	C.queen_consumer_free(consumer)

	late := p.send(C.queen_pop(client, text("none-"+name), nil, poll))
	r = wait(p.send(C.queen_client_close(client, 30000)))
	check("close "+r.text, r.code == C.QUEEN_OK)
	check("close ends a long poll", wait(late).code == C.QUEEN_E_CLOSED)
	C.queen_client_free(client)
	p.stop.Store(true) // _free must be the last use, so the poller leaves first
	check("wakeup", C.queen_event_queue_wakeup(p.queue) == C.QUEEN_OK)
	<-p.ended
	C.queen_event_queue_free(p.queue)
	check("nothing is left waiting", len(p.waiters) == 0)
	check("shutdown", C.queen_shutdown(30000) == C.QUEEN_OK)
}

func main() {
	url := "embedded:"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	walk(url)
	fmt.Printf("go probe: %d passed, %d failed\n", passed, failed)
	if failed != 0 {
		os.Exit(1)
	}
}
