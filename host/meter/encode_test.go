package meter_test

import "bytes"

// wasmModule assembles a module for a test: a list of functions of named types,
// at most one memory, and exports of every function by its index and name.
type wasmModule struct {
	types   [][]byte
	imports [][]byte
	funcs   []wasmFunc
	tables  [][]byte // reference type and limits
	memory  []byte   // limits
	globals [][]byte
	start   int // index of the start function plus 1, 0 for none
	elems   [][]byte
	data    [][]byte
	custom  map[string][]byte // sections at the end
}

type wasmFunc struct {
	typ    int
	name   string // exported under it, unless empty
	locals []byte // the encoded vector of declarations, nil for none
	code   []byte // without the final end
}

func leb(v uint64) []byte {
	var out []byte
	for v >= 0x80 {
		out = append(out, byte(v)|0x80)
		v >>= 7
	}
	return append(out, byte(v))
}

func sleb(v int64) []byte {
	var out []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(out, c)
		}
		out = append(out, c|0x80)
	}
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func str(s string) []byte { return cat(leb(uint64(len(s))), []byte(s)) }

func vec(items ...[]byte) []byte { return cat(leb(uint64(len(items))), cat(items...)) }

func sec(id byte, body []byte) []byte { return cat([]byte{id}, leb(uint64(len(body))), body) }

// i32c and i64c are the constant instructions.
func i32c(v int32) []byte { return cat([]byte{0x41}, sleb(int64(v))) }
func i64c(v int64) []byte { return cat([]byte{0x42}, sleb(v)) }

// sig is a function type; value types are written i, l, f, d, v.
func sig(params, results string) []byte {
	conv := map[rune]byte{'i': 0x7f, 'l': 0x7e, 'f': 0x7d, 'd': 0x7c, 'v': 0x7b}
	enc := func(s string) []byte {
		out := leb(uint64(len(s)))
		for _, c := range s {
			out = append(out, conv[c])
		}
		return out
	}
	return cat([]byte{0x60}, enc(params), enc(results))
}

func (m wasmModule) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	if len(m.types) > 0 {
		out = append(out, sec(1, vec(m.types...))...)
	}
	if len(m.imports) > 0 {
		out = append(out, sec(2, vec(m.imports...))...)
	}
	var decl, exports, bodies [][]byte
	for i, f := range m.funcs {
		decl = append(decl, leb(uint64(f.typ)))
		if f.name != "" {
			exports = append(exports, cat(str(f.name), []byte{0}, leb(uint64(len(m.imports)+i))))
		}
		locals := f.locals
		if locals == nil {
			locals = []byte{0}
		}
		body := cat(locals, f.code, []byte{0x0b})
		bodies = append(bodies, cat(leb(uint64(len(body))), body))
	}
	if m.memory != nil {
		exports = append(exports, cat(str("memory"), []byte{2, 0}))
	}
	if len(decl) > 0 {
		out = append(out, sec(3, vec(decl...))...)
	}
	if len(m.tables) > 0 {
		out = append(out, sec(4, vec(m.tables...))...)
	}
	if m.memory != nil {
		out = append(out, sec(5, vec(m.memory))...)
	}
	if len(m.globals) > 0 {
		out = append(out, sec(6, vec(m.globals...))...)
	}
	if len(exports) > 0 {
		out = append(out, sec(7, vec(exports...))...)
	}
	if m.start > 0 {
		out = append(out, sec(8, leb(uint64(m.start-1)))...)
	}
	if len(m.elems) > 0 {
		out = append(out, sec(9, vec(m.elems...))...)
	}
	if len(m.data) > 0 {
		out = append(out, sec(12, leb(uint64(len(m.data))))...)
	}
	if len(bodies) > 0 {
		out = append(out, sec(10, vec(bodies...))...)
	}
	if len(m.data) > 0 {
		out = append(out, sec(11, vec(m.data...))...)
	}
	for name, body := range m.custom {
		out = append(out, sec(0, cat(str(name), body))...)
	}
	return out
}
