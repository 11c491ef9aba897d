// Package order is what the subjects in Go share: the flags that `make bench` gives them, and the line that they print, an Order
// and a Report of bench/src/work.rs.
package order

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"sync"
	"syscall"
	"time"
)

// Text is in each payload.
const Text = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv"

// Patience ends what has got stuck.
const Patience = 120 * time.Second

// Order is what a subject is told.
type Order struct {
	URL, Case, Queue                       string
	InFlight, Partitions, Messages, WarmUp int
}

// Read reads the flags.
func Read() Order {
	var o Order
	flag.StringVar(&o.URL, "url", "", "the broker")
	flag.StringVar(&o.Case, "case", "", "the kind of work")
	flag.StringVar(&o.Queue, "queue", "", "the queue")
	flag.IntVar(&o.InFlight, "in-flight", 0, "operations under way at once")
	flag.IntVar(&o.Partitions, "partitions", 0, "partitions")
	flag.IntVar(&o.Messages, "messages", 0, "messages that count")
	flag.IntVar(&o.WarmUp, "warm-up", 0, "messages before, with the numbers that follow")
	flag.Parse()
	if o.URL == "" || o.Case == "" || o.Queue == "" || o.InFlight < 1 || o.Partitions < 1 || o.Messages < 1 {
		Fail("a flag is missing; see queen-bench http-load --help")
	}
	return o
}

// Batch is how many messages a push or a pop has.
func (o Order) Batch() int {
	if o.Case == "push-batch-100" || o.Case == "pop-ack-100" {
		return 100
	}
	return 1
}

// Partition is that of a message.
func (o Order) Partition(n int) string { return fmt.Sprintf("p%d", n/o.Batch()%o.Partitions) }

// Payload is that of message n.
func Payload(n int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"n":%d,"text":"%s"}`, n, Text))
}

// Number is that of a payload.
func Number(payload []byte) int {
	var message struct{ N int }
	if err := json.Unmarshal(payload, &message); err != nil {
		Fail(err)
	}
	return message.N
}

// Fail ends the program.
func Fail(why any) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], why)
	os.Exit(1)
}

// Seen makes sure that each message comes once.
type Seen struct {
	mu    sync.Mutex
	seen  []bool
	count int
}

// NewSeen waits for so many.
func NewSeen(messages int) *Seen { return &Seen{seen: make([]bool, messages)} }

// Add notes a message and tells how many there were with it.
func (s *Seen) Add(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 0 || n >= len(s.seen) || s.seen[n] {
		Fail(fmt.Sprintf("message %d was never pushed or came twice", n))
	}
	s.seen[n] = true
	s.count++
	return s.count
}

// Spread has so many goroutines do the operations first to end, step by step; tells what each took, in microseconds.
func Spread(goroutines, first, end, step int, operation func(first int)) []float64 {
	var mu sync.Mutex
	var wait sync.WaitGroup
	var took []float64
	next := first
	for i := 0; i < goroutines; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			var mine []float64
			for {
				mu.Lock()
				n := next
				next += step
				mu.Unlock()
				if n >= end {
					break
				}
				began := time.Now()
				operation(n)
				mine = append(mine, Micros(began))
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		}()
	}
	wait.Wait()
	return took
}

// Micros is how long ago it was.
func Micros(began time.Time) float64 { return float64(time.Since(began).Nanoseconds()) / 1e3 }

// Run is the time that counts.
type Run struct {
	began time.Time
	cpu   float64
}

// Begin starts the clock.
func Begin() Run { return Run{time.Now(), cpu()} }

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		Fail(err)
	}
	return float64(usage.Utime.Sec+usage.Stime.Sec)*1e6 + float64(usage.Utime.Usec+usage.Stime.Usec)
}

// Report stops the clock and prints what was measured; without operations there are no latencies.
func (r Run) Report(o Order, took []float64) {
	seconds, used := time.Since(r.began).Seconds(), cpu()-r.cpu
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		Fail(err)
	}
	report := map[string]any{"messages": o.Messages, "seconds": seconds, "cpu_us": used, "p50_us": nil, "p99_us": nil,
		"rss_mib": float64(usage.Maxrss) / 1024}
	if len(took) > 0 {
		sort.Float64s(took)
		at := func(share float64) float64 { return took[int(float64(len(took)-1)*share+0.5)] }
		report["p50_us"], report["p99_us"] = at(0.50), at(0.99)
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		Fail(err)
	}
}
