package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// json reads a table of any content as a JSON object.
func (t *table) json(key string, into *json.RawMessage) {
	var values map[string]any
	if !read(t, key, "a table", &values) {
		return
	}
	t.plain(key, t.at.kid(key), values)
	if t.faulty[key] {
		return
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(values); err != nil {
		t.refuse(key, t.at.kid(key), "", "%s: %v", key, err)
		return
	}
	*into = bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// plain refuses the values that JSON can't say.
func (t *table) plain(key string, at *node, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			t.plain(key, at.kid(k), v[k])
		}
	case []map[string]any:
		for i := range v {
			t.plain(key, at.item(i), v[i])
		}
	case []any:
		for i := range v {
			t.plain(key, at.item(i), v[i])
		}
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			t.refuse(key, at, "", "%s goes to the plugin as JSON, which has no %v", key, v)
		}
	case time.Time:
		t.refuse(key, at, "", "%s goes to the plugin as JSON, which has no dates: put it in quotes", key)
	}
}

// TOML returns the configuration in effect, every key included, as a file that
// [Parse] reads back to an equal Config wherever it stands. It names the token
// file, never the token, but holds the sinks' config tables as they are: use
// [Config.Redacted] for what others may see.
func (c *Config) TOML() []byte { return c.render(false) }

// Redacted returns what [Config.TOML] does, with the texts in the sinks' config
// tables, which may be secrets, replaced by "(redacted)".
func (c *Config) Redacted() string { return string(c.render(true)) }

func (c *Config) render(hide bool) []byte {
	w := &renderer{}
	c.renderTop(w)
	for _, s := range c.Sinks {
		w.sink(s, hide)
	}
	return w.Bytes()
}

// renderTop writes all but the sinks.
func (c *Config) renderTop(w *renderer) {
	w.key("state_dir", c.StateDir)
	w.key("drain_timeout", c.DrainTimeout)
	w.table("[log]")
	w.key("level", strings.ToLower(c.Log.Level.String()))
	w.key("format", c.Log.Format)
	w.table("[record]")
	w.key("decisions", c.Record.Decisions)
	w.key("plugin_events", c.Record.PluginEvents)
	w.table("[http]")
	h := c.HTTP
	w.key("address", h.Address)
	w.key("token_file", h.TokenFile)
	w.key("max_body", h.MaxBody)
	w.key("max_event", h.MaxEvent)
	w.key("max_connections", h.MaxConnections)
	w.key("read_header_timeout", h.ReadHeaderTimeout)
	w.key("read_timeout", h.ReadTimeout)
	w.key("idle_timeout", h.IdleTimeout)
	w.key("ack_timeout", h.AckTimeout)
	w.table("[http.opa]")
	w.key("agent", h.OPA.Agent)
	w.key("decision", h.OPA.Decision)
	w.key("rule", h.OPA.Rule)
	w.key("reason", h.OPA.Reason)
	w.table("[queue]")
	w.key("backend", c.Queue.Backend)
	w.key("directory", c.Queue.Directory)
	w.key("max_events", c.Queue.MaxEvents)
	w.key("max_bytes", c.Queue.MaxBytes)
	w.key("disk_bytes", c.Queue.DiskBytes)
	w.key("when_full", c.Queue.WhenFull)
	w.table("[signing]")
	if c.Signing.Enabled() {
		w.key("private_key", c.Signing.PrivateKey)
		w.key("public_key", c.Signing.PublicKey)
	}
	w.table("[dead_letters]")
	w.key("path", c.DeadLetters.Path)
	w.key("replay_at_start", c.DeadLetters.ReplayAtStart)
	w.crashes(c.Crashes)
	w.reload(c.Reload)
}

// renderer writes TOML.
type renderer struct{ bytes.Buffer }

func (w *renderer) table(header string) { fmt.Fprintf(w, "\n%s\n", header) }

func (w *renderer) sink(s Sink, hide bool) {
	w.table("[[sink]]")
	w.key("name", s.Name)
	w.key("plugin", s.Plugin.Bundled+s.Plugin.Path)
	w.key("required", s.Required)
	w.key("batch_events", s.BatchEvents)
	w.key("batch_bytes", s.BatchBytes)
	w.key("memory_limit", s.MemoryLimit)
	w.key("deadline", s.Deadline)
	w.key("max_restarts", s.MaxRestarts)
	w.key("restart_window", s.RestartWindow)
	w.WriteString("config = ")
	w.json(s.Config, hide)
	w.WriteByte('\n')
	w.limits(s.Limits)
	w.table("[sink.grant]")
	w.key("now", s.Grant.Now)
	w.key("random", s.Grant.Random)
	if g := s.Grant.SQL; g != nil {
		w.table("[sink.grant.sql]")
		w.key("database", g.Database)
		w.key("create", g.Create)
		w.key("read_only", g.ReadOnly)
		w.key("busy_timeout", g.BusyTimeout)
		w.key("time_limit", g.TimeLimit)
		w.key("max_sql", g.MaxSQL)
		w.key("max_result", g.MaxResult)
		w.key("max_size", g.MaxSize)
	}
	w.grants(s.Grant)
}

func (w *renderer) key(name string, v any) {
	fmt.Fprintf(w, "%s = ", name)
	switch v := v.(type) {
	case string:
		w.WriteString(quote(v))
	case []string:
		quoted := make([]string, len(v))
		for i := range v {
			quoted[i] = quote(v[i])
		}
		fmt.Fprintf(w, "[%s]", strings.Join(quoted, ", "))
	case time.Duration:
		w.WriteString(quote(short(v)))
	case Size:
		w.WriteString(quote(v.String()))
	default: // bool and int look in TOML as they do in Go
		fmt.Fprint(w, v)
	}
	w.WriteByte('\n')
}

// json writes a JSON object as an inline table.
func (w *renderer) json(object json.RawMessage, hide bool) {
	dec := json.NewDecoder(bytes.NewReader(object))
	dec.UseNumber()
	var v map[string]any
	// A Config that this package made always decodes; one that a caller made
	// may not, and shows as an empty table rather than as broken TOML.
	if err := dec.Decode(&v); err != nil {
		v = nil
	}
	w.value(v, hide)
}

func (w *renderer) value(v any, hide bool) {
	switch v := v.(type) {
	case map[string]any:
		w.WriteString("{")
		for i, key := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				w.WriteString(", ")
			}
			w.WriteString(quote(key) + " = ")
			w.value(v[key], hide)
		}
		w.WriteString("}")
	case []any:
		w.WriteString("[")
		for i, element := range v {
			if i > 0 {
				w.WriteString(", ")
			}
			w.value(element, hide)
		}
		w.WriteString("]")
	case string:
		if hide {
			v = redacted
		}
		w.WriteString(quote(v))
	case json.Number:
		w.WriteString(number(v.String()))
	default:
		fmt.Fprint(w, v)
	}
}

// number writes a JSON number so that TOML reads the same value: what does not
// fit an integer, and the negative zero, must look like a float.
func number(n string) string {
	if strings.ContainsAny(n, ".eE") {
		return n
	}
	if _, err := strconv.ParseInt(n, 10, 64); err != nil || n == "-0" {
		return n + ".0"
	}
	return n
}

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case isControl(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
