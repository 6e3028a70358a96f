package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TOML returns the configuration in effect, every key included, as a file that
// [Parse] reads back to an equal Config wherever it stands. It names the token
// file, never the token, but holds the sinks' config tables as they are: use
// [Config.Redacted] for what others may see.
func (c *Config) TOML() []byte { return []byte(render(c.rows(), "", false)) }

// Redacted returns what [Config.TOML] does, with the texts in the sinks' config
// tables, which may be secrets, replaced by "(redacted)".
func (c *Config) Redacted() string { return render(c.rows(), "", true) }

// render writes the rows of a table. Keys stand before tables, as TOML wants it.
func render(rows []row, table string, hide bool) string {
	var b strings.Builder
	for _, r := range rows {
		if r.nest != nil {
			name, header := join(table, r.name), "[%s]"
			if r.nest.array {
				header = "[[%s]]"
			}
			for _, rows := range r.nest.have() {
				fmt.Fprintf(&b, "\n"+header+"\n%s", name, render(rows, name, hide))
			}
		} else if v := r.get(); v != nil {
			fmt.Fprintf(&b, "%s = %s\n", r.name, written(v, hide && r.secret))
		}
	}
	return b.String()
}

// written returns a value in TOML, its texts only if they are not to be hidden.
func written(v any, hide bool) string {
	switch v := v.(type) {
	case string:
		if hide {
			v = redacted
		}
		return quote(v)
	case []string:
		return "[" + all(v, func(s string) string { return written(s, hide) }) + "]"
	case []any:
		return "[" + all(v, func(e any) string { return written(e, hide) }) + "]"
	case map[string]any:
		return "{" + all(slices.Sorted(maps.Keys(v)), func(k string) string { return quote(k) + " = " + written(v[k], hide) }) + "}"
	case json.RawMessage:
		dec := json.NewDecoder(bytes.NewReader(v))
		dec.UseNumber()
		var object map[string]any
		// A Config that this package made always decodes; one that a caller made
		// may not, and shows as an empty table rather than as broken TOML.
		if err := dec.Decode(&object); err != nil {
			object = nil
		}
		return written(object, hide)
	case json.Number:
		return jsonNumber(v.String())
	case bool, int:
		return fmt.Sprint(v)
	}
	return quote(plain(v))
}

func all[T any](list []T, write func(T) string) string {
	texts := make([]string, len(list))
	for i := range list {
		texts[i] = write(list[i])
	}
	return strings.Join(texts, ", ")
}

// plain writes a value as a person would.
func plain(v any) string {
	switch v := v.(type) {
	case time.Duration:
		return short(v)
	case slog.Level:
		return strings.ToLower(v.String())
	}
	return fmt.Sprint(v)
}

// jsonNumber writes a JSON number so that TOML reads the same value: what does not
// fit an integer, and the negative zero, must look like a float.
func jsonNumber(n string) string {
	if strings.ContainsAny(n, ".eE") {
		return n
	}
	if _, err := strconv.ParseInt(n, 10, 64); err != nil || n == "-0" {
		return n + ".0"
	}
	return n
}

// quote writes a TOML basic string: it has the escapes of JSON, and wants one more.
func quote(s string) string {
	text, _ := asJSON(s)
	return strings.ReplaceAll(text, "\x7f", `\u007F`)
}

// asJSON returns JSON that a person can read, without a final newline.
func asJSON(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}
