package meter

import (
	"fmt"
	"unicode/utf8"
)

// reader decodes a module in place. Positions are offsets into the whole
// module, so an error can name the byte. The first error sticks: every later
// read returns zero values, and loops end because count and more report
// nothing left.
type reader struct {
	b    []byte
	pos  int
	end  int
	fn   int // index of the function being read, -1 outside of bodies
	fail *Error
}

func (r *reader) errorf(at int, format string, args ...any) {
	if r.fail == nil {
		r.fail = &Error{Offset: at, Func: r.fn, Reason: fmt.Sprintf(format, args...)}
	}
	r.pos = r.end
}

func (r *reader) limit(at int, name string, format string, args ...any) {
	r.errorf(at, format, args...)
	if r.fail.Limit == "" {
		r.fail.Limit = name
	}
}

func (r *reader) more() bool { return r.fail == nil && r.pos < r.end }

func (r *reader) byte(what string) byte {
	if r.pos >= r.end {
		r.errorf(r.pos, "%s: unexpected end", what)
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

func (r *reader) bytes(n int, what string) []byte {
	if n < 0 || n > r.end-r.pos {
		r.errorf(r.pos, "%s: %d bytes wanted, %d left", what, n, r.end-r.pos)
		return nil
	}
	s := r.b[r.pos : r.pos+n]
	r.pos += n
	return s
}

// u32 reads an unsigned LEB128 of at most 32 bits. Encodings longer than
// needed are valid up to 5 bytes.
func (r *reader) u32(what string) uint32 {
	at := r.pos
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte(what)
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if v>>32 != 0 {
				r.errorf(at, "%s: integer too large for 32 bits", what)
				return 0
			}
			return uint32(v)
		}
	}
	r.errorf(at, "%s: LEB128 longer than 5 bytes", what)
	return 0
}

// sint reads a signed LEB128 of the given width (32, 33 or 64 bits) and checks
// that the unused bits of the last byte repeat the sign.
func (r *reader) sint(bits int, what string) int64 {
	at := r.pos
	var v int64
	for shift := 0; shift < bits; shift += 7 {
		c := r.byte(what)
		v |= int64(c&0x7f) << shift
		if left := bits - shift; left < 7 {
			top := int8(c<<1) >> left // the sign bit and all bits above it
			if c < 0x80 && top != 0 && top != -1 {
				r.errorf(at, "%s: integer too large for %d bits", what, bits)
				return 0
			}
		}
		if c < 0x80 {
			if used := shift + 7; used < 64 {
				v = v << (64 - used) >> (64 - used)
			}
			return v
		}
	}
	r.errorf(at, "%s: LEB128 too long for %d bits", what, bits)
	return 0
}

// count reads the length of a vector whose elements take at least one byte
// each. A length that the rest of the section cannot hold is refused here,
// before anyone allocates by it.
func (r *reader) count(what string) int {
	at := r.pos
	n := r.u32(what)
	if int64(n) > int64(r.end-r.pos) {
		r.errorf(at, "%s: %d announced, %d bytes left", what, n, r.end-r.pos)
		return 0
	}
	return int(n)
}

// maxName bounds the names of imports, exports and custom sections, which can't
// be cut.
const maxName = 1024

// name reads such a name.
func (r *reader) name(what string) string {
	at := r.pos
	s := r.text(what)
	if len(s) > maxName {
		r.limit(at, limitName, "%s of %d bytes is longer than %d", what, len(s), maxName)
		return ""
	}
	return string(s)
}

// text reads a text of any length.
func (r *reader) text(what string) []byte {
	n := r.count(what)
	at := r.pos
	s := r.bytes(n, what)
	if !utf8.Valid(s) {
		r.errorf(at, "%s: not UTF-8", what)
		return nil
	}
	return s
}

// index reads an index and checks it against the size of its space in the
// module as it came: what the rewriting appends must stay out of its reach.
func (r *reader) index(space string, size int) int {
	at := r.pos
	v := r.u32(space + " index")
	if int64(v) >= int64(size) {
		r.errorf(at, "%s index %d out of range, the module has %d", space, v, size)
		return 0
	}
	return int(v)
}

// sub gives a reader for the next n bytes and steps over them.
func (r *reader) sub(n int, what string) reader {
	start := r.pos
	r.bytes(n, what)
	if r.fail != nil {
		return reader{b: r.b, pos: r.end, end: r.end, fn: r.fn, fail: r.fail}
	}
	return reader{b: r.b, pos: start, end: start + n, fn: r.fn}
}

func appendU32(dst []byte, v uint32) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func appendS64(dst []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(dst, c)
		}
		dst = append(dst, c|0x80)
	}
}

func appendName(dst []byte, s string) []byte {
	return append(appendU32(dst, uint32(len(s))), s...)
}
