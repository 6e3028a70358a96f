package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// checker reads one file and collects what is wrong with it.
type checker struct {
	file     string // as the caller named it
	text     string
	partial  bool // a line was taken out for its syntax: absence proves nothing
	problems []Problem
	tables   []*table         // all that were read, in the order of reading
	claims   map[string]claim // path to the key that names it
}

func newChecker(file string, data []byte) *checker {
	return &checker{
		file:   file,
		text:   strings.TrimPrefix(string(data), "\ufeff"),
		claims: map[string]claim{},
	}
}

// table is one table of the file, present or not. Each method that reads a key
// leaves its target alone when the key is absent or its value is refused.
type table struct {
	c      *checker
	name   string // as in a header: "http.opa"; "" for the top of the file
	at     *node
	values map[string]any
	known  []string
	faulty map[string]bool
}

func (c *checker) newTable(name string, at *node, values map[string]any) *table {
	t := &table{c: c, name: name, at: at, values: values, faulty: map[string]bool{}}
	c.tables = append(c.tables, t)
	return t
}

// set reports whether the file sets the key.
func (t *table) set(key string) bool {
	_, ok := t.values[key]
	return ok
}

// refuse records that the value of a key is not accepted.
func (t *table) refuse(key string, at *node, suggestion, format string, args ...any) {
	t.faulty[key] = true
	t.c.add(at.value, suggestion, format, args...)
}

// missing records that a required key is absent.
func (t *table) missing(key, format string, args ...any) {
	t.faulty[key] = true
	if !t.c.partial {
		t.c.add(t.at.key, "", format, args...)
	}
}

// value returns the value of a key and where it stands.
func (t *table) value(key string) (any, *node, bool) {
	t.known = append(t.known, key)
	v, ok := t.values[key]
	return v, t.at.kid(key), ok
}

// read reads a key whose TOML type is T. want describes what belongs there.
func read[T any](t *table, key, want string, into *T) bool {
	v, at, ok := t.value(key)
	if !ok {
		return false
	}
	typed, ok := v.(T)
	if !ok {
		t.refuse(key, at, "", "%s must be %s, not %s", key, want, describe(v))
		return false
	}
	*into = typed
	return true
}

func (t *table) text(key string, into *string) bool {
	return read(t, key, "a text in quotes", into)
}

func (t *table) flag(key string, into *bool) bool {
	return read(t, key, "true or false, without quotes", into)
}

// number reads a whole number from low to high.
func (t *table) number(key string, low, high int, into *int) {
	var n int64
	if !read(t, key, "a whole number, without quotes", &n) {
		return
	}
	if n < int64(low) || n > int64(high) {
		t.refuse(key, t.at.kid(key), "", "%s must be from %d to %d, not %d", key, low, high, n)
		return
	}
	*into = int(n)
}

// size reads a text such as "64MiB" or a whole number of bytes.
func (t *table) size(key string, low, high Size, into *Size) {
	v, at, ok := t.value(key)
	if !ok {
		return
	}
	var size Size
	switch v := v.(type) {
	case int64:
		size = Size(v)
	case string:
		var err error
		if size, err = ParseSize(v); err != nil {
			t.refuse(key, at, meantSize(v), "%s: %v", key, err)
			return
		}
	default:
		t.refuse(key, at, "", `%s must be a size such as "64MiB" or a number of bytes, not %s`, key, describe(v))
		return
	}
	if size < low || size > high {
		t.refuse(key, at, "", "%s must be from %v to %v, not %v", key, low, high, size)
		return
	}
	*into = size
}

// longest is the largest duration of any key: more is a slip of the unit.
const longest = 24 * time.Hour

// duration reads a text such as "5s".
func (t *table) duration(key string, low time.Duration, into *time.Duration) {
	v, at, ok := t.value(key)
	if !ok {
		return
	}
	text, isText := v.(string)
	if !isText {
		suggestion := ""
		if n, isNumber := v.(int64); isNumber {
			suggestion = meantDuration(fmt.Sprint(n))
		}
		t.refuse(key, at, suggestion, `%s must be a duration in quotes such as "5s", not %s`, key, describe(v))
		return
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.refuse(key, at, meantDuration(text), `%s: %q is not a duration such as "5s" or "1m30s"`, key, text)
		return
	}
	if d < low || d > longest {
		t.refuse(key, at, "", "%s must be from %s to %s, not %s", key, short(low), short(longest), text)
		return
	}
	*into = d
}

// choice reads one of a few words.
func (t *table) choice(key string, words []string, into *string) {
	var word string
	if !read(t, key, "one of "+list(words), &word) {
		return
	}
	if !slices.Contains(words, word) {
		t.refuse(key, t.at.kid(key), Nearest(word, words), "%s must be one of %s, not %q", key, list(words), brief(word))
		return
	}
	*into = word
}

// texts reads an array of texts and hands each to check, which refuses it with
// an error or accepts it. The suggestion goes into the problem.
func (t *table) texts(key string, check func(string) (suggestion string, err error), into *[]string) {
	var values []any
	if !read(t, key, "an array of texts", &values) {
		return
	}
	at := t.at.kid(key)
	texts := []string{}
	for i, v := range values {
		text, ok := v.(string)
		if !ok {
			t.refuse(key, at.item(i), "", "%s must hold texts in quotes, not %s", key, describe(v))
			continue
		}
		if suggestion, err := check(text); err != nil {
			t.refuse(key, at.item(i), suggestion, "%s: %v", key, err)
			continue
		}
		texts = append(texts, text)
	}
	if !t.faulty[key] {
		*into = texts
	}
}

// table reads a table; an absent one is an empty one.
func (t *table) table(key string) *table {
	var values map[string]any
	name := strings.TrimPrefix(t.name+"."+key, ".")
	v, at, ok := t.value(key)
	if ok {
		if values, ok = v.(map[string]any); !ok {
			t.refuse(key, at, "", "%s must be a table, written once as [%s], not %s", key, name, describe(v))
		}
	}
	return t.c.newTable(name, at, values)
}

// tableArray reads an array of tables, whether written with [[headers]] or as
// an array of inline tables.
func (t *table) tableArray(key string) []*table {
	v, at, ok := t.value(key)
	if !ok {
		return nil
	}
	var elements []any
	switch v := v.(type) {
	case []map[string]any:
		for _, element := range v {
			elements = append(elements, element)
		}
	case []any:
		elements = v
	default:
		t.refuse(key, at, "", "%s must be an array of tables, each written as [[%s]], not %s", key, key, describe(v))
		return nil
	}
	var tables []*table
	for i, element := range elements {
		values, ok := element.(map[string]any)
		if !ok {
			t.refuse(key, at.item(i), "", "%s must hold tables, not %s", key, describe(element))
			continue
		}
		tables = append(tables, t.c.newTable(key, at.item(i), values))
	}
	return tables
}

// either returns the place to blame when two accepted values contradict each
// other: that of the first if the file sets it, else that of the second. ok is
// false when one of them has been refused already.
func either(a *table, keyA string, b *table, keyB string) (at *node, ok bool) {
	if a.faulty[keyA] || b.faulty[keyB] {
		return nil, false
	}
	if a.set(keyA) {
		return a.at.kid(keyA), true
	}
	return b.at.kid(keyB), true
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
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
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
func list(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = fmt.Sprintf("%q", word)
	}
	return strings.Join(quoted, ", ")
}
