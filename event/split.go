package event

import (
	"bytes"
	"fmt"
)

// JSON is the media types of JSON and JSON Lines: an object, the elements of an
// array, or an object a line.
var JSON = []Media{
	// What curl says where nobody told it otherwise is taken for JSON; a page whose
	// form says the same is kept out by its origin.
	{Types: []string{"application/json", "application/x-www-form-urlencoded"}, Split: func(r Request) Elements {
		return elements(r.Body, layoutOf(r.Body, false))
	}},
	{
		Types: []string{"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"},
		Split: func(r Request) Elements { return elements(r.Body, lines) },
	},
}

func elements(text []byte, as layout) Elements {
	return Elements{
		Blank: skipSpace(text, 0) == len(text),
		Each:  func(f func(raw []byte, line int) bool) *Broken { return split(text, as, f) },
	}
}

// layout is how the events stand in a body.
type layout uint8

const (
	single layout = iota // one JSON text
	array                // the elements of one JSON array
	lines                // one JSON text a line
)

// layoutOf looks at the beginning of a body. Text of several lines whose first
// line is an object complete in itself is taken for JSON Lines although it was
// not declared so.
func layoutOf(text []byte, declaredLines bool) layout {
	if declaredLines {
		return lines
	}
	at := skipSpace(text, 0)
	if at == len(text) {
		return single
	}
	switch text[at] {
	case '[':
		return array
	case '{':
		end := valueEnd(text, at)
		if end < 0 || bytes.IndexByte(text[at:end], '\n') >= 0 {
			return single
		}
		if next := skipSpace(text, end); next < len(text) && bytes.IndexByte(text[end:next], '\n') >= 0 {
			return lines
		}
	}
	return single
}

// split is [Elements.Each] of a text with that layout.
func split(text []byte, as layout, f func(raw []byte, line int) bool) *Broken {
	switch as {
	case lines:
		for line := 1; len(text) > 0; line++ {
			raw, rest, _ := bytes.Cut(text, []byte{'\n'})
			if raw = bytes.TrimRight(raw, " \t\r"); len(raw) > 0 && !f(raw, line) {
				return nil
			}
			text = rest
		}
		return nil
	case single:
		if raw := bytes.Trim(text, " \t\r\n"); len(raw) > 0 {
			f(raw, 0)
		}
		return nil
	}
	at := skipSpace(text, skipSpace(text, 0)+1) // after the bracket
	if at < len(text) && text[at] == ']' {
		return onlySpace(text, at+1)
	}
	from := 0
	broken := func(format string, args ...any) *Broken {
		return &Broken{from, fmt.Sprintf(format, args...)}
	}
	for n := 0; ; n++ {
		if at == len(text) {
			return broken("the array ends in the middle, after %d elements", n)
		}
		end := valueEnd(text, at)
		if end == at {
			return broken("element %d, at byte %d: a value is missing", n, at)
		}
		if end < 0 {
			return broken("element %d, at byte %d: it has no end", n, at)
		}
		if !f(text[at:end], 0) {
			return nil
		}
		from = end
		at = skipSpace(text, end)
		switch {
		case at < len(text) && text[at] == ']':
			return onlySpace(text, at+1)
		case at < len(text) && text[at] != ',':
			return broken("after element %d, at byte %d: neither a comma nor the end of the array", n, at)
		case at < len(text):
			at = skipSpace(text, at+1)
		}
	}
}

func onlySpace(text []byte, at int) *Broken {
	if at = skipSpace(text, at); at < len(text) {
		return &Broken{at, fmt.Sprintf("at byte %d: text after the end of the array", at)}
	}
	return nil
}

func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r' || text[at] == '\n') {
		at++
	}
	return at
}

// valueEnd returns the end of the value that begins at at, at itself if none
// does, or -1 if it has no end. Brackets are counted, not matched, so that the
// depth costs no memory.
func valueEnd(text []byte, at int) int {
	switch text[at] {
	case '"':
		return stringEnd(text, at)
	case '{', '[':
		for depth := 0; at < len(text); at++ {
			switch text[at] {
			case '"':
				if at = stringEnd(text, at); at < 0 {
					return -1
				}
				at--
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return at + 1
				}
			}
		}
		return -1
	}
	for at < len(text) && bytes.IndexByte([]byte(",]} \t\r\n"), text[at]) < 0 {
		at++
	}
	return at
}

func stringEnd(text []byte, at int) int {
	for at++; at < len(text); at++ {
		switch text[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return -1
}
