package queen_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
)

// Order is a payload.
type Order struct {
	ID int `json:"id"`
}

// A client, a push and a consumer, on a broker inside of the program.
func Example() {
	ctx := context.Background()
	client, err := queen.Open(ctx, "embedded:")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	orders := client.Queue("orders").Partition("customer-42")
	for id := 1; id <= 3; id++ {
		if _, err := orders.Push(ctx, Order{id}); err != nil {
			log.Fatal(err)
		}
	}
	err = client.Queue("orders").Consume(ctx, func(ctx context.Context, m *queen.Message) error {
		var order Order
		if err := m.Decode(&order); err != nil {
			return err
		}
		fmt.Println(m.Partition(), order.ID)
		return nil
	}, queen.Limit(3))
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// customer-42 1
	// customer-42 2
	// customer-42 3
}

func ExampleQueue_Push() {
	ctx := context.Background()
	client, err := queen.Open(ctx, "embedded:")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	// An id of one's own makes a push that may be repeated: what is stored already is not stored again.
	item := queen.Item{Payload: Order{1}, TransactionID: "order-1"}
	for i := 0; i < 2; i++ {
		result, err := client.Queue("orders").Push(ctx, item)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(result.Status)
	}
	// Output:
	// queued
	// duplicate
}

func ExampleQueue_Pop() {
	ctx := context.Background()
	client, err := queen.Open(ctx, "embedded:")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)
	if _, err := client.Queue("orders").PushAll(ctx, []any{Order{1}, Order{2}}); err != nil {
		log.Fatal(err)
	}

	got, err := client.Queue("orders").Pop(ctx, queen.Batch(10), queen.Wait(5*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer got.Release() // what has no verdict goes back
	for _, m := range got.Messages() {
		fmt.Println(string(m.Payload))
		if err := m.Ack(ctx); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// {"id":1}
	// {"id":2}
}

// A handler that acks its message and pushes what it made of it, together or not at all.
func ExampleClient_InTransaction() {
	ctx := context.Background()
	client, err := queen.Open(ctx, "embedded:")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)
	if _, err := client.Queue("orders").Push(ctx, Order{1}); err != nil {
		log.Fatal(err)
	}

	err = client.Queue("orders").Consume(ctx, func(ctx context.Context, m *queen.Message) error {
		result, err := client.InTransaction(ctx, func(t *queen.Transaction) error {
			if err := t.Ack(m); err != nil {
				return err
			}
			return t.Push(client.Queue("bills").Partition("eu"), m.Payload)
		})
		if err == nil {
			fmt.Println(result.Results[0].Type, result.Results[1].Type)
		}
		return err
	}, queen.Limit(1))
	if err != nil {
		log.Fatal(err)
	}
	// Output: ack push
}

func ExampleError() {
	ctx := context.Background()
	client, err := queen.Open(ctx, "embedded:")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	_, err = client.Queue("").Push(ctx, Order{1})
	var failed *queen.Error
	if errors.As(err, &failed) {
		fmt.Println(failed.Name, failed.Outcome, failed.Retriable)
	}
	fmt.Println(errors.Is(err, queen.ErrInvalidArgument))
	// Output:
	// QUEEN_E_INVALID_ARGUMENT notApplied false
	// true
}

func ExampleBuffer() {
	ctx := context.Background()
	stored := make(chan int, 1)
	client, err := queen.Open(ctx, "embedded:", queen.WithReports(func(reports []queen.Report, dropped int) {
		stored <- len(reports)
	}))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	metrics := client.Queue("metrics").Partition("host-1")
	for i := 0; i < 10; i++ {
		_, err := metrics.Push(ctx, i, queen.Set("buffer", queen.Buffer{Messages: 500, Time: 200 * time.Millisecond}))
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := client.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-stored, "stored")
	// Output: 10 stored
}
