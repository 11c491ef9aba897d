package queen

import (
	"encoding/json"
	"reflect"
	"testing"
)

// Both ways of reading see the same, whatever the text.
func TestPushResultsAreReadAlike(t *testing.T) {
	quick := map[string]bool{
		`[{"index":0,"transactionId":"a-b","messageId":"c","status":"queued"}]`:                                    true,
		`[{"index":12,"transactionId":"é","messageId":null,"status":"failed","error":"no"},{"status":"buffered"}]`: true,
		`[{"index":0,"status":"duplicate","resent":true}]`:                                                         false,
		`[{"index":0,"transactionId":"a\"b","status":"queued"}]`:                                                   false,
		`[ {"index": 0, "status": "queued"} ]`:                                                                     false,
		`[{"index":0,"more":{"x":[1]},"status":"queued"}]`:                                                         false,
		`[]`: false,
	}
	for text, wanted := range quick {
		var slow []PushResult
		if err := json.Unmarshal([]byte(text), &slow); err != nil {
			t.Fatal(err)
		}
		if _, ok := scanPushResults([]byte(text)); ok != wanted {
			t.Errorf("%s: quick %v", text, ok)
		}
		results, err := readPushResults([]byte(text))
		if err != nil || !reflect.DeepEqual(results, slow) {
			t.Errorf("%s: %+v instead of %+v, %v", text, results, slow, err)
		}
	}
	whole := `[{"index":0,"transactionId":"a-b","messageId":"c","status":"queued"}]`
	for n := range whole {
		if results, err := readPushResults([]byte(whole[:n])); err == nil {
			t.Errorf("%s was read as %+v", whole[:n], results)
		}
	}
	for _, text := range []string{whole + "x", `[{"index":-1x}]`, `[{"index":}]`, `{"index":1}`, `[{"index":99999999999999999999}]`} {
		if results, err := readPushResults([]byte(text)); err == nil {
			t.Errorf("%s was read as %+v", text, results)
		}
	}
}
