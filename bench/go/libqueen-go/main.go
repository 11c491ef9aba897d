// Command libqueen-go is the subject `libqueen-go` of `make bench`: the Go binding, a goroutine for each operation under way.
package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/libqueen/libqueen/bench/go/order"
	queen "github.com/libqueen/libqueen/bindings/go"
)

// unreported bounds the buffered messages that wait for their report.
const unreported = 10000

var (
	background = context.Background()
	reported   int64
)

func check(err error) {
	if err != nil {
		order.Fail(err)
	}
}

func main() {
	o := order.Read()
	client, err := queen.Open(background, o.URL, queen.WithReports(func(reports []queen.Report, dropped int) {
		for _, r := range reports {
			if r.Status != "queued" || dropped > 0 {
				order.Fail("a buffered message is " + r.Status)
			}
		}
		atomic.AddInt64(&reported, int64(len(reports)))
	}))
	check(err)
	switch o.Case {
	case "push-seq", "push-single", "push-batch-100":
		push(client, o, o.Messages, o.WarmUp)
		run := order.Begin()
		run.Report(o, push(client, o, 0, o.Messages))
	case "push-buffered":
		buffered(client, o, o.Messages, o.WarmUp)
		run := order.Begin()
		buffered(client, o, 0, o.Messages)
		run.Report(o, nil)
	case "pop-ack-100":
		run := order.Begin()
		run.Report(o, popAck(client, o))
	case "consume":
		run := order.Begin()
		consume(client, o)
		run.Report(o, nil)
	case "latency-idle":
		latency(client, o)
	default:
		order.Fail("unknown case " + o.Case)
	}
	ctx, cancel := context.WithTimeout(background, order.Patience)
	defer cancel()
	check(client.Close(ctx))
}

// partitions are made once.
func partitions(client *queen.Client, o order.Order) []*queen.Queue {
	all := make([]*queen.Queue, o.Partitions)
	for i := range all {
		all[i] = client.Queue(o.Queue).Partition(o.Partition(i * o.Batch()))
	}
	return all
}

func push(client *queen.Client, o order.Order, first, count int) []float64 {
	all, batch := partitions(client, o), o.Batch()
	return order.Spread(o.InFlight, first, first+count, batch, func(n int) {
		queue := all[n/batch%o.Partitions]
		if batch == 1 {
			_, err := queue.Push(background, order.Payload(n))
			check(err)
			return
		}
		payloads := make([]any, batch)
		for i := range payloads {
			payloads[i] = order.Payload(n + i)
		}
		_, err := queue.PushAll(background, payloads)
		check(err)
	})
}

// buffered ends with the last report.
func buffered(client *queen.Client, o order.Order, first, count int) {
	all, before := partitions(client, o), atomic.LoadInt64(&reported)
	pause := func(most int64) {
		for atomic.LoadInt64(&reported) < most {
			time.Sleep(100 * time.Microsecond)
		}
	}
	for n := first; n < first+count; n++ {
		pause(before + int64(n-first-unreported))
		_, err := all[n%o.Partitions].Push(background, order.Payload(n), queen.Set("buffer", true))
		check(err)
	}
	check(client.Flush(background))
	pause(before + int64(count))
}

func popAck(client *queen.Client, o order.Order) []float64 {
	ctx, done := context.WithCancel(background)
	defer done()
	seen := order.NewSeen(o.Messages)
	queue := client.Queue(o.Queue)
	took := make(chan []float64, o.InFlight)
	for i := 0; i < o.InFlight; i++ {
		go func() {
			var mine []float64
			for ctx.Err() == nil {
				began := time.Now()
				got, err := queue.Pop(ctx, queen.Batch(100), queen.Wait(10*time.Second))
				if ctx.Err() != nil {
					break
				}
				check(err)
				for _, d := range got {
					_, err := d.Ack(background)
					check(err)
					d.Release()
					mine = append(mine, order.Micros(began))
					for _, m := range d.Messages {
						if seen.Add(order.Number(m.Payload)) == o.Messages {
							done()
						}
					}
				}
			}
			took <- mine
		}()
	}
	var all []float64
	for i := 0; i < o.InFlight; i++ {
		all = append(all, <-took...)
	}
	return all
}

// consume has the default options: one message to a call. The stop waits for the answers to the acks.
func consume(client *queen.Client, o order.Order) {
	seen, done := order.NewSeen(o.Messages), make(chan struct{})
	consumer, err := client.Queue(o.Queue).Start(background, func(ctx context.Context, m *queen.Message) error {
		if seen.Add(order.Number(m.Payload)) == o.Messages {
			close(done)
		}
		return nil
	})
	check(err)
	<-done
	stop(consumer, o.Messages)
}

func stop(consumer *queen.Consumer, acked int) {
	ctx, cancel := context.WithTimeout(background, order.Patience)
	defer cancel()
	summary, err := consumer.Stop(ctx)
	check(err)
	if summary.Acked != acked {
		order.Fail("not all was acked")
	}
}

// latency is from the push to the handler, one message at a time.
func latency(client *queen.Client, o order.Order) {
	arrived := make(chan time.Time, 1)
	queue := client.Queue(o.Queue)
	consumer, err := queue.Start(background, func(ctx context.Context, m *queen.Message) error {
		arrived <- time.Now()
		return nil
	})
	check(err)
	one := func(n int) float64 {
		time.Sleep(20 * time.Millisecond)
		began := time.Now()
		_, err := queue.Partition("p0").Push(background, order.Payload(n))
		check(err)
		at := <-arrived
		return float64(at.Sub(began).Nanoseconds()) / 1e3
	}
	for n := 0; n < o.WarmUp; n++ {
		one(o.Messages + n)
	}
	run := order.Begin()
	var took []float64
	for n := 0; n < o.Messages; n++ {
		took = append(took, one(n))
	}
	stop(consumer, o.Messages+o.WarmUp)
	run.Report(o, took)
}
