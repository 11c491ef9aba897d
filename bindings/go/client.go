package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"bytes"
	"context"
	"encoding/json"
	"log"
	"runtime"
	"sync"
	"time"
)

// defaultCloseTime is how long Close waits where the context has no deadline.
const defaultCloseTime = 30 * time.Second

// Client is a client of one broker or of a cluster. Any number of goroutines may use it.
type Client struct {
	pump   *pump
	config clientConfig
	core   *core
}

// core is the handle of a client. It is apart so that the finalizer runs although functions of the program point at the client.
type core struct {
	mu      sync.RWMutex // held for reading while C has the handle
	handle  *C.queen_client_t
	pump    *pump
	notices []C.uint64_t
}

type clientConfig struct {
	settings   map[string]any
	log        func(LogRecord)
	level      LogLevel
	reports    func(reports []Report, dropped int)
	statistics func(Statistics)
	token      func(reason string) (string, error)
	backend    func(BackendState)
	errorLog   *log.Logger
}

// ClientOption is a setting of a client.
type ClientOption func(*clientConfig)

// WithSetting sets any setting of docs/CONFIGURATION.md by its name, such as WithSetting("retryAttempts", 5).
func WithSetting(name string, value any) ClientOption {
	return func(c *clientConfig) { c.settings[name] = value }
}

// WithURLs names the brokers of a cluster, instead of the one URL.
func WithURLs(urls ...string) ClientOption {
	return func(c *clientConfig) {
		delete(c.settings, "url")
		c.settings["urls"] = urls
	}
}

// WithTimeout is the deadline of calls that name none and whose context has none.
func WithTimeout(d time.Duration) ClientOption {
	return WithSetting("timeoutMillis", d.Milliseconds())
}

// WithBearerToken authenticates every request.
func WithBearerToken(token string) ClientOption { return WithSetting("bearerToken", token) }

// WithHeaders sends headers with every request.
func WithHeaders(headers map[string]string) ClientOption { return WithSetting("headers", headers) }

// WithErrorLog says where the binding reports handlers that panic and what was never released; the standard logger without.
func WithErrorLog(l *log.Logger) ClientOption {
	return func(c *clientConfig) { c.errorLog = l }
}

// Open makes a client for a URL: "http://host:6632", "https://host", "embedded:" for a broker in this process and in memory,
// or "embedded:///path/file.db" for one in a file. It connects to nothing; the first call does, and Ping asks for it. With
// WithURLs the URL may be empty.
func Open(ctx context.Context, url string, options ...ClientOption) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := getPump()
	if err != nil {
		return nil, err
	}
	c := &Client{pump: p, config: clientConfig{settings: map[string]any{}, errorLog: log.Default()}, core: &core{pump: p}}
	if url != "" {
		c.config.settings["url"] = url
	}
	for _, option := range options {
		option(&c.config)
	}
	text, err := json.Marshal(c.config.settings)
	if err != nil {
		return nil, newError(ErrInvalidConfig, "the settings cannot be written as JSON: %v", err)
	}
	var failed *C.queen_error_t
	c.core.handle = C.queen_client_new(chars(text), C.size_t(len(text)), &failed)
	if c.core.handle == nil {
		return nil, takeError(failed)
	}
	if err := c.core.listen(&c.config); err != nil {
		c.core.free()
		return nil, err
	}
	errorLog := c.config.errorLog
	runtime.SetFinalizer(c.core, func(c *core) {
		errorLog.Print("queen: a client was never closed; call Close. What it had not sent is lost.")
		c.free()
	})
	return c, nil
}

// enter lends the handle until leave.
func (c *core) enter() (*C.queen_client_t, error) {
	c.mu.RLock()
	if c.handle == nil {
		c.mu.RUnlock()
		return nil, newError(ErrClosed, "the client is closed; open a new one")
	}
	return c.handle, nil
}

func (c *core) leave() { c.mu.RUnlock() }

func (c *core) free() {
	c.mu.Lock()
	defer c.mu.Unlock()
	C.queen_client_free(c.handle)
	c.handle = nil
	for _, tag := range c.notices {
		c.pump.sinks.remove(tag)
	}
	c.notices = nil
	runtime.SetFinalizer(c, nil)
}

// do waits for an operation of the client.
func (c *Client) do(ctx context.Context, begin func(*C.queen_client_t) *C.queen_future_t) (event, error) {
	return operation(ctx, func(p *pump, r route) (*C.queen_future_t, error) {
		handle, err := c.core.enter()
		if err != nil {
			return nil, err
		}
		defer c.core.leave()
		return p.routed(begin(handle), r), nil
	})
}

// Close stops the consumers, flushes pushes, buffers and verdicts, and ends what is left. It waits until the deadline of the
// context, 30 seconds without one. After ErrTimeout, which names what still runs, it may be called again to wait longer.
// ErrPartial says that buffered messages were not stored; the client is closed then as well. A second Close does nothing.
func (c *Client) Close(ctx context.Context) error {
	wait := defaultCloseTime
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	// A context that has ended closes at once; its own end would leave the client open.
	if wait < 0 || ctx.Err() != nil {
		wait = 0
	}
	_, err := c.do(context.Background(), func(handle *C.queen_client_t) *C.queen_future_t {
		return C.queen_client_close(handle, C.int64_t(wait.Milliseconds()))
	})
	switch code := codeOf(err); code {
	case ErrClosed:
		return nil
	case 0, ErrPartial:
		c.core.free()
	}
	return err
}

func codeOf(err error) Code {
	if e, ok := err.(*Error); ok {
		return e.Code
	}
	return 0
}

// Call does any operation of docs/OPERATIONS.md by its name. The parameters are written as a JSON object, nil stands for none;
// the result is read into result, unless that is nil. Where the call is refused in part, both are there. Only what brings a
// lease is not done by name: Queue.Pop and Stream.Poll are for that.
func (c *Client) Call(ctx context.Context, operation string, parameters, result any) error {
	if instead := map[string]string{"pop": "Queue.Pop", "stream.poll": "Stream.Poll"}[operation]; instead != "" {
		return newError(ErrInvalidArgument, "%s brings what is under a lease, which JSON cannot hold: use %s", operation, instead)
	}
	name, err := nul("the operation", operation)
	if err != nil {
		return err
	}
	text := []byte("{}")
	if parameters != nil {
		if text, err = json.Marshal(parameters); err != nil {
			return newError(ErrInvalidJSON, "the parameters of %s cannot be written as JSON: %v", operation, err)
		}
	}
	got, err := c.do(ctx, func(handle *C.queen_client_t) *C.queen_future_t {
		return C.queen_call(handle, chars(name), chars(text), C.size_t(len(text)))
	})
	return got.read(err, result)
}

// read puts the result where it is wanted, also beside an error.
func (e *event) read(err error, result any) error {
	if result == nil || e.json == nil {
		return err
	}
	if raw, ok := result.(*json.RawMessage); ok {
		*raw = e.json
		return err
	}
	if wrong := json.Unmarshal(e.json, result); wrong != nil && err == nil {
		return newError(ErrBadAnswer, "the result does not fit into a %T: %v", result, wrong)
	}
	return err
}

// Ping asks the broker how it is.
func (c *Client) Ping(ctx context.Context) error { return c.Call(ctx, "health", nil, nil) }

// Flush sends what is buffered and waits until every push made before is settled, well or not.
func (c *Client) Flush(ctx context.Context) error { return c.Call(ctx, "flush", nil, nil) }

// Ready waits until there is room for further calls, after one has failed with ErrWouldBlock.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.do(ctx, func(handle *C.queen_client_t) *C.queen_future_t { return C.queen_client_ready(handle) })
	return err
}

// Statistics is the document of docs/STATISTICS.md.
type Statistics map[string]any

// Number is a field by its path, such as "messages.acked"; 0 where there is none.
func (s Statistics) Number(path string) float64 {
	var at any = map[string]any(s)
	for _, name := range bytes.Split([]byte(path), []byte(".")) {
		object, _ := at.(map[string]any)
		at = object[string(name)]
	}
	number, _ := at.(float64)
	return number
}

// Statistics tells what the client has done and what it has under way. It asks no broker.
func (c *Client) Statistics(ctx context.Context) (Statistics, error) {
	var s Statistics
	err := c.Call(ctx, "client.stats", nil, &s)
	return s, err
}

// SetToken sets the bearer token of all further requests, those that wait for one included.
func (c *Client) SetToken(token string) error { return c.core.newToken(token) }

func (c *core) newToken(token string) error {
	text, err := nul("the token", token)
	if err != nil {
		return err
	}
	return c.setToken(chars(text))
}

func (c *core) setToken(token *C.char) error {
	handle, err := c.enter()
	if err != nil {
		return err
	}
	defer c.leave()
	if code := C.queen_client_set_token(handle, token); code != C.QUEEN_OK {
		return newError(Code(code), "the token is not visible ASCII")
	}
	return nil
}

// named does an operation with what it requires and with options.
func (c *Client) named(ctx context.Context, operation string, required map[string]any, options []Option) (json.RawMessage, error) {
	for _, o := range options {
		required[o.Name] = o.Value
	}
	var result json.RawMessage
	err := c.Call(ctx, operation, required, &result)
	return result, err
}

// Operations is the catalogue of Call as JSON.
func Operations() json.RawMessage {
	var n C.size_t
	text := C.queen_operations_json(&n)
	return copyBytes(text, n)
}

// Version is that of the library that the program runs with.
func Version() string { return C.GoString(C.queen_version_string()) }
