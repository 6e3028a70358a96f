package event

import (
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// str reads the string whose opening quote is at at. It returns the decoded
// text, whether that lies in side, and the offset behind the closing quote.
func (d *doc) str(at int) (span, bool, int, *Error) {
	in := d.in
	high := byte(0)
	for i := at + 1; i < len(in); i++ {
		c := in[i]
		high |= c
		switch {
		case c == '"':
			if high >= utf8.RuneSelf {
				if err := validUTF8(in, at+1, i); err != nil {
					return span{}, false, 0, err
				}
			}
			return span{int32(at + 1), int32(i)}, false, i + 1, nil
		case c == '\\':
			return d.escaped(at, i)
		case c < ' ':
			return span{}, false, 0, rawControl(i, c)
		}
	}
	return span{}, false, 0, fault(len(in), "the text ends inside a string")
}

// escaped reads the string whose opening quote is at at and whose first
// backslash is at i, and decodes it to side.
func (d *doc) escaped(at, i int) (span, bool, int, *Error) {
	in := d.in
	lo := int32(len(d.side))
	d.side = append(d.side, in[at+1:i]...)
	for i < len(in) {
		switch c := in[i]; {
		case c == '"':
			// Escapes are ASCII and stand for whole characters, so the raw
			// text is valid exactly when the decoded text is.
			if err := validUTF8(in, at+1, i); err != nil {
				return span{}, false, 0, err
			}
			return span{lo, int32(len(d.side))}, true, i + 1, nil
		case c == '\\':
			r, size, err := unescape(in, i)
			if err != nil {
				return span{}, false, 0, err
			}
			d.side = utf8.AppendRune(d.side, r)
			i += size
		case c < ' ':
			return span{}, false, 0, rawControl(i, c)
		default:
			d.side = append(d.side, c)
			i++
		}
	}
	return span{}, false, 0, fault(len(in), "the text ends inside a string")
}

// unescape reads the escape whose backslash is at i and returns its character
// and its length in bytes.
func unescape(in []byte, i int) (rune, int, *Error) {
	if i+1 >= len(in) {
		return 0, 0, fault(len(in), "the text ends inside a string")
	}
	switch c := in[i+1]; c {
	case '"', '\\', '/':
		return rune(c), 2, nil
	case 'b':
		return '\b', 2, nil
	case 'f':
		return '\f', 2, nil
	case 'n':
		return '\n', 2, nil
	case 'r':
		return '\r', 2, nil
	case 't':
		return '\t', 2, nil
	case 'u':
	default:
		return 0, 0, fault(i, "%s is no escape of JSON", show(string(in[i:i+2])))
	}
	r, ok := hex4(in, i+2)
	if !ok {
		return 0, 0, fault(i, `\u must be followed by four hexadecimal digits`)
	}
	if !utf16.IsSurrogate(r) {
		return r, 6, nil
	}
	if i+7 < len(in) && in[i+6] == '\\' && in[i+7] == 'u' {
		if low, ok := hex4(in, i+8); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 12, nil
			}
		}
	}
	return 0, 0, fault(i, `\u%04x is half of a surrogate pair without the other half`, r)
}

func hex4(in []byte, i int) (rune, bool) {
	if i+4 > len(in) {
		return 0, false
	}
	var r rune
	for _, c := range in[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func rawControl(at int, c byte) *Error {
	return fault(at, `the control character U+%04X stands raw in a string; write \u%04x`, c, c)
}

// validUTF8 refuses in[lo:hi] at its first byte that is not UTF-8.
func validUTF8(in []byte, lo, hi int) *Error {
	if utf8.Valid(in[lo:hi]) {
		return nil
	}
	lo += invalidUTF8(string(in[lo:hi]))
	return fault(lo, "invalid UTF-8 (byte 0x%02x)", in[lo])
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, -1 when
// there is none.
func invalidUTF8(s string) int {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// appendText writes a string with its quotes. Only a text that is marked so
// can hold characters to escape.
func appendText(dst, text []byte, escape bool) []byte {
	dst = append(dst, '"')
	if escape {
		for _, c := range text {
			dst = appendEscaped(dst, c)
		}
	} else {
		dst = append(dst, text...)
	}
	return append(dst, '"')
}

// appendString writes a string of Go, which must be valid UTF-8, with its
// quotes.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			dst = append(dst, s[from:i]...)
			dst = appendEscaped(dst, c)
			from = i + 1
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

func appendEscaped(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	if c < ' ' {
		const hex = "0123456789abcdef"
		return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
	}
	return append(dst, c)
}

// textFault says what is wrong with a text of a client, "" when nothing is.
// The text must be UTF-8 of least to most bytes without control characters,
// those in except aside.
func textFault[T string | []byte](s T, least, most int, except string) string {
	if len(s) < least {
		return "is empty"
	}
	if len(s) > most {
		return fmt.Sprintf("is %d bytes long; at most %d are taken", len(s), most)
	}
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if ' ' <= r && r < 0x7f {
			i++
			continue
		}
		if r >= utf8.RuneSelf {
			if r, size = utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))])); r == utf8.RuneError && size == 1 {
				return fmt.Sprintf("is not valid UTF-8 (at its byte %d)", i)
			}
		}
		if (r < ' ' || 0x7f <= r && r <= 0x9f) && !strings.ContainsRune(except, r) {
			return fmt.Sprintf("holds the control character U+%04X (at its byte %d); remove it", r, i)
		}
		i += size
	}
	return ""
}
