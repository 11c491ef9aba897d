package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// match tells why a value does not fit a pattern; empty when it does.
func match(pattern, value any, at string) string {
	wrong := func() string { return fmt.Sprintf("%s is %s and not %s", at, text(value), text(pattern)) }
	switch p := pattern.(type) {
	case map[string]any:
		if len(p) == 1 {
			for test, argument := range p {
				if strings.HasPrefix(test, "$") {
					if fits(test, argument, value, at) {
						return ""
					}
					return wrong()
				}
			}
		}
		object, ok := value.(map[string]any)
		if !ok {
			return wrong()
		}
		for key, one := range p {
			if why := match(one, object[key], at+"/"+key); why != "" {
				return why
			}
		}
		return ""
	case []any:
		list, ok := value.([]any)
		if !ok || len(list) != len(p) {
			return wrong()
		}
		for i := range p {
			if why := match(p[i], list[i], at+"/"+strconv.Itoa(i)); why != "" {
				return why
			}
		}
		return ""
	}
	if reflect.DeepEqual(pattern, value) {
		return ""
	}
	return wrong()
}

func fits(test string, argument, value any, at string) bool {
	number, isNumber := value.(float64)
	list, isList := value.([]any)
	word, isText := value.(string)
	switch test {
	case "$length":
		return isList && float64(len(list)) == argument || isText && float64(len(word)) == argument
	case "$contains":
		if part, ok := argument.(string); isText && ok {
			return strings.Contains(word, part)
		}
		for _, one := range list {
			if match(argument, one, at) == "" {
				return true
			}
		}
		return false
	case "$min":
		return isNumber && number >= argument.(float64)
	case "$max":
		return isNumber && number <= argument.(float64)
	case "$is":
		return kind(value) == argument
	case "$any":
		for _, one := range argument.([]any) {
			if match(one, value, at) == "" {
				return true
			}
		}
		return false
	case "$set":
		wanted := argument.([]any)
		if !isList || len(list) != len(wanted) {
			return false
		}
		taken := make([]bool, len(list))
	next:
		for _, one := range wanted {
			for i := range list {
				if !taken[i] && match(one, list[i], at) == "" {
					taken[i] = true
					continue next
				}
			}
			return false
		}
		return true
	case "$absent":
		return value == nil
	case "$not":
		return match(argument, value, at) != ""
	}
	panic("no pattern: " + test)
}

func kind(value any) string {
	switch value.(type) {
	case string:
		return "string"
	case float64:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "list"
	case map[string]any:
		return "object"
	}
	return "null"
}

// text is a value for people.
func text(value any) string {
	bytes, _ := json.Marshal(value)
	if len(bytes) > 600 {
		return string(bytes[:600]) + "..."
	}
	return string(bytes)
}

// plain makes of anything what encoding/json makes of its JSON.
func plain(value any) any {
	bytes, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	var out any
	if err := json.Unmarshal(bytes, &out); err != nil {
		panic(err)
	}
	return out
}

// pointer finds a place by its JSON pointer.
func pointer(value any, path string) any {
	for _, key := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		switch at := value.(type) {
		case map[string]any:
			value = at[key]
		case []any:
			if n, err := strconv.Atoi(key); err == nil && n < len(at) {
				value = at[n]
				continue
			}
			value = nil
		default:
			return nil
		}
	}
	return value
}

// fill puts names in: $queue, and ${saved}.
func fill(value any, saved map[string]any) any {
	switch v := value.(type) {
	case string:
		if strings.HasPrefix(v, "${") && strings.HasSuffix(v, "}") && strings.Count(v, "${") == 1 {
			return saved[v[2:len(v)-1]]
		}
		for name, one := range saved {
			if word, ok := one.(string); ok {
				v = strings.ReplaceAll(v, "${"+name+"}", word)
			}
		}
		return strings.ReplaceAll(v, "$queue", saved["queue"].(string))
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = fill(v[i], saved)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key := range v {
			out[key] = fill(v[key], saved)
		}
		return out
	}
	return value
}
