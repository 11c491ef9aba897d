package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"context"
	"runtime"
	"sync"
)

// Transaction is verdicts and pushes, to many queues and partitions, that a broker applies together or not at all. Nothing is
// sent before Commit. An addition that fails makes the commit fail with the same error.
type Transaction struct {
	client *Client
	mu     sync.RWMutex
	handle *C.queen_transaction_t

	verdicts sync.Mutex // of what follows
	taken    []*Message
}

// Transaction makes a transaction, which ends with Commit or Release.
func (c *Client) Transaction() (*Transaction, error) {
	handle, err := c.core.enter()
	if err != nil {
		return nil, err
	}
	defer c.core.leave()
	t := &Transaction{client: c, handle: C.queen_transaction_new(handle)}
	errorLog := c.config.errorLog
	runtime.SetFinalizer(t, func(t *Transaction) {
		errorLog.Print("queen: a transaction was neither committed nor released; call one of both. Nothing was sent.")
		t.Release()
	})
	return t, nil
}

// InTransaction commits what the function adds, unless it returns an error, which is then that of the call.
func (c *Client) InTransaction(ctx context.Context, add func(*Transaction) error) (TransactionResult, error) {
	t, err := c.Transaction()
	if err != nil {
		return TransactionResult{}, err
	}
	defer t.Release()
	if err := add(t); err != nil {
		return TransactionResult{}, err
	}
	return t.Commit(ctx)
}

// add runs an addition while the handle is there.
func (t *Transaction) add(what string, addition func(*C.queen_transaction_t) C.int32_t) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.handle == nil {
		return newError(ErrClosed, "the transaction was released")
	}
	if code := addition(t.handle); code != C.QUEEN_OK {
		return newError(Code(code), "%s cannot be added to the transaction", what)
	}
	return nil
}

// Ack adds the verdict that a message is done. It belongs to the transaction from then on: committed, the message is settled.
func (t *Transaction) Ack(m *Message) error { return t.Settle(m, Completed) }

// Settle adds a verdict on a message.
func (t *Transaction) Settle(m *Message, status Status) error {
	text, err := nul("the status", string(status))
	if err != nil {
		return err
	}
	var added error
	if err := m.delivery.lease.with("the delivery of message "+m.TransactionID, func(delivery *C.queen_delivery_t) {
		added = t.add("the verdict on message "+m.TransactionID, func(handle *C.queen_transaction_t) C.int32_t {
			return C.queen_transaction_ack(handle, delivery, C.size_t(m.index), chars(text))
		})
	}); err != nil {
		return err
	}
	if added == nil {
		t.verdicts.Lock()
		t.taken = append(t.taken, m)
		t.verdicts.Unlock()
	}
	return added
}

// Push adds a push to a queue or partition; payloads are what Queue.Push takes.
func (t *Transaction) Push(q *Queue, payloads ...any) error {
	if q.bad != nil {
		return q.bad
	}
	text, err := appendItems(nil, payloads)
	if err != nil {
		return err
	}
	return t.add("the push to queue "+q.name, func(handle *C.queen_transaction_t) C.int32_t {
		return C.queen_transaction_push(handle, chars(q.cName), chars(q.cPartition), chars(text), C.size_t(len(text)), nil)
	})
}

// TransactionResult tells what became of each message and verdict, in order. Reason is why a transaction was rolled back.
type TransactionResult struct {
	TransactionID string `json:"transactionId"`
	Reason        string `json:"reason"`
	Results       []struct {
		Index         int    `json:"index"`
		Type          string `json:"type"` // "push" or "ack"
		TransactionID string `json:"transactionId"`
		MessageID     string `json:"messageId"`
		Status        string `json:"status"`
		Success       bool   `json:"success"`
		DLQ           bool   `json:"dlq"`
		NoOp          bool   `json:"noop"`
		Error         string `json:"error"`
	} `json:"results"`
}

// Commit sends it all in one request, once, and releases the transaction. ErrRolledBack: nothing was applied. With
// UnknownOutcome it may have been; the error lists the ids of the pushes, and a second transaction with them is rolled back as
// "duplicate" if the first was applied.
func (t *Transaction) Commit(ctx context.Context) (TransactionResult, error) {
	defer t.Release()
	got, err := operation(ctx, func(p *pump, r route) (*C.queen_future_t, error) {
		t.mu.RLock()
		defer t.mu.RUnlock()
		if t.handle == nil {
			return nil, newError(ErrClosed, "the transaction was committed or released")
		}
		return p.routed(C.queen_transaction_commit(t.handle, nil), r), nil
	})
	// Applied, or perhaps: the messages have their verdicts, or are lost. Otherwise they are unsettled.
	if e, ok := err.(*Error); err == nil || ok && e.Outcome == UnknownOutcome {
		t.verdicts.Lock()
		for _, m := range t.taken {
			m.delivery.lease.settled(m.index)
		}
		t.verdicts.Unlock()
	}
	var result TransactionResult
	err = got.read(err, &result)
	return result, err
}

// Release ends the transaction; what was not committed is not sent, and its messages are unsettled again. It never blocks, and
// a second Release does nothing.
func (t *Transaction) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	C.queen_transaction_free(t.handle)
	t.handle = nil
	runtime.SetFinalizer(t, nil)
}
