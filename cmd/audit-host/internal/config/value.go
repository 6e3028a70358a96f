package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// value is what a key holds: one of the kinds below, bound to where it is kept.
type value struct {
	kind  string // what may be written, for the reference page
	reset func() // to the default
	read  func(found)
	get   func() any // as written shows it; nil if there is nothing to show
}

// file is a path, so that it can be told from other texts.
type file string

// found is a key that the file sets.
type found struct {
	t   *table
	key string
	at  *node
	v   any
}

// refuse says behind the key's name why its value is not accepted.
func (f found) refuse(suggestion, format string, args ...any) {
	f.t.faulty[f.key] = true
	f.t.c.add(f.at.value, suggestion, "%s", f.key+fmt.Sprintf(format, args...))
}

// as returns the value if its TOML type is T. want describes what belongs there.
func as[T any](f found, want string) (T, bool) {
	typed, ok := f.v.(T)
	if !ok {
		f.refuse("", " must be %s, not %s", want, describe(f.v))
	}
	return typed, ok
}

// of makes a value of a function that reads it or refuses it.
func of[T any](into *T, def T, kind string, read func(found) (T, bool)) value {
	return value{
		kind:  kind,
		reset: func() { *into = def },
		read: func(f found) {
			if v, ok := read(f); ok {
				*into = v
			}
		},
		get: func() any { return *into },
	}
}

func flag(into *bool, def bool) value {
	return of(into, def, "true or false", func(f found) (bool, bool) { return as[bool](f, "true or false, without quotes") })
}

// bounded makes a value from low to high.
func bounded[T int | Size | time.Duration](into *T, def, low, high T, kind string, read func(found) (T, bool)) value {
	kind = fmt.Sprintf("%s, %s to %s", kind, plain(low), plain(high))
	return of(into, def, kind, func(f found) (T, bool) {
		v, ok := read(f)
		if ok && (v < low || v > high) {
			f.refuse("", " must be from %s to %s, not %s", plain(low), plain(high), plain(v))
			return v, false
		}
		return v, ok
	})
}

// number is a whole one.
func number(into *int, def, low, high int) value {
	return bounded(into, def, low, high, "number", func(f found) (int, bool) {
		n, ok := as[int64](f, "a whole number, without quotes")
		return int(n), ok
	})
}

// size is a text such as "64MiB" or a whole number of bytes.
func size(into *Size, def, low, high Size) value {
	return bounded(into, def, low, high, "size", func(f found) (Size, bool) {
		switch v := f.v.(type) {
		case int64:
			return Size(v), true
		case string:
			s, err := ParseSize(v)
			if err != nil {
				f.refuse(meantSize(v), ": %v", err)
			}
			return s, err == nil
		}
		f.refuse("", ` must be a size such as "64MiB" or a number of bytes, not %s`, describe(f.v))
		return 0, false
	})
}

// longest is the largest duration of any key: more is a slip of the unit.
const longest = 24 * time.Hour

// duration is a text such as "5s".
func duration(into *time.Duration, def, low time.Duration) value {
	return bounded(into, def, low, longest, "duration", func(f found) (time.Duration, bool) {
		text, ok := f.v.(string)
		if !ok {
			f.refuse(meantDuration(fmt.Sprint(f.v)), ` must be a duration in quotes such as "5s", not %s`, describe(f.v))
			return 0, false
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			f.refuse(meantDuration(text), `: %q is not a duration such as "5s" or "1m30s"`, text)
		}
		return d, err == nil
	})
}

// check accepts a text, or returns what is said behind the key's name against it,
// with what was probably meant.
type check func(text string) (suggestion, fault string)

func text(into *string, def string, accept check) value {
	return of(into, def, "text", func(f found) (string, bool) {
		s, ok := as[string](f, "a text in quotes")
		return s, ok && f.accepted(s, accept)
	})
}

func (f found) accepted(text string, accept check) bool {
	if accept != nil {
		if suggestion, fault := accept(text); fault != "" {
			f.refuse(suggestion, "%s", fault)
			return false
		}
	}
	return true
}

// choice is one of a few words.
func choice(into *string, def string, words ...string) value {
	return of(into, def, "one of "+list(words), func(f found) (string, bool) { return f.word(words) })
}

func (f found) word(words []string) (string, bool) {
	word, ok := as[string](f, "one of "+list(words))
	if ok && !slices.Contains(words, word) {
		f.refuse(Nearest(word, words), " must be one of %s, not %q", list(words), brief(word))
		return "", false
	}
	return word, ok
}

// level is the choice of a log level.
func level(into *slog.Level, def slog.Level) value {
	words := []string{"debug", "info", "warn", "error"}
	return of(into, def, "one of "+list(words), func(f found) (l slog.Level, ok bool) {
		word, ok := f.word(words)
		return l, ok && l.UnmarshalText([]byte(word)) == nil
	})
}

// texts is an array of texts, each of which is accepted. needed is said of an empty
// one; without it it may be empty.
func texts(into *[]string, accept check, needed string, def ...string) value {
	return of(into, def, "array of texts", func(f found) ([]string, bool) {
		values, ok := as[[]any](f, "an array of texts")
		texts := def[:0:0] // nil if that is the default
		for i, v := range values {
			item := found{f.t, f.key, f.at.item(i), v}
			text, isText := v.(string)
			if !isText {
				item.refuse("", " must hold texts in quotes, not %s", describe(v))
			}
			ok = isText && item.accepted(text, accept) && ok
			texts = append(texts, text)
		}
		if ok && len(texts) == 0 && needed != "" {
			f.refuse("", "%s", needed)
			ok = false
		}
		return texts, ok
	})
}

// subset is an array of distinct words, at least one.
func subset(into *[]string, def []string, words ...string) value {
	seen := map[string]bool{}
	v := texts(into, func(word string) (suggestion, fault string) {
		switch {
		case !slices.Contains(words, word):
			return Nearest(word, words), fmt.Sprintf(": %q is not one of %s", brief(word), list(words))
		case seen[word]:
			return "", fmt.Sprintf(": %q is there twice", word)
		}
		seen[word] = true
		return "", ""
	}, " must not be empty: name at least one of "+list(words), def...)
	v.kind = "some of " + list(words)
	return v
}

// path is a text that is made absolute, unless it is empty.
func path(into *string, def string, accept check) value {
	v := of(into, def, "path", func(f found) (string, bool) {
		s, ok := as[string](f, "a text in quotes")
		if !ok || !f.accepted(s, accept) || s == "" {
			return "", ok
		}
		return f.path(s)
	})
	v.get = func() any { return file(*into) }
	return v
}

func (f found) path(path string) (string, bool) {
	if strings.ContainsFunc(path, isControl) {
		f.refuse("", " must not hold control characters")
		return "", false
	}
	return absolute(f.t.c.dir, path), true
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// unlessZero has nothing shown of a value that can't be written.
func unlessZero(v value) value {
	get := v.get
	v.get = func() any {
		if v := get(); v != any(0) && v != any(file("")) {
			return v
		}
		return nil
	}
	return v
}

// plugin is a name or a path: a text with a separator or ending in .wasm is a path.
func plugin(into *Plugin) value {
	v := of(into, Plugin{}, "text", func(f found) (p Plugin, ok bool) {
		name, ok := as[string](f, "a text in quotes")
		switch {
		case !ok:
		case filepath.Base(name) != name && strings.ContainsAny(name, `/`+string(filepath.Separator)) || strings.HasSuffix(name, ".wasm"):
			p.Path, ok = f.path(name)
		case !slices.Contains(BundledPlugins(), name):
			f.refuse(Nearest(name, BundledPlugins()), " must be one of %s, or a path with a / or ending in .wasm, not %q",
				list(BundledPlugins()), brief(name))
			ok = false
		default:
			p.Bundled = name
		}
		return p, ok
	})
	v.get = func() any { return into.Bundled + into.Path }
	return v
}

// object is a table of any content, kept as JSON.
func object(into *json.RawMessage) value {
	return of(into, json.RawMessage("{}"), "table", func(f found) (json.RawMessage, bool) {
		values, ok := as[map[string]any](f, "a table")
		if !ok || !f.speakable(f.at, values) {
			return nil, false
		}
		text, err := asJSON(values)
		if err != nil {
			f.refuse("", ": %v", err)
		}
		return json.RawMessage(text), err == nil
	})
}

// speakable refuses the values that JSON can't say.
func (f found) speakable(at *node, v any) (ok bool) {
	f.at, ok = at, true
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			ok = f.speakable(at.kid(k), v[k]) && ok
		}
	case []map[string]any:
		for i := range v {
			ok = f.speakable(at.item(i), v[i]) && ok
		}
	case []any:
		for i := range v {
			ok = f.speakable(at.item(i), v[i]) && ok
		}
	case float64:
		if ok = !math.IsInf(v, 0) && !math.IsNaN(v); !ok {
			f.refuse("", " goes to the plugin as JSON, which has no %v", v)
		}
	case time.Time:
		ok = false
		f.refuse("", " goes to the plugin as JSON, which has no dates: put it in quotes")
	}
	return ok
}
