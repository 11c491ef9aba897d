package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"bytes"
	"context"
	"encoding/json"
)

// Queue is a queue, or one partition of it, or all queues of a namespace or task. It costs nothing to make and may be kept.
type Queue struct {
	client                           *Client
	name, partition, namespace, task string
	cName, cPartition                []byte // for C, made once
	bad                              error
}

// Queue names a queue. The first push makes it.
func (c *Client) Queue(name string) *Queue {
	q := &Queue{client: c, name: name}
	q.cName, q.bad = nul("the queue", name)
	return q
}

// Namespace names all queues of a namespace, for consumers and pops.
func (c *Client) Namespace(namespace string) *Queue { return &Queue{client: c, namespace: namespace} }

// Task names all queues of a task, for consumers and pops.
func (c *Client) Task(task string) *Queue { return &Queue{client: c, task: task} }

// Partition names one partition of the queue. Without it pushes go to "Default", and consumers read all.
func (q *Queue) Partition(name string) *Queue {
	one := *q
	one.partition = name
	var err error
	if one.cPartition, err = nul("the partition", name); err != nil && one.bad == nil {
		one.bad = err
	}
	return &one
}

// Name is the name of the queue.
func (q *Queue) Name() string { return q.name }

// Item is a message to push with ids of its own. Payload is written as JSON, a json.RawMessage byte for byte.
type Item struct {
	Payload       any
	TransactionID string // minted when empty
	TraceID       string // a UUID
}

// PushResult is what became of a message: Status is "queued", "duplicate" (an id that is stored already), "buffered", or
// "failed" with an Error. Resent is true with a duplicate that may be its own.
type PushResult struct {
	Index         int    `json:"index"`
	TransactionID string `json:"transactionId"`
	MessageID     string `json:"messageId"`
	Status        string `json:"status"`
	Error         string `json:"error"`
	Resent        bool   `json:"resent"`
}

// Push stores one message, which is written as JSON, unless it is a json.RawMessage or an Item, and waits for the broker's
// answer. Pushes to one partition are stored in the order of the calls; many at the same time share requests.
func (q *Queue) Push(ctx context.Context, payload any, options ...Option) (PushResult, error) {
	results, err := q.PushAll(ctx, []any{payload}, options...)
	if len(results) == 1 {
		return results[0], err
	}
	return PushResult{}, err
}

// PushAll stores messages in one request, in order; each is what Push takes. When some are refused the error is ErrPartial,
// and the results tell which.
func (q *Queue) PushAll(ctx context.Context, payloads []any, options ...Option) ([]PushResult, error) {
	if q.bad != nil {
		return nil, q.bad
	}
	text, err := appendItems(nil, payloads)
	if err != nil {
		return nil, err
	}
	var settings []byte
	if len(options) > 0 {
		if settings, err = encode(options); err != nil {
			return nil, err
		}
		settings = append(settings, 0)
	}
	got, err := operation(ctx, func(p *pump, r route) (*C.queen_future_t, error) {
		handle, err := q.client.core.enter()
		if err != nil {
			return nil, err
		}
		defer q.client.core.leave()
		return C.qgo_push(handle, chars(q.cName), chars(q.cPartition), chars(text), C.size_t(len(text)), chars(settings),
			p.queue, r.tag, r.keep), nil
	})
	if got.json == nil {
		return nil, err
	}
	results, wrong := readPushResults(got.json)
	if wrong != nil && err == nil {
		err = newError(ErrBadAnswer, "the result of the push cannot be read: %v", wrong)
	}
	return results, err
}

// appendItems writes payloads as the items of a push.
func appendItems(text []byte, payloads []any) ([]byte, error) {
	text = append(text, '[')
	for i, payload := range payloads {
		if i > 0 {
			text = append(text, ',')
		}
		item, ok := payload.(Item)
		if !ok {
			item = Item{Payload: payload}
		}
		raw, ok := item.Payload.(json.RawMessage)
		if !ok {
			var err error
			if raw, err = json.Marshal(item.Payload); err != nil {
				return nil, newError(ErrInvalidJSON, "payload %d, a %T, cannot be written as JSON: %v", i, item.Payload, err)
			}
		} else if len(bytes.TrimSpace(raw)) == 0 {
			return nil, newError(ErrInvalidJSON, "payload %d is an empty json.RawMessage; a value is needed", i)
		}
		text = append(append(text, `{"payload":`...), raw...)
		for _, id := range [...]struct{ key, value string }{{"transactionId", item.TransactionID}, {"traceId", item.TraceID}} {
			if id.value == "" {
				continue
			}
			quoted, err := json.Marshal(id.value)
			if err != nil {
				return nil, err
			}
			text = append(append(append(append(text, `,"`...), id.key...), `":`...), quoted...)
		}
		text = append(text, '}')
	}
	return append(text, ']'), nil
}

// where names the queue, partition, namespace or task among options.
func (q *Queue) where(options []Option) []Option {
	all := make([]Option, 0, len(options)+2)
	for _, o := range [...]Option{{"queue", q.name}, {"partition", q.partition}, {"namespace", q.namespace}, {"task", q.task}} {
		if o.Value != "" {
			all = append(all, o)
		}
	}
	return append(all, options...)
}

// Pop takes messages under a lease, one delivery for each partition; none when nothing is there. Without Wait it only looks.
// Each message is to be settled, and each delivery to be released.
func (q *Queue) Pop(ctx context.Context, options ...Option) (Deliveries, error) {
	if q.bad != nil {
		return nil, q.bad
	}
	var named []Option
	if q.namespace != "" {
		named = append(named, Set("namespace", q.namespace))
	}
	if q.task != "" {
		named = append(named, Set("task", q.task))
	}
	settings, err := encode(append(named, options...))
	if err != nil {
		return nil, err
	}
	settings = append(settings, 0)
	got, err := q.client.do(ctx, func(handle *C.queen_client_t) *C.queen_future_t {
		return C.queen_pop(handle, chars(q.cName), chars(q.cPartition), chars(settings))
	})
	for _, d := range got.deliveries {
		d.lend(q.client)
	}
	return got.deliveries, err
}

// Deliveries is what a pop brought.
type Deliveries []*Delivery

// Messages is all their messages.
func (d Deliveries) Messages() []*Message {
	var all []*Message
	for _, one := range d {
		all = append(all, one.Messages...)
	}
	return all
}

// Release lets go of all of them; see Delivery.Release.
func (d Deliveries) Release() {
	for _, one := range d {
		one.Release()
	}
}

// Flush sends what is buffered for the queue, or the partition, and waits until all that was pushed to it before is settled.
func (q *Queue) Flush(ctx context.Context) error {
	object := map[string]any{}
	for _, o := range q.where(nil) {
		object[o.Name] = o.Value
	}
	return q.client.Call(ctx, "flush", object, nil)
}

// Ack is a verdict by ids, for a message that another client or process has popped.
type Ack struct {
	TransactionID string `json:"transactionId"`
	PartitionID   string `json:"partitionId"`
	LeaseID       string `json:"leaseId,omitempty"`
	Status        Status `json:"status,omitempty"` // Completed when empty
	Error         string `json:"error,omitempty"`
}

// AckByID gives verdicts by ids, with Group where the pop had one.
func (c *Client) AckByID(ctx context.Context, acks []Ack, options ...Option) ([]AckResult, error) {
	if acks == nil {
		acks = []Ack{}
	}
	parameters := map[string]any{"acks": acks}
	for _, o := range options {
		parameters[o.Name] = o.Value
	}
	var results []AckResult
	err := c.Call(ctx, "ack", parameters, &results)
	return results, err
}
