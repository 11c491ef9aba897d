package queen

/*
#include "bridge.h"
*/
import "C"

import (
	"bytes"
	"encoding/json"
	"sync"
	"time"
)

// maxNotices bounds what waits for a slow function of the program, as the core bounds its own queues.
const maxNotices = 10000

// LogLevel says how much is logged.
type LogLevel int32

// The levels.
const (
	LogError LogLevel = C.QUEEN_LOG_ERROR
	LogWarn  LogLevel = C.QUEEN_LOG_WARN
	LogInfo  LogLevel = C.QUEEN_LOG_INFO
	LogDebug LogLevel = C.QUEEN_LOG_DEBUG
)

// LogRecord is a record of the core's log. Payloads and tokens are never part of it.
type LogRecord struct {
	Time      time.Time `json:"time"`
	Level     LogLevel  `json:"-"`
	Component string    `json:"component"`
	Operation string    `json:"operation"`
	Message   string    `json:"message"`
	// Text is the whole record as JSON, with what else it tells.
	Text json.RawMessage `json:"-"`
}

// WithLog has the log from that level on handed to a function, one record at a time.
func WithLog(level LogLevel, to func(LogRecord)) ClientOption {
	return func(c *clientConfig) { c.log, c.level = to, level }
}

// Report tells what became of one buffered message: "queued", "duplicate", "buffered", or with an error "failed", "dropped"
// or "closed".
type Report struct {
	Queue         string `json:"queue"`
	Partition     string `json:"partition"`
	TransactionID string `json:"transactionId"`
	MessageID     string `json:"messageId"`
	Status        string `json:"status"`
	Error         string `json:"error"`
	Resent        bool   `json:"resent"`
}

// WithReports has what became of buffered messages handed to a function, for the messages of one request at a time, and how
// many reports were dropped before them because it was too slow.
func WithReports(to func(reports []Report, dropped int)) ClientOption {
	return func(c *clientConfig) { c.reports = to }
}

// WithStatistics has the statistics handed to a function that often.
func WithStatistics(every time.Duration, to func(Statistics)) ClientOption {
	return func(c *clientConfig) {
		c.statistics = to
		c.settings["statisticsIntervalMillis"] = every.Milliseconds()
	}
}

// WithTokenSource asks a function for a bearer token when there is none ("missing") and when a broker refuses it ("refused").
// Requests wait for the answer; after an error those fail with ErrUnauthorized.
func WithTokenSource(source func(reason string) (string, error)) ClientOption {
	return func(c *clientConfig) { c.token = source }
}

// BackendState tells that a broker has become "unhealthy", or "healthy" again.
type BackendState struct {
	URL             string `json:"url"`
	State           string `json:"state"`
	Error           string `json:"error"`
	UnhealthyMillis int64  `json:"unhealthyMillis"`
}

// WithBackendState has changes in the health of brokers handed to a function.
func WithBackendState(to func(BackendState)) ClientOption {
	return func(c *clientConfig) { c.backend = to }
}

// listen routes what the program wants to hear of to functions of its own.
func (c *core) listen(config *clientConfig) error {
	var wrong C.int32_t
	route := func(handle func(e *event, dropped int), to func(tag C.uint64_t) C.int32_t) {
		tag := c.pump.sinks.add(&mailbox{handle: handle})
		c.notices = append(c.notices, tag)
		if code := to(tag); code != C.QUEEN_OK && wrong == C.QUEEN_OK {
			wrong = code
		}
	}
	if to := config.log; to != nil {
		route(func(e *event, _ int) {
			record := LogRecord{Level: LogLevel(e.code), Text: e.json}
			_ = json.Unmarshal(e.json, &record) // a field that cannot be read stays empty; Text has it all
			to(record)
		}, func(tag C.uint64_t) C.int32_t {
			return C.queen_log_events(c.handle, C.int32_t(config.level), c.pump.queue, tag)
		})
	}
	if to := config.reports; to != nil {
		route(func(e *event, dropped int) {
			var reports []Report
			_ = json.Unmarshal(e.json, &reports)
			to(reports, int(e.code)+dropped)
		}, func(tag C.uint64_t) C.int32_t { return C.queen_report_events(c.handle, c.pump.queue, tag) })
	}
	if to := config.statistics; to != nil {
		route(func(e *event, _ int) {
			var s Statistics
			_ = json.Unmarshal(e.json, &s)
			to(s)
		}, func(tag C.uint64_t) C.int32_t { return C.queen_statistics_events(c.handle, c.pump.queue, tag) })
	}
	if source, errorLog := config.token, config.errorLog; source != nil {
		route(func(e *event, _ int) {
			var question struct{ Reason string }
			_ = json.Unmarshal(e.json, &question)
			token, err := source(question.Reason)
			if err == nil {
				err = c.newToken(token)
			}
			if err != nil && codeOf(err) != ErrClosed {
				errorLog.Printf("queen: no token: %v", err)
				_ = c.setToken(nil) // who waits fails; a closed client has nobody who waits
			}
		}, func(tag C.uint64_t) C.int32_t { return C.queen_token_events(c.handle, c.pump.queue, tag) })
	}
	if to := config.backend; to != nil {
		route(func(e *event, _ int) {
			var state BackendState
			_ = json.Unmarshal(e.json, &state)
			to(state)
		}, func(tag C.uint64_t) C.int32_t { return C.queen_backend_events(c.handle, c.pump.queue, tag) })
	}
	if wrong != C.QUEEN_OK {
		return newError(Code(wrong), "a log, report, statistics, token or backend function cannot be set")
	}
	return nil
}

// mailbox hands events to a function of the program, one at a time and in order, on a goroutine that lives while events wait.
type mailbox struct {
	handle func(e *event, dropped int)

	mu      sync.Mutex
	waiting []event
	dropped int // since the last one that was handed over
	running bool
}

func (m *mailbox) take(e *event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) >= maxNotices {
		m.dropped += bytes.Count(e.json, []byte(`"status":`)) // reports; nobody asks how many of the others
		return
	}
	m.waiting = append(m.waiting, *e)
	if !m.running {
		m.running = true
		go m.run()
	}
}

func (m *mailbox) run() {
	for {
		m.mu.Lock()
		if len(m.waiting) == 0 {
			m.running = false
			m.mu.Unlock()
			return
		}
		events, dropped := m.waiting, m.dropped
		m.waiting, m.dropped = nil, 0
		m.mu.Unlock()
		for i := range events {
			m.handle(&events[i], dropped)
			dropped = 0
		}
	}
}
