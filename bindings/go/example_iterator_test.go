//go:build go1.23

package queen_test

import (
	"context"
	"fmt"
	"log"

	queen "github.com/libqueen/libqueen/bindings/go"
)

func ExampleQueue_Messages() {
	ctx := context.Background()
	client, err := queen.Open(ctx, "embedded:")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)
	if _, err := client.Queue("orders").PushAll(ctx, []any{Order{1}, Order{2}}); err != nil {
		log.Fatal(err)
	}

	for m, err := range client.Queue("orders").Messages(ctx, queen.Limit(2)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(m.Payload)) // acked when the body ends
	}
	// Output:
	// {"id":1}
	// {"id":2}
}
