package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checker reads one file and collects what is wrong with it.
type checker struct {
	file     string // as the caller named it
	text     string
	partial  bool // a line was taken out for its syntax: absence proves nothing
	problems []Problem
	dir      string   // of the file, for relative paths
	tables   []*table // all that were read, in the order of reading
	owners   []owner  // the keys that name a file of their own
}

func newChecker(file string, data []byte) *checker {
	return &checker{file: file, text: strings.TrimPrefix(string(data), "\ufeff")}
}

// table is one table of the file, present or not.
type table struct {
	c       *checker
	name    string // as in a header: "http.opa"; "" for the top of the file
	at      *node
	present bool
	values  map[string]any
	known   []string
	faulty  map[string]bool
	below   map[string][]*table // one, but for an array of tables
}

func (c *checker) newTable(name string, at *node, present bool, values map[string]any) *table {
	t := &table{c: c, name: name, at: at, present: present, values: values, faulty: map[string]bool{}, below: map[string][]*table{}}
	c.tables = append(c.tables, t)
	return t
}

// sub returns a table that has been read.
func (t *table) sub(key string) *table { return t.below[key][0] }

// set reports whether the file sets the key.
func (t *table) set(key string) bool {
	_, ok := t.values[key]
	return ok
}

// refuse records that the value of a key is not accepted.
func (t *table) refuse(key, suggestion, format string, args ...any) {
	t.faulty[key] = true
	t.c.add(t.at.kid(key).value, suggestion, format, args...)
}

// missing records that a required key is absent.
func (t *table) missing(key, format string, args ...any) {
	t.faulty[key] = true
	if !t.c.partial {
		t.c.add(t.at.key, "", format, args...)
	}
}

// tables returns the tables behind a key. Without array it is one, and an absent one is
// an empty one; else it is an array, whether written with [[headers]] or inline.
func (t *table) tables(key string, array bool) []*table {
	name, v, at := join(t.name, key), t.values[key], t.at.kid(key)
	add := func(at *node, values map[string]any, present bool) {
		t.below[key] = append(t.below[key], t.c.newTable(name, at, present, values))
	}
	if !array {
		values, present := v.(map[string]any)
		if t.set(key) && !present {
			t.refuse(key, "", "%s must be a table, written once as [%s], not %s", key, name, describe(v))
		}
		add(at, values, present)
		return t.below[key]
	}
	switch v := v.(type) {
	case nil:
	case []map[string]any:
		for i, values := range v {
			add(at.item(i), values, true)
		}
	case []any:
		for i, element := range v {
			if values, ok := element.(map[string]any); ok {
				add(at.item(i), values, true)
			} else {
				found{t, key, at.item(i), nil}.refuse("", " must hold tables, not %s", describe(element))
			}
		}
	default:
		t.refuse(key, "", "%s must be an array of tables, each written as [[%s]], not %s", key, name, describe(v))
	}
	return t.below[key]
}

// unknown reports the keys that nothing has read. It runs last, when all names
// of the schema are known, so that a key in the wrong table is told its own.
func (c *checker) unknown() {
	homes := map[string][]string{}
	for _, t := range c.tables {
		for _, key := range t.known {
			if !slices.Contains(homes[key], t.name) {
				homes[key] = append(homes[key], t.name)
			}
		}
	}
	for _, t := range c.tables {
		for _, key := range slices.Sorted(maps.Keys(t.values)) {
			if slices.Contains(t.known, key) {
				continue
			}
			at := t.at.kid(key).key
			home, found := homes[key]
			switch near := Nearest(key, t.known); {
			case near != "":
				c.add(at, near, "unknown key %q", brief(key))
			case found && len(home) == 1 && home[0] == "":
				c.add(at, "", "unknown key %q in [%s]; it belongs above the first [table]", key, t.name)
			case found && len(home) == 1:
				c.add(at, "", "unknown key %q here; it belongs in [%s]", key, home[0])
			default:
				c.add(at, "", "unknown key %q; known here are %s", brief(key), strings.Join(t.known, ", "))
			}
		}
	}
}

// describe names a value of the decoder for a person.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("the text %q", brief(v))
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return fmt.Sprint(v)
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "an array"
	case time.Time:
		return "a date or time"
	default:
		return fmt.Sprintf("a value of type %T", v)
	}
}

// brief shortens a text of the file for a message.
func brief(s string) string { return clip(s, 80) }

// clip shortens a text to at most so many characters.
func clip(s string, most int) string {
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}

// list writes the words of an enumeration.
func list(words []string) string { return all(words, strconv.Quote) }
