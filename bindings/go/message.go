package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"runtime"
	"strconv"
	"sync"
	"time"
	"unsafe"
)

// Status is a verdict on a message.
type Status string

// The verdicts.
const (
	Completed  Status = "completed" // done
	Failed     Status = "failed"    // charged one of the queue's retries, or a dead letter when they are used up
	Retry      Status = "retry"     // comes again uncharged
	DeadLetter Status = "dlq"       // goes to the dead-letter queue
)

// Message is a message under a lease. It is Go's own memory and may be kept.
type Message struct {
	ID            string // the broker's
	TransactionID string // the producer's, the key of acks and of de-duplication
	TraceID       string // empty without one
	ProducerSub   string // the authenticated producer, empty where the broker names none
	Payload       json.RawMessage

	createdAt string
	index     int
	delivery  *Delivery
}

// Delivery is messages of one partition under one lease.
type Delivery struct {
	Queue       string // empty when it was found by namespace or task and the broker does not tell
	Partition   string
	PartitionID string
	LeaseID     string // empty when the broker itself acked at delivery
	Group       string // "__QUEUE_MODE__" without one
	Messages    []*Message

	client *Client // set by who hands the delivery over
	lease  *lease
}

// lease is the handle of a delivery. It is apart because a delivery and its messages point at each other, and no finalizer
// runs in a circle.
type lease struct {
	queue  string
	mu     sync.RWMutex // held for reading while C has the handle
	handle *C.queen_delivery_t
	given  []bool // the messages with a verdict
	left   int    // how many have none
	own    bool   // frees itself with the last verdict, because nobody else does
}

// text copies a field of a view.
func text(at *C.char, n C.size_t) string {
	if n == 0 || at == nil {
		return ""
	}
	return string(unsafe.Slice((*byte)(unsafe.Pointer(at)), int(n)))
}

// newDelivery copies what C describes.
func newDelivery(from *C.qgo_delivery) *Delivery {
	views := unsafe.Slice(from.views, int(from.count))
	d := &Delivery{lease: &lease{handle: from.handle, given: make([]bool, len(views)), left: len(views)}, Messages: make([]*Message, len(views))}
	if len(views) > 0 {
		v := &views[0]
		d.Queue, d.Partition = text(v.queue, v.queue_len), text(v.partition, v.partition_len)
		d.PartitionID, d.LeaseID = text(v.partition_id, v.partition_id_len), text(v.lease_id, v.lease_id_len)
		d.Group = text(v.consumer_group, v.consumer_group_len)
	}
	messages := make([]Message, len(views))
	for i := range views {
		v := &views[i]
		messages[i] = Message{
			ID:            text(v.id, v.id_len),
			TransactionID: text(v.transaction_id, v.transaction_id_len),
			TraceID:       text(v.trace_id, v.trace_id_len),
			ProducerSub:   text(v.producer_sub, v.producer_sub_len),
			Payload:       copyBytes(v.payload, v.payload_len),
			createdAt:     text(v.created_at, v.created_at_len),
			index:         i,
			delivery:      d,
		}
		d.Messages[i] = &messages[i]
	}
	return d
}

// lend hands the delivery to the program, which is to release it.
func (d *Delivery) lend(c *Client) *Delivery {
	d.client = c
	d.lease.queue = d.Queue
	errorLog := c.config.errorLog
	runtime.SetFinalizer(d.lease, func(l *lease) {
		errorLog.Printf("queen: a delivery of queue %q was never released; call Release. Its messages go back.", l.queue)
		l.release()
	})
	return d
}

// take gives up the handle, nil when it is gone.
func (l *lease) take() *C.queen_delivery_t {
	l.mu.Lock()
	defer l.mu.Unlock()
	handle := l.handle
	l.handle = nil
	return handle
}

func (l *lease) release() {
	if handle := l.take(); handle != nil {
		C.queen_delivery_free(handle)
		runtime.SetFinalizer(l, nil)
	}
}

// with lends the handle to a function.
func (l *lease) with(what string, use func(*C.queen_delivery_t)) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.handle == nil {
		return newError(ErrClosed, "%s was released", what)
	}
	use(l.handle)
	return nil
}

// settled notes verdicts. With the last one a delivery that a handler has kept frees itself.
func (l *lease) settled(indexes ...int) {
	l.mu.Lock()
	for _, at := range indexes {
		if at >= 0 && at < len(l.given) && !l.given[at] {
			l.given[at] = true
			l.left--
		}
	}
	over := l.own && l.left == 0
	l.mu.Unlock()
	if over {
		l.release()
	}
}

// Release lets go of the delivery. Messages without a verdict go back to the broker and come again, uncharged. It never
// blocks, and a second Release does nothing.
func (d *Delivery) Release() { d.lease.release() }

// Verdict is a verdict on one message of a delivery.
type Verdict struct {
	Index  int    `json:"index"`
	Status Status `json:"status"`
	Error  string `json:"error,omitempty"` // recorded with a dead letter
}

// AckResult is what became of a verdict. NoOp: the message was finished before.
type AckResult struct {
	Index         int    `json:"index"`
	TransactionID string `json:"transactionId"`
	Success       bool   `json:"success"`
	Error         string `json:"error"`
	DLQ           bool   `json:"dlq"` // it went to the dead-letter queue
	NoOp          bool   `json:"noop"`
}

// Ack settles every message that has no verdict yet as done, and waits for the broker's answer.
func (d *Delivery) Ack(ctx context.Context) ([]AckResult, error) {
	return d.all(ctx, func(handle *C.queen_delivery_t) *C.queen_future_t { return C.queen_delivery_ack(handle) })
}

// Nack fails every message that has no verdict yet: the first is charged a retry, all come again. The reason is recorded with
// a dead letter.
func (d *Delivery) Nack(ctx context.Context, reason string) ([]AckResult, error) {
	why := reasonText(reason)
	return d.all(ctx, func(handle *C.queen_delivery_t) *C.queen_future_t {
		return C.queen_delivery_nack(handle, chars(why))
	})
}

// Settle gives verdicts on some messages; it may be called many times, for other messages each time.
func (d *Delivery) Settle(ctx context.Context, verdicts ...Verdict) ([]AckResult, error) {
	text, err := json.Marshal(verdicts)
	if err != nil {
		return nil, newError(ErrInvalidJSON, "the verdicts cannot be written as JSON: %v", err)
	}
	indexes := make([]int, len(verdicts))
	for i, v := range verdicts {
		indexes[i] = v.Index
	}
	return d.settle(ctx, text, indexes...)
}

func (d *Delivery) settle(ctx context.Context, verdicts []byte, indexes ...int) ([]AckResult, error) {
	got, err := d.do(ctx, indexes, func(p *pump, handle *C.queen_delivery_t, r route) *C.queen_future_t {
		return C.qgo_settle(handle, chars(verdicts), C.size_t(len(verdicts)), p.queue, r.tag, r.keep)
	})
	var results []AckResult
	err = got.read(err, &results)
	return results, err
}

func (d *Delivery) all(ctx context.Context, begin func(*C.queen_delivery_t) *C.queen_future_t) ([]AckResult, error) {
	all := make([]int, len(d.Messages))
	for i := range all {
		all[i] = i
	}
	got, err := d.do(ctx, all, func(p *pump, handle *C.queen_delivery_t, r route) *C.queen_future_t {
		return p.routed(begin(handle), r)
	})
	var results []AckResult
	err = got.read(err, &results)
	return results, err
}

// do waits for verdicts on messages. They are given as soon as the call has begun, whatever becomes of the waiting.
func (d *Delivery) do(ctx context.Context, indexes []int, begin func(*pump, *C.queen_delivery_t, route) *C.queen_future_t) (event, error) {
	begun := false
	got, err := operation(ctx, func(p *pump, r route) (future *C.queen_future_t, err error) {
		err = d.lease.with("the delivery", func(handle *C.queen_delivery_t) { future, begun = begin(p, handle, r), true })
		return future, err
	})
	if code := codeOf(err); begun && code != ErrInvalidJSON && code != ErrInvalidArgument {
		d.lease.settled(indexes...)
	}
	return got, err
}

// Lost says that the lease is over for certain: no verdict counts any more, and the messages come again.
func (d *Delivery) Lost() bool {
	lost := false
	_ = d.lease.with("the delivery", func(handle *C.queen_delivery_t) { lost = C.queen_delivery_is_lost(handle) == 1 })
	return lost
}

// Delivery is what the message came with.
func (m *Message) Delivery() *Delivery { return m.delivery }

// Queue is the queue of the message; empty when it was found by namespace or task and the broker does not tell.
func (m *Message) Queue() string { return m.delivery.Queue }

// Partition is the partition of the message.
func (m *Message) Partition() string { return m.delivery.Partition }

// CreatedAt is when the push was committed; the zero time where the broker's time cannot be read.
func (m *Message) CreatedAt() time.Time {
	t, _ := time.Parse(time.RFC3339Nano, m.createdAt)
	return t
}

// Decode reads the payload.
func (m *Message) Decode(into any) error {
	if err := json.Unmarshal(m.Payload, into); err != nil {
		return newError(ErrInvalidJSON, "the payload of message %s does not fit into a %T: %v", m.TransactionID, into, err)
	}
	return nil
}

// Ack settles the message as done, and waits for the broker's answer. A verdict leaves when every earlier message of the
// partition under the lease has one.
func (m *Message) Ack(ctx context.Context) error { return m.settle(ctx, Completed, "") }

// Nack fails the message: it is charged a retry and comes again, or goes to the dead-letter queue with the reason.
func (m *Message) Nack(ctx context.Context, reason string) error {
	return m.settle(ctx, Failed, reason)
}

// Retry gives the message back uncharged.
func (m *Message) Retry(ctx context.Context) error { return m.settle(ctx, Retry, "") }

// DeadLetter sends the message to the dead-letter queue.
func (m *Message) DeadLetter(ctx context.Context, reason string) error {
	return m.settle(ctx, DeadLetter, reason)
}

func (m *Message) settle(ctx context.Context, status Status, reason string) error {
	text := append(make([]byte, 0, 64+len(reason)), `[{"index":`...)
	text = strconv.AppendInt(text, int64(m.index), 10)
	text = append(append(append(text, `,"status":"`...), status...), '"')
	if reason != "" {
		quoted, err := json.Marshal(reason)
		if err != nil {
			return err
		}
		text = append(append(text, `,"error":`...), quoted...)
	}
	text = append(text, "}]"...)
	results, err := m.delivery.settle(ctx, text, m.index)
	if err == nil && len(results) == 1 && !results[0].Success {
		return newError(ErrPartial, "the verdict was refused: %s", results[0].Error)
	}
	return err
}

// Lost says that the lease is over for certain: no verdict counts any more, and the message comes again.
func (m *Message) Lost() bool { return m.delivery.Lost() }

// Trace adds a trace to the message, to be found by it and by the names.
func (m *Message) Trace(ctx context.Context, eventType string, data any, names ...string) error {
	parameters := map[string]any{
		"transactionId": m.TransactionID, "partitionId": m.delivery.PartitionID, "consumerGroup": m.delivery.Group, "data": data,
	}
	if eventType != "" {
		parameters["eventType"] = eventType
	}
	if len(names) > 0 {
		parameters["traceNames"] = names
	}
	return m.delivery.client.Call(ctx, "trace.add", parameters, nil)
}

// reasonText is a reason as C reads it. A NUL would end it, so it ends there.
func reasonText(reason string) []byte {
	bytes, err := nul("the reason", reason)
	if err != nil {
		bytes, _ = nul("the reason", strconv.Quote(reason))
	}
	return bytes
}
