package journal

import (
	"encoding"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxList is how many elements of a list are written; a log line is no place for a table.
const maxList = 32

// plain makes a value fit for a log: scalars, errors, and what knows how to write
// itself as text. Anything else is named by its type only, so that no configuration
// or message is ever printed wholesale because somebody passed it along.
func plain(v slog.Value) slog.Value {
	v = v.Resolve()
	if v.Kind() != slog.KindAny {
		return v
	}
	return slog.StringValue(plainAny(v.Any()))
}

func plainAny(a any) string {
	if a == nil {
		return ""
	}
	rv := reflect.ValueOf(a)
	// A nil pointer in an interface is typical for "no error" and optional values;
	// calling a method of it may panic.
	if rv.Kind() == reflect.Pointer && rv.IsNil() {
		return ""
	}
	switch a := a.(type) {
	case error:
		return a.Error()
	case fmt.Stringer:
		return a.String()
	case encoding.TextMarshaler:
		if b, err := a.MarshalText(); err == nil {
			return string(b)
		}
	}
	switch rv.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprint(a)
	case reflect.Slice, reflect.Array:
		// Bytes are never text here, and may be a key.
		if rv.Type().Elem().Kind() == reflect.Uint8 {
			break
		}
		n := min(rv.Len(), maxList)
		parts := make([]string, 0, n+1)
		for i := range n {
			parts = append(parts, plainAny(rv.Index(i).Interface()))
		}
		if rv.Len() > n {
			parts = append(parts, fmt.Sprintf("and %d more", rv.Len()-n))
		}
		return strings.Join(parts, " ")
	}
	return "(" + rv.Type().String() + ")"
}

// text is how a value looks in a journal field and in MESSAGE.
func text(v slog.Value) string {
	if v.Kind() == slog.KindTime {
		return v.Time().Format(time.RFC3339Nano)
	}
	return v.String()
}

// quoted is s as it may stand behind key= in a line: what a peer can choose (a
// shutdown communication, RFC 9003) must neither break the line nor reach a terminal
// as control characters.
func quoted(s string) string {
	if s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r)
	}) {
		return strconv.Quote(s)
	}
	return s
}
