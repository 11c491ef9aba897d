// Command go runs scenarios with the Go binding: BROKER URL FILE... (see the README beside).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	queen "github.com/libqueen/libqueen/bindings/go"
)

// patience bounds each step.
const patience = 30 * time.Second

// world is what a scenario runs in.
type world struct {
	broker *queen.Broker
	url    string
	saved  map[string]any

	mu      sync.Mutex
	clients map[string]*queen.Client
	pops    map[string]queen.Deliveries
	reports map[string][]queen.Report
	running map[string]*running
}

// running is a step in the background.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
	result any
	err    error
}

func name(client string) string {
	if client == "" {
		return "main"
	}
	return client
}

func (w *world) open(client string, config map[string]any) error {
	client = name(client)
	settings := []queen.ClientOption{
		queen.WithErrorLog(log.New(io.Discard, "", 0)), // panics of handlers are a part of scenarios
		queen.WithReports(func(reports []queen.Report, dropped int) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reports[client] = append(w.reports[client], reports...)
		}),
	}
	for key, value := range config {
		settings = append(settings, queen.WithSetting(key, value))
	}
	opened, err := queen.Open(context.Background(), w.url, settings...)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.clients[client] = opened
	}
	return err
}

func (w *world) client(client string) *queen.Client {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clients[name(client)]
}

func (w *world) keep(as string, got queen.Deliveries) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pops[as].Release()
	w.pops[as] = got
}

func (w *world) kept(of string) queen.Deliveries {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pops[of]
}

// run does a step and looks at what comes of it.
func (w *world) run(raw map[string]any) error {
	var s step
	if err := w.read(raw, &s); err != nil {
		return err
	}
	switch s.Do {
	case "start":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		r := &running{cancel: cancel, done: make(chan struct{})}
		w.running[s.Name] = r
		var inner step
		if err := w.read(s.Step, &inner); err != nil {
			return err
		}
		go func() {
			defer close(r.done)
			defer cancel()
			r.result, r.err = w.do(ctx, &inner)
		}()
		return nil
	case "cancel":
		w.running[s.Name].cancel()
		return nil
	case "join":
		r := w.running[s.Name]
		select {
		case <-r.done:
		case <-time.After(patience):
			return fmt.Errorf("%s has not ended", s.Name)
		}
		return w.judge(&s, r.result, r.err)
	}
	for end := time.Now().Add(time.Duration(s.Within) * time.Millisecond); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		result, err := w.do(ctx, &s)
		cancel()
		wrong := w.judge(&s, result, err)
		if wrong == nil || !time.Now().Before(end) {
			return wrong
		}
	}
}

// read puts the names in. A field that is not known is a mistake.
func (w *world) read(raw map[string]any, into *step) error {
	bytes, err := json.Marshal(fill(raw, w.saved))
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(strings.NewReader(string(bytes)))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func (w *world) judge(s *step, result any, err error) error {
	wanted := s.Expect["error"]
	var failed *queen.Error
	switch {
	case err != nil && !errors.As(err, &failed):
		return err
	case wanted == nil && err != nil:
		return fmt.Errorf("failed: %w", err)
	case wanted != nil && err == nil:
		return fmt.Errorf("went well with %s, but %s was wanted", text(result), text(wanted))
	case wanted != nil:
		if word, ok := wanted.(string); ok {
			wanted = map[string]any{"name": word}
		}
		if why := match(wanted, plain(failed), "error"); why != "" {
			return errors.New(why)
		}
	}
	if pattern, ok := s.Expect["result"]; ok {
		if why := match(pattern, result, "result"); why != "" {
			return errors.New(why)
		}
	}
	for key, path := range s.Save {
		found := pointer(result, path)
		if found == nil {
			return fmt.Errorf("nothing to save at %s in %s", path, text(result))
		}
		w.saved[key] = found
	}
	return nil
}

// scenario runs a file.
func scenario(broker, url, file string) (err error) {
	defer func() { // what is wrong with the scenario itself
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%v", cause)
		}
	}()
	bytes, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s struct {
		About   string
		Brokers []string
		Steps   []map[string]any
	}
	if err := json.Unmarshal(bytes, &s); err != nil {
		return err
	}
	queue := fmt.Sprintf("scenario-go-%d-%d", os.Getpid(), time.Now().UnixNano())
	w := &world{url: url, saved: map[string]any{"queue": queue}, clients: map[string]*queen.Client{},
		pops: map[string]queen.Deliveries{}, reports: map[string][]queen.Report{}, running: map[string]*running{}}
	if broker == "embedded" {
		if w.broker, err = queen.StartBroker(queen.BrokerOptions{Testing: true}); err != nil {
			return err
		}
		defer w.broker.Release()
		w.url = w.broker.URL()
	}
	defer func() {
		if wrong := w.end(); wrong != nil && err == nil {
			err = wrong
		}
	}()
	if err := w.open("main", map[string]any{"retryDelayMillis": 5}); err != nil {
		return err
	}
	for n, one := range s.Steps {
		if err := w.run(one); err != nil {
			return fmt.Errorf("step %d (%v): %w", n+1, one["do"], err)
		}
	}
	return nil
}

func (w *world) end() error {
	for _, r := range w.running {
		r.cancel()
		<-r.done
	}
	for _, got := range w.pops {
		got.Release()
	}
	for key, client := range w.clients {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := client.Close(ctx); err != nil {
			return fmt.Errorf("the close of client %s: %w", key, err)
		}
	}
	return nil
}

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: BROKER URL FILE...")
		os.Exit(2)
	}
	for _, file := range os.Args[3:] {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if err := scenario(os.Args[1], os.Args[2], file); err != nil {
			fmt.Printf("FAILED %s: %v\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("ok", name)
	}
}
