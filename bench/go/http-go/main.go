// Command http-go is the subject `http-go` of `make bench`: what a program does that has net/http and no client. Each goroutine
// makes a request and waits for the answer. Its consumer is one loop that pops one message and acks it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/libqueen/libqueen/bench/go/order"
)

type client struct {
	http http.Client
	url  string
}

// do makes a request and reads the answer, unless there is none.
func (c *client) do(ctx context.Context, method, path string, body, answer any) {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			order.Fail(err)
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, sent)
	if err != nil {
		order.Fail(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err == nil {
		defer response.Body.Close()
		var text []byte
		if text, err = io.ReadAll(response.Body); err == nil {
			switch {
			case response.StatusCode >= 300:
				err = fmt.Errorf("%s: %.300s", response.Status, text)
			case response.StatusCode != http.StatusNoContent:
				err = json.Unmarshal(text, answer)
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		order.Fail(err)
	}
}

func main() {
	o := order.Read()
	c := &client{url: o.URL, http: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.InFlight}}}
	switch o.Case {
	case "push-seq", "push-single", "push-batch-100":
		c.push(o, o.Messages, o.WarmUp)
		run := order.Begin()
		run.Report(o, c.push(o, 0, o.Messages))
	case "pop-ack-100", "consume":
		run := order.Begin()
		run.Report(o, c.consume(o))
	default:
		order.Fail("unknown case " + o.Case)
	}
}

type item struct {
	Queue         string          `json:"queue"`
	Partition     string          `json:"partition"`
	TransactionID string          `json:"transactionId"`
	Payload       json.RawMessage `json:"payload"`
}

func (c *client) push(o order.Order, first, count int) []float64 {
	batch := o.Batch()
	return order.Spread(o.InFlight, first, first+count, batch, func(n int) {
		var body struct {
			Items []item `json:"items"`
		}
		for i := 0; i < batch; i++ {
			body.Items = append(body.Items, item{o.Queue, o.Partition(n), fmt.Sprintf("%s-%d", o.Queue, n+i), order.Payload(n + i)})
		}
		var answer []struct{ Status string }
		c.do(context.Background(), "POST", "/api/v1/push", body, &answer)
		if len(answer) != batch {
			order.Fail(fmt.Sprintf("%d results", len(answer)))
		}
		for _, result := range answer {
			if result.Status != "queued" {
				order.Fail("a message is " + result.Status)
			}
		}
	})
}

type ack struct {
	TransactionID string `json:"transactionId"`
	PartitionID   string `json:"partitionId"`
	LeaseID       string `json:"leaseId"`
	Status        string `json:"status"`
}

func (c *client) consume(o order.Order) []float64 {
	ctx, done := context.WithCancel(context.Background())
	defer done()
	seen := order.NewSeen(o.Messages)
	path := fmt.Sprintf("/api/v1/pop/queue/%s?batch=%d&wait=true&timeout=10000", o.Queue, o.Batch())
	var mu sync.Mutex
	var all []float64
	var wait sync.WaitGroup
	loops := o.InFlight
	if o.Case == "consume" {
		loops = 1 // a consumer with default options has one worker
	}
	for i := 0; i < loops; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for ctx.Err() == nil {
				began := time.Now()
				var popped struct {
					Messages []struct {
						TransactionID, PartitionID, LeaseID string
						Data                                struct{ N int }
					}
				}
				c.do(ctx, "GET", path, nil, &popped)
				if len(popped.Messages) == 0 {
					continue
				}
				var body struct {
					Acknowledgments []ack `json:"acknowledgments"`
				}
				for _, m := range popped.Messages {
					body.Acknowledgments = append(body.Acknowledgments, ack{m.TransactionID, m.PartitionID, m.LeaseID, "completed"})
				}
				var answer any
				c.do(context.Background(), "POST", "/api/v1/ack/batch", body, &answer)
				mu.Lock()
				all = append(all, order.Micros(began))
				mu.Unlock()
				for _, m := range popped.Messages {
					if seen.Add(m.Data.N) == o.Messages {
						done()
					}
				}
			}
		}()
	}
	wait.Wait()
	return all
}
