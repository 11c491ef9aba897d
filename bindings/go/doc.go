// Package queen is the Go client for Queen MQ, the message queue with unlimited FIFO partitions.
//
// It is a thin layer over libqueen, which it calls through cgo: retries, coalescing, leases, buffers and ordering are the
// core's, and so are the rules that its documentation tells. See the README for how to install the library.
//
//	client, err := queen.Open(ctx, "http://localhost:6632")
//	if err != nil {
//		return err
//	}
//	defer client.Close(context.Background())
//
//	_, err = client.Queue("orders").Partition("customer-42").Push(ctx, Order{ID: 1})
//
//	err = client.Queue("orders").Consume(ctx, func(ctx context.Context, m *queen.Message) error {
//		var order Order
//		if err := m.Decode(&order); err != nil {
//			return err // a nack: the message comes again, or goes to the dead-letter queue
//		}
//		return charge(ctx, order)
//	})
//
// # Contexts
//
// Every call that talks to a broker takes a context. When it ends, the operation is cancelled in the core, and the error
// tells by its Outcome what is known of its effect. It also wraps the error of the context, so that
// errors.Is(err, context.Canceled) holds. Without a deadline of the context the timeout of the client holds, 30 seconds.
//
// # Goroutines and threads
//
// All clients of a process share one goroutine that drains the events of the core in batches, one crossing into C for
// each batch. No call occupies an operating system thread while it waits, and no pointer into Go's memory is kept in C.
//
// # Errors
//
// What the core and the broker refuse is an *Error; its Code is one of the Err constants, for errors.Is.
package queen

//go:generate go run ./internal/gen
