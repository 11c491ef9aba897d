package queen_test

import (
	"context"
	"fmt"
	"log"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
)

// Windows of a tenth of a second, each summed by customer.
func ExampleStream_Consume() {
	ctx := context.Background()
	client, err := queen.Open(ctx, "embedded:")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)
	sales := []any{map[string]any{"by": "ann", "amount": 3}, map[string]any{"by": "bob", "amount": 2}, map[string]any{"by": "ann", "amount": 4}}
	if _, err := client.Queue("sales").PushAll(ctx, sales); err != nil {
		log.Fatal(err)
	}

	stream := client.Stream("sums")
	err = stream.Define(ctx, "shop", queen.Sources("sales"), queen.Tumbling(100*time.Millisecond), queen.GracePeriod(0))
	if err != nil {
		log.Fatal(err)
	}
	err = stream.Consume(ctx, "by-customer", func(ctx context.Context, w *queen.Window) error {
		customers, err := w.GroupBy("data.by")
		if err != nil {
			return err
		}
		for _, customer := range customers {
			w.Reset().Filter(func(m *queen.WindowMessage) bool {
				var sale struct{ By string }
				return m.Decode(&sale) == nil && sale.By == customer.Key
			})
			sums, err := w.Aggregate(queen.Aggregation{Count: true, Sum: []string{"data.amount"}})
			if err != nil {
				return err
			}
			fmt.Println(customer.Key, sums.Count, sums.Sum["data.amount"])
		}
		return nil // an error would bring the window again
	}, queen.Limit(1)) // without a limit until the context ends
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// ann 2 7
	// bob 1 2
}
