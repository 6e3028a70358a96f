// Package visible keeps texts that plugins and clients chose from doing anything
// to a terminal or a log but being read: control characters, escape sequences and
// marks that turn the direction of writing are shown as escapes.
//
// [Writer] stands between the program and its standard output and error, so that
// nothing has to be remembered where something is printed. [Word] and [Line] keep
// a text within its place in a line, which a writer can't know.
package visible

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// longest is how much of a text Word and Line show, in bytes.
const longest = 16 << 10

// Word is a text as one word of a line: what is not a plain word is quoted, an
// empty one is "-".
func Word(s string) string {
	if s == "" {
		return "-"
	}
	if strings.ContainsRune(s, ' ') {
		return strconv.Quote(cut(s))
	}
	return quoteUnless(s, strconv.IsPrint)
}

// Line is a text as a part of one line: quoted if anything in it is neither
// printable nor a tab.
func Line(s string) string {
	return quoteUnless(s, func(r rune) bool { return strconv.IsPrint(r) || r == '\t' })
}

func quoteUnless(s string, fine func(rune) bool) string {
	s = cut(s)
	for i, r := range s {
		if _, size := utf8.DecodeRuneInString(s[i:]); !fine(r) || r == utf8.RuneError && size == 1 {
			return strconv.Quote(s)
		}
	}
	return s
}

func cut(s string) string {
	if len(s) <= longest {
		return s
	}
	at := longest
	for at > 0 && !utf8.RuneStart(s[at]) {
		at--
	}
	return s[:at] + "…"
}

// acts tells whether a character does something else than being seen. Line feed
// and tab are how our own texts are laid out.
func acts(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r))
}

// A Writer writes what it is given, with each character that acts as an escape:
// \u001b, which within a text of JSON or TOML is the same text as before, and a
// byte that is not UTF-8 as \xff. It may be used by several goroutines; one call's
// text stays together.
type Writer struct {
	mu   sync.Mutex
	w    io.Writer
	rest []byte // the beginning of a character
	out  []byte
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write never writes a part of p twice. Its error is that of the writer below.
func (v *Writer) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.rest) == 0 && harmless(p) {
		return v.w.Write(p)
	}
	all := p
	if len(v.rest) > 0 {
		all = append(v.rest, p...)
	}
	v.out = v.out[:0]
	for len(all) > 0 && utf8.FullRune(all) {
		r, size := utf8.DecodeRune(all)
		switch {
		case r == utf8.RuneError && size == 1:
			v.out = fmt.Appendf(v.out, `\x%02x`, all[0])
		case acts(r):
			v.out = fmt.Appendf(v.out, `\u%04x`, r)
		default:
			v.out = append(v.out, all[:size]...)
		}
		all = all[size:]
	}
	v.rest = append([]byte(nil), all...)
	if _, err := v.w.Write(v.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Beside is a writer to the same place that waits for no write of v.
func (v *Writer) Beside() *Writer { return NewWriter(v.w) }

// Flush writes what is left of a character that never came to its end.
func (v *Writer) Flush() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var err error
	for _, b := range v.rest {
		if err == nil {
			_, err = fmt.Fprintf(v.w, `\x%02x`, b)
		}
	}
	v.rest = nil
	return err
}

// harmless tells of ASCII that acts nowhere.
func harmless(p []byte) bool {
	for _, b := range p {
		if b < ' ' && b != '\n' && b != '\t' || b >= 0x7f {
			return false
		}
	}
	return true
}

// Terminal returns the file below w if that is a terminal, for what the program
// itself moves and colours there; nil if it is none.
func Terminal(w io.Writer) *os.File {
	if v, ok := w.(*Writer); ok {
		w = v.w
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// Data returns where bytes go that have to arrive as they are: w itself if it is
// a terminal, else what is below it.
func Data(w io.Writer) io.Writer {
	if v, ok := w.(*Writer); ok && Terminal(v) == nil {
		return v.w
	}
	return w
}
