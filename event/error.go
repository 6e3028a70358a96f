package event

import (
	"fmt"
	"strconv"
	"strings"
)

// shownPath is the number of bytes of a path that an error's text shows.
const shownPath = 256

// shownText is the number of bytes of a client's text that an error repeats.
const shownText = 64

// Error tells why a text or a value was refused, and where.
type Error struct {
	// Path is the place as a JSON pointer (RFC 6901); empty for the value as
	// a whole. A long or unprintable member name is shortened or escaped in it.
	Path string
	// Offset is the place in bytes from the start of the text, or -1 for a
	// value that did not come from a text.
	Offset int
	// Reason says what is wrong and, where it is known, what to do.
	Reason string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString("at ")
		b.WriteString(clip(e.Path, shownPath))
	}
	if e.Offset >= 0 {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString("byte ")
		b.WriteString(strconv.Itoa(e.Offset))
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

func fault(at int, format string, args ...any) *Error {
	return &Error{Offset: at, Reason: fmt.Sprintf(format, args...)}
}

// under puts the place one level deeper: the error arose in the member name.
func (e *Error) under(name string) *Error {
	quoted := strconv.Quote(clip(name, shownText))
	e.Path = "/" + pointerToken.Replace(quoted[1:len(quoted)-1]) + e.Path
	return e
}

var pointerToken = strings.NewReplacer("~", "~0", "/", "~1", `\"`, `"`)

// underIndex puts the place one level deeper: the error arose in that element
// of an array.
func (e *Error) underIndex(i int) *Error {
	e.Path = "/" + strconv.Itoa(i) + e.Path
	return e
}

// clip shortens s to at most limit bytes of whole characters and a mark.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// show quotes a client's text for an error.
func show(s string) string { return strconv.Quote(clip(s, shownText)) }
