package queen

/*
#include <queen.h>
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"time"
)

// Code is the number of an error. It is an error itself, so that errors.Is(err, queen.ErrTimeout) can be asked.
type Code int32

// The codes. The documentation of libqueen (docs/ERRORS.md) explains each.
const (
	ErrInvalidArgument  Code = C.QUEEN_E_INVALID_ARGUMENT
	ErrInvalidUTF8      Code = C.QUEEN_E_INVALID_UTF8
	ErrInvalidJSON      Code = C.QUEEN_E_INVALID_JSON
	ErrInvalidConfig    Code = C.QUEEN_E_INVALID_CONFIG
	ErrInvalidState     Code = C.QUEEN_E_INVALID_STATE
	ErrUnknownOperation Code = C.QUEEN_E_UNKNOWN_OPERATION
	ErrTimeout          Code = C.QUEEN_E_TIMEOUT
	ErrCancelled        Code = C.QUEEN_E_CANCELLED
	ErrClosed           Code = C.QUEEN_E_CLOSED
	ErrWouldBlock       Code = C.QUEEN_E_WOULD_BLOCK
	ErrWouldDeadlock    Code = C.QUEEN_E_WOULD_DEADLOCK
	ErrBusy             Code = C.QUEEN_E_BUSY
	ErrForked           Code = C.QUEEN_E_FORKED
	ErrConnect          Code = C.QUEEN_E_CONNECT
	ErrNetwork          Code = C.QUEEN_E_NETWORK
	ErrBadAnswer        Code = C.QUEEN_E_BAD_ANSWER
	ErrBadRequest       Code = C.QUEEN_E_BAD_REQUEST
	ErrUnauthorized     Code = C.QUEEN_E_UNAUTHORIZED
	ErrForbidden        Code = C.QUEEN_E_FORBIDDEN
	ErrNotFound         Code = C.QUEEN_E_NOT_FOUND
	ErrTooLarge         Code = C.QUEEN_E_TOO_LARGE
	ErrThrottled        Code = C.QUEEN_E_THROTTLED
	ErrBroker           Code = C.QUEEN_E_BROKER
	ErrUnsupported      Code = C.QUEEN_E_UNSUPPORTED
	ErrPartial          Code = C.QUEEN_E_PARTIAL
	ErrLeaseLost        Code = C.QUEEN_E_LEASE_LOST
	ErrAlreadySettled   Code = C.QUEEN_E_ALREADY_SETTLED
	ErrOrder            Code = C.QUEEN_E_ORDER
	ErrRolledBack       Code = C.QUEEN_E_ROLLED_BACK
	ErrLocked           Code = C.QUEEN_E_LOCKED
	ErrStore            Code = C.QUEEN_E_STORE
	ErrInternal         Code = C.QUEEN_E_INTERNAL
)

// String is the name of the code in C, such as QUEEN_E_TIMEOUT.
func (c Code) String() string {
	if c == 0 {
		return "QUEEN_OK"
	}
	if name := C.queen_error_code_name(C.int32_t(c)); name != nil {
		return C.GoString(name)
	}
	return fmt.Sprintf("QUEEN code %d", int32(c))
}

func (c Code) Error() string { return c.String() }

// Outcome says what is known about the effect of a failed call.
type Outcome string

// The outcomes.
const (
	NotApplied     Outcome = "notApplied" // no broker has applied any of it
	UnknownOutcome Outcome = "unknown"    // it was sent, and no usable answer came
	Refused        Outcome = "refused"    // a broker answered and refused it, or the parts that the result names
)

// Error is what the core or a broker says about a call that failed. Use it with errors.As, or its codes with errors.Is.
type Error struct {
	Code       Code    `json:"code"`
	Name       string  `json:"name"`       // of the code, such as QUEEN_E_TIMEOUT
	Message    string  `json:"message"`    // for people: what happened, and what to do
	HTTPStatus int     `json:"httpStatus"` // 0 when no broker answered
	Retriable  bool    `json:"retriable"`  // the same call may well succeed later
	Fatal      bool    `json:"fatal"`      // the client can do nothing more
	Outcome    Outcome `json:"outcome"`
	// BrokerCode is the word that the broker or a proxy has for the refusal.
	BrokerCode string `json:"brokerCode"`
	// RetryAfterMillis is the pause that the broker asks for; see RetryAfter.
	RetryAfterMillis int64 `json:"retryAfterMillis"`
	// TransactionIDs are those of a push whose outcome is unknown: with them it may be repeated.
	TransactionIDs []string `json:"transactionIds"`
	// Result is the whole result of a call that was refused in part, one entry for each item.
	Result json.RawMessage `json:"result"`

	cause error
}

func (e *Error) Error() string {
	return fmt.Sprintf("queen: %s (%s)", e.Message, e.Name)
}

// Is compares the code, so that errors.Is(err, queen.ErrLeaseLost) can be asked.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

// Unwrap is the error of the context that ended the call, if that is what ended it.
func (e *Error) Unwrap() error { return e.cause }

// RetryAfter is the pause that the broker asks for, 0 when it names none.
func (e *Error) RetryAfter() time.Duration {
	return time.Duration(e.RetryAfterMillis) * time.Millisecond
}

// newError makes an error that the binding itself finds.
func newError(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Name: code.String(), Message: fmt.Sprintf(format, args...), Outcome: NotApplied}
}

// parseError reads what queen_error_json tells.
func parseError(code int32, text []byte) *Error {
	e := &Error{}
	if err := json.Unmarshal(text, e); err != nil {
		return newError(Code(code), "the error cannot be read: %v", err)
	}
	return e
}

// takeError reads and frees an error that a C function has set.
func takeError(e *C.queen_error_t) *Error {
	defer C.queen_error_free(e)
	var n C.size_t
	text := C.queen_error_json(e, &n)
	return parseError(int32(C.queen_error_code(e)), copyBytes(text, n))
}
