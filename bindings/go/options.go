package queen

import (
	"encoding/json"
	"time"
)

// Option is a setting of a push, a pop or a consumer, by its name in the documentation of libqueen: docs/OPERATIONS.md for
// pushes and pops, the section on consumers in docs/CONFIGURATION.md. The core says which names it does not know.
type Option struct {
	Name  string
	Value any
}

// Set is any option by its name, such as Set("subscriptionMode", "all").
func Set(name string, value any) Option { return Option{name, value} }

// Group reads as this consumer group. On brokers of generation 1.x a new group begins at the end of the queue, unless
// SubscriptionMode("all") says otherwise.
func Group(name string) Option { return Set("consumerGroup", name) }

// SubscriptionMode says where a new group starts: "all" or "new".
func SubscriptionMode(mode string) Option { return Set("subscriptionMode", mode) }

// SubscriptionFrom says at which time a new group starts.
func SubscriptionFrom(t time.Time) Option {
	return Set("subscriptionFrom", t.UTC().Format(time.RFC3339Nano))
}

// Concurrency is how many handlers run side by side, each on another partition.
func Concurrency(n int) Option { return Set("concurrency", n) }

// Batch is the most messages of one poll, or of a pop.
func Batch(n int) Option { return Set("batch", n) }

// Partitions is the most partitions of one poll.
func Partitions(n int) Option { return Set("partitions", n) }

// Limit ends a consumer after so many messages, over all handlers.
func Limit(n int) Option { return Set("limitTotal", n) }

// IdleTimeout ends a consumer when nothing came for that long.
func IdleTimeout(d time.Duration) Option { return Set("idleMillis", d.Milliseconds()) }

// Wait makes a pop wait for messages at the broker, for that long. Consumers wait anyway; for them it is the time of one poll.
func Wait(d time.Duration) Option { return Set("wait", d) }

// LeaseTime is how long messages are leased, in whole seconds; leases of consumers are renewed.
func LeaseTime(d time.Duration) Option {
	return Set("leaseSeconds", int64(d.Round(time.Second)/time.Second))
}

// ManualAck leaves every verdict to the handler's calls of Ack, Nack, Retry and DeadLetter, then or later: what it returns
// counts only if it is an error.
func ManualAck() Option { return Set("autoAck", false) }

// AtMostOnce has the broker count messages as done when it hands them out.
func AtMostOnce() Option { return Set("commitOnDelivery", true) }

// Timeout is the deadline of one push or pop; it may be longer than that of the client. The context may end it sooner.
func Timeout(d time.Duration) Option { return Set("timeoutMillis", d.Milliseconds()) }

// Buffer has pushes collected in the client and sent together. The push returns when its messages are accepted, with status
// "buffered"; WithReports tells what became of them. Zero fields take the defaults of the core.
type Buffer struct {
	Messages    int           // send when so many are there
	Time        time.Duration // or so long after the first
	MaxMessages int           // the buffer is full with so many
	MaxBytes    int64         // or so many bytes
	WhenFull    string        // "wait", "fail" or "dropOldest"
}

// MarshalJSON writes it as the core reads it.
func (b Buffer) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Messages    int    `json:"messageCount,omitempty"`
		Millis      int64  `json:"timeMillis,omitempty"`
		MaxMessages int    `json:"maxMessages,omitempty"`
		MaxBytes    int64  `json:"maxBytes,omitempty"`
		WhenFull    string `json:"whenFull,omitempty"`
	}{b.Messages, b.Time.Milliseconds(), b.MaxMessages, b.MaxBytes, b.WhenFull})
}

// encode writes options as a JSON object; later ones win.
func encode(options []Option) ([]byte, error) {
	object := make(map[string]any, len(options)+2)
	for _, o := range options {
		object[o.Name] = o.Value
		if wait, ok := o.Value.(time.Duration); ok && o.Name == "wait" {
			object["wait"], object["pollTimeoutMillis"] = true, wait.Milliseconds()
		}
	}
	text, err := json.Marshal(object)
	if err != nil {
		return nil, newError(ErrInvalidJSON, "the options cannot be written as JSON: %v", err)
	}
	return text, nil
}
