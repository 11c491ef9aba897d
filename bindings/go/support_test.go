package queen_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
)

// patience bounds what a test waits for.
const patience = 30 * time.Second

// brokers are those that are there: in this process, over TCP, the official one.
func brokers() map[string]string {
	urls := map[string]string{"embedded": "embedded:"}
	for name, variable := range map[string]string{"tcp": "QUEEN_TCP_URL", "official": "QUEEN_OFFICIAL_URL"} {
		if url := os.Getenv(variable); url != "" {
			urls[name] = url
		}
	}
	return urls
}

// onBrokers runs a test on every broker, each with a client and a queue name of its own.
func onBrokers(t *testing.T, test func(t *testing.T, client *queen.Client, queue string)) {
	for name, url := range brokers() {
		url := url
		t.Run(name, func(t *testing.T) {
			test(t, open(t, url), unique())
		})
	}
}

var names int64

func unique() string {
	return fmt.Sprintf("go-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), atomic.AddInt64(&names, 1))
}

func open(t testing.TB, url string, options ...queen.ClientOption) *queen.Client {
	t.Helper()
	client, err := queen.Open(context.Background(), url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := client.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return client
}

// short is a context for what must not take long.
func short(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

type number struct {
	N int `json:"n"`
}

// fill pushes numbers to a partition.
func fill(t testing.TB, queue *queen.Queue, count int) {
	t.Helper()
	payloads := make([]any, count)
	for i := range payloads {
		payloads[i] = number{i}
	}
	if _, err := queue.PushAll(short(t), payloads); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, m *queen.Message) int {
	t.Helper()
	var n number
	if err := m.Decode(&n); err != nil {
		t.Fatal(err)
	}
	return n.N
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails the test unless the error has the code.
func wants(t testing.TB, err error, code queen.Code) *queen.Error {
	t.Helper()
	var e *queen.Error
	if !errors.As(err, &e) || !errors.Is(err, code) {
		t.Fatalf("wanted %s, got %v", code, err)
	}
	if e.Name != code.String() || e.Message == "" {
		t.Fatalf("an error without a name or a message: %+v", e)
	}
	return e
}

// empty fails the test if a message is left.
func empty(t testing.TB, queue *queen.Queue, options ...queen.Option) {
	t.Helper()
	left, err := queue.Pop(short(t), options...)
	must(t, err)
	defer left.Release()
	if n := len(left.Messages()); n != 0 {
		t.Fatalf("%d messages are left", n)
	}
}
