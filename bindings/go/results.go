package queen

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// readPushResults reads the result of a push, which comes with every message: a list of flat objects, mostly without spaces and
// escapes, for which encoding/json takes several times as long. What looks otherwise is left to that.
func readPushResults(text []byte) ([]PushResult, error) {
	if results, ok := scanPushResults(text); ok {
		return results, nil
	}
	var results []PushResult
	err := json.Unmarshal(text, &results)
	return results, err
}

func scanPushResults(text []byte) ([]PushResult, bool) {
	s := scanner{text}
	if !s.skip('[') {
		return nil, false
	}
	results := make([]PushResult, 0, 1)
	for more := true; more; more = s.skip(',') {
		if !s.skip('{') {
			return nil, false
		}
		results = append(results, PushResult{})
		result := &results[len(results)-1]
		for more := true; more; more = s.skip(',') {
			key, ok := s.string()
			if !ok || !s.skip(':') {
				return nil, false
			}
			switch string(key) {
			case "index":
				result.Index, ok = s.int()
			case "transactionId":
				ok = s.text(&result.TransactionID)
			case "messageId":
				ok = s.text(&result.MessageID)
			case "status":
				ok = s.status(&result.Status)
			case "error":
				ok = s.text(&result.Error)
			default: // resent is rare
				ok = false
			}
			if !ok {
				return nil, false
			}
		}
		if !s.skip('}') {
			return nil, false
		}
	}
	return results, s.skip(']') && len(s.left) == 0
}

// scanner reads JSON without spaces and escapes.
type scanner struct{ left []byte }

// skip goes behind the character, if it is next.
func (s *scanner) skip(c byte) bool {
	if len(s.left) == 0 || s.left[0] != c {
		return false
	}
	s.left = s.left[1:]
	return true
}

// string is what stands between quotes.
func (s *scanner) string() ([]byte, bool) {
	if !s.skip('"') {
		return nil, false
	}
	end := bytes.IndexByte(s.left, '"')
	if end < 0 || bytes.IndexByte(s.left[:end], '\\') >= 0 {
		return nil, false
	}
	text := s.left[:end]
	s.left = s.left[end+1:]
	return text, true
}

// text reads a string or null.
func (s *scanner) text(into *string) bool {
	if bytes.HasPrefix(s.left, []byte("null")) {
		s.left = s.left[len("null"):]
		return true
	}
	text, ok := s.string()
	*into = string(text)
	return ok
}

// status reads one of few words, mostly the same.
func (s *scanner) status(into *string) bool {
	text, ok := s.string()
	if string(text) == "queued" {
		*into = "queued"
	} else {
		*into = string(text)
	}
	return ok
}

func (s *scanner) int() (int, bool) {
	n := 0
	for n < len(s.left) && s.left[n] >= '0' && s.left[n] <= '9' {
		n++
	}
	value, err := strconv.Atoi(string(s.left[:n]))
	s.left = s.left[n:]
	return value, err == nil
}
