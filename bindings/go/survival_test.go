package queen_test

import (
	"context"
	"errors"
	"log"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
	"github.com/libqueen/libqueen/bindings/go/queentest"
)

func TestAContextCancelsInTheCore(t *testing.T) {
	broker := queentest.Start(t)
	client := broker.Client()
	hang := broker.Fault(queen.Fault{Route: "push", Action: "hang"})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		until(t, "the push", func() bool { return broker.Applied(hang) == 1 })
		cancel()
	}()
	_, err := client.Queue("q").Push(ctx, 1)
	if e := wants(t, err, queen.ErrCancelled); e.Outcome != queen.UnknownOutcome || len(e.TransactionIDs) != 1 {
		t.Fatalf("%+v", e)
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v does not tell the context's error", err)
	}
	_, err = client.Queue("q").Push(ctx, 1)
	if e := wants(t, err, queen.ErrCancelled); e.Outcome != queen.NotApplied || !errors.Is(err, context.Canceled) {
		t.Fatalf("%+v", e)
	}
	deadline, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = client.Queue("none").Pop(deadline, queen.Wait(time.Minute))
	wants(t, err, queen.ErrCancelled)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v does not tell the context's error", err)
	}
	broker.Heal()
}

func TestAStormOfCancellations(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name)
		var done, cancelled int32
		var wait sync.WaitGroup
		for i := 0; i < 400; i++ {
			wait.Add(1)
			go func(i int) {
				defer wait.Done()
				ctx, cancel := context.WithCancel(context.Background())
				go func() {
					time.Sleep(time.Duration(i%40) * 100 * time.Microsecond)
					cancel()
				}()
				var err error
				if i%2 == 0 {
					_, err = queue.Push(ctx, number{i})
				} else {
					var got queen.Deliveries
					got, err = client.Queue(name+"-none").Pop(ctx, queen.Wait(time.Minute))
					got.Release()
				}
				switch {
				case err == nil:
					atomic.AddInt32(&done, 1)
				case errors.Is(err, context.Canceled):
					atomic.AddInt32(&cancelled, 1)
				default:
					t.Error(err)
				}
			}(i)
		}
		wait.Wait()
		if cancelled < 200 || done+cancelled != 400 {
			t.Errorf("%d done, %d cancelled", done, cancelled)
		}
		_, err := queue.Push(short(t), number{1}) // nothing is worn out
		must(t, err)
	})
}

func TestAThousandClients(t *testing.T) {
	before := threads(t)
	var clients []*queen.Client
	for i := 0; i < 1000; i++ {
		client, err := queen.Open(context.Background(), "embedded:?shared=thousand")
		must(t, err)
		if i%100 == 0 {
			_, err = client.Queue("q").Push(short(t), number{i})
			must(t, err)
		}
		clients = append(clients, client)
		if i%2 == 0 { // some close at once, some all together
			must(t, client.Close(short(t)))
			clients = clients[:len(clients)-1]
		}
	}
	for _, client := range clients {
		must(t, client.Close(short(t)))
	}
	until(t, "the threads to end", func() bool { return threads(t) < before+50 })
}

// threads is how many the process has.
func threads(t *testing.T) int {
	tasks, err := os.ReadDir("/proc/self/task")
	must(t, err)
	return len(tasks)
}

func TestManyWaitingCallsNeedNoThreads(t *testing.T) {
	client := open(t, "embedded:")
	_, err := client.Queue("q").Push(short(t), 1)
	must(t, err)
	before := threads(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	for i := 0; i < 500; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			_, err := client.Queue("none").Pop(ctx, queen.Wait(time.Minute))
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
	}
	time.Sleep(200 * time.Millisecond)
	if now := threads(t); now > before+30 {
		t.Errorf("%d threads, %d before", now, before)
	}
	cancel()
	wait.Wait()
}

func TestGarbageCollections(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					runtime.GC()
					debug.FreeOSMemory()
				}
			}
		}()
		queue := client.Queue(name)
		var kept []*queen.Message
		fill(t, queue, 300)
		must(t, queue.Consume(short(t), func(ctx context.Context, m *queen.Message) error {
			kept = append(kept, m)
			return nil
		}, queen.Limit(300)))
		close(stop)
		<-stopped
		for i, m := range kept { // long after their deliveries were freed
			if read(t, m) != i || m.Queue() != name {
				t.Fatalf("message %d became %+v", i, m)
			}
		}
	})
}

func TestUseAfterClose(t *testing.T) {
	onBrokers(t, func(t *testing.T, client *queen.Client, name string) {
		queue := client.Queue(name)
		fill(t, queue, 2)
		got, err := queue.Pop(short(t))
		must(t, err)
		consumer, err := queue.Start(short(t), func(context.Context, *queen.Message) error { return nil }, queen.Group("g"))
		must(t, err)
		waiting := make(chan error, 1)
		go func() {
			_, err := client.Queue(name+"-none").Pop(context.Background(), queen.Wait(time.Minute))
			waiting <- err
		}()
		time.Sleep(20 * time.Millisecond)
		tx, err := client.Transaction()
		must(t, err)
		must(t, client.Close(short(t)))
		must(t, client.Close(short(t)))
		wants(t, <-waiting, queen.ErrClosed)
		summary, err := consumer.Wait(short(t))
		must(t, err)
		if summary.Reason != "closed" && summary.Reason != "stopped" {
			t.Errorf("%+v", summary)
		}
		_, err = queue.Push(short(t), 1)
		wants(t, err, queen.ErrClosed)
		_, err = queue.Pop(short(t))
		wants(t, err, queen.ErrClosed)
		_, err = queue.Start(short(t), func(context.Context, *queen.Message) error { return nil })
		wants(t, err, queen.ErrClosed)
		wants(t, client.Ping(short(t)), queen.ErrClosed)
		wants(t, client.SetToken("x"), queen.ErrClosed)
		wants(t, got.Messages()[0].Ack(short(t)), queen.ErrClosed)
		_, err = client.Transaction()
		wants(t, err, queen.ErrClosed)
		_, err = tx.Commit(short(t))
		if err == nil {
			t.Error("a transaction of a closed client was committed")
		}
		got.Release()
		got.Release()
		_, err = got[0].Ack(short(t))
		wants(t, err, queen.ErrClosed)
	})
}

func TestWhatIsLeakedIsTold(t *testing.T) {
	var logged lockedBuffer
	func() {
		client, err := queen.Open(context.Background(), "embedded:", queen.WithErrorLog(log.New(&logged, "", 0)))
		must(t, err)
		fill(t, client.Queue("q"), 1)
		_, err = client.Queue("q").Pop(short(t))
		must(t, err)
		_, err = client.Transaction()
		must(t, err)
	}()
	for _, what := range []string{"a client was never closed", "a delivery of queue \"q\" was never released", "a transaction was neither"} {
		what := what
		until(t, what, func() bool { runtime.GC(); return strings.Contains(logged.String(), what) })
	}
}

// TestProcess is the program of TestExitWithWorkInFlight.
func TestProcess(t *testing.T) {
	how := os.Getenv("QUEEN_TEST_EXIT")
	if how == "" {
		return
	}
	client, err := queen.Open(context.Background(), os.Getenv("QUEEN_TEST_URL"))
	must(t, err)
	queue := client.Queue(unique())
	var handled int32
	for i := 0; i < 8; i++ {
		go func() {
			for {
				_, _ = queue.Push(context.Background(), number{1})
			}
		}()
	}
	_, err = queue.Start(context.Background(), func(context.Context, *queen.Message) error {
		atomic.AddInt32(&handled, 1)
		return nil
	}, queen.Concurrency(4))
	must(t, err)
	until(t, "work", func() bool { return atomic.LoadInt32(&handled) > 5 })
	switch how {
	case "exit":
		os.Exit(7)
	case "panic":
		panic("the program's own")
	}
	// Else it returns, and the test program ends.
}

func TestExitWithWorkInFlight(t *testing.T) {
	for name, url := range brokers() {
		for _, how := range []string{"exit", "panic", "return"} {
			url, how := url, how
			t.Run(name+"/"+how, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				command := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestProcess$", "-test.count=1")
				command.Env = append(os.Environ(), "QUEEN_TEST_EXIT="+how, "QUEEN_TEST_URL="+url)
				output, _ := command.CombinedOutput()
				status := command.ProcessState.ExitCode()
				wanted := map[string]int{"exit": 7, "panic": 2, "return": 0}[how]
				text := string(output)
				if status != wanted || strings.Contains(text, "SIGSEGV") || (how == "panic") != strings.Contains(text, "the program's own") {
					t.Fatalf("status %d\n%s", status, text)
				}
			})
		}
	}
}

func TestTokensLogsStatisticsAndBackends(t *testing.T) {
	broker := queentest.StartWith(t, queen.BrokerOptions{Tokens: []string{"open sesame"[:4]}})
	var mu sync.Mutex
	var reasons, states []string
	var records, statistics int
	client := broker.Client(
		queen.WithTokenSource(func(reason string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			if reasons = append(reasons, reason); len(reasons) == 1 {
				return "wrong", nil
			}
			return "open", nil
		}),
		queen.WithLog(queen.LogDebug, func(r queen.LogRecord) {
			mu.Lock()
			defer mu.Unlock()
			if r.Time.IsZero() || r.Component == "" || r.Operation == "" || r.Level == 0 || len(r.Text) == 0 {
				t.Errorf("%+v", r)
			}
			records++
		}),
		queen.WithStatistics(100*time.Millisecond, func(s queen.Statistics) {
			mu.Lock()
			defer mu.Unlock()
			if s["requests"] == nil {
				t.Errorf("%v", s)
			}
			statistics++
		}),
		queen.WithBackendState(func(s queen.BackendState) {
			mu.Lock()
			defer mu.Unlock()
			states = append(states, s.State)
		}),
		queen.WithSetting("healthRetryAfterMillis", 20), queen.WithTimeout(5*time.Second))
	_, err := client.Queue("q").Push(short(t), 1)
	must(t, err)
	must(t, broker.Kill(short(t)))
	_, err = client.Queue("q").Push(short(t), 1)
	wants(t, err, queen.ErrConnect)
	must(t, broker.Restart(short(t)))
	until(t, "word of it all", func() bool {
		_ = client.Ping(short(t))
		mu.Lock()
		defer mu.Unlock()
		return len(reasons) >= 2 && records > 5 && statistics > 1 && len(states) >= 2
	})
	mu.Lock()
	defer mu.Unlock()
	if reasons[0] != "missing" || reasons[1] != "refused" || states[0] != "unhealthy" || states[1] != "healthy" {
		t.Errorf("%v %v", reasons, states)
	}
}

func TestATokenSourceThatFails(t *testing.T) {
	broker := queentest.StartWith(t, queen.BrokerOptions{Tokens: []string{"open"}})
	client := broker.Client(queen.WithErrorLog(log.New(&lockedBuffer{}, "", 0)),
		queen.WithTokenSource(func(string) (string, error) { return "", errors.New("the vault is closed") }))
	_, err := client.Queue("q").Push(short(t), 1)
	wants(t, err, queen.ErrUnauthorized)
}
