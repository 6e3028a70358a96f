// Package wasmtest makes WebAssembly modules for the tests of the host, its meter
// and its conformance kit: small ones are assembled by hand, whatever a test needs
// can be encoded, valid or not, and nothing is checked; large ones are compiled
// from Go.
package wasmtest

import (
	"bytes"
	"maps"
	"slices"
)

// Module is a module: functions of listed types, at most one memory, which is
// exported as "memory", and every named function is exported.
type Module struct {
	Types   [][]byte
	Imports [][]byte // names of less than 128 bytes
	Funcs   []Func
	Tables  [][]byte // reference type and limits
	Memory  []byte   // limits
	Globals [][]byte
	Start   int // index of the start function plus 1, 0 for none
	Elems   [][]byte
	Data    [][]byte
	Custom  map[string][]byte // sections at the end
}

// Func is a function of a Module.
type Func struct {
	Type   int    // index into the module's Types
	Name   string // exported under it, unless empty
	Locals []byte // the encoded vector of declarations, nil for none
	Code   []byte // without the final end
}

// U encodes an unsigned number (LEB128).
func U(v uint64) []byte {
	var out []byte
	for v >= 0x80 {
		out = append(out, byte(v)|0x80)
		v >>= 7
	}
	return append(out, byte(v))
}

// S encodes a signed number (LEB128).
func S(v int64) []byte {
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

// Cat joins parts.
func Cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// Str encodes a name.
func Str(s string) []byte { return Cat(U(uint64(len(s))), []byte(s)) }

// Vec encodes a vector of encoded items.
func Vec(items ...[]byte) []byte { return Cat(U(uint64(len(items))), Cat(items...)) }

// Section encodes a section.
func Section(id byte, body []byte) []byte { return Cat([]byte{id}, U(uint64(len(body))), body) }

// I32 and I64 are the constant instructions.
func I32(v int32) []byte { return Cat([]byte{0x41}, S(int64(v))) }
func I64(v int64) []byte { return Cat([]byte{0x42}, S(v)) }

// Sig is a function type; value types are written i, l, f, d, v.
func Sig(params, results string) []byte {
	conv := map[rune]byte{'i': 0x7f, 'l': 0x7e, 'f': 0x7d, 'd': 0x7c, 'v': 0x7b}
	enc := func(s string) []byte {
		out := U(uint64(len(s)))
		for _, c := range s {
			out = append(out, conv[c])
		}
		return out
	}
	return Cat([]byte{0x60}, enc(params), enc(results))
}

// Bytes encodes the module.
func (m Module) Bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	if len(m.Types) > 0 {
		out = append(out, Section(1, Vec(m.Types...))...)
	}
	if len(m.Imports) > 0 {
		out = append(out, Section(2, Vec(m.Imports...))...)
	}
	imported := 0 // functions
	for _, i := range m.Imports {
		// Two names of less than 128 bytes, then the kind.
		if i = i[1+i[0]:]; i[1+i[0]] == 0 {
			imported++
		}
	}
	var decl, exports, bodies [][]byte
	for i, f := range m.Funcs {
		decl = append(decl, U(uint64(f.Type)))
		if f.Name != "" {
			exports = append(exports, Cat(Str(f.Name), []byte{0}, U(uint64(imported+i))))
		}
		locals := f.Locals
		if locals == nil {
			locals = []byte{0}
		}
		body := Cat(locals, f.Code, []byte{0x0b})
		bodies = append(bodies, Cat(U(uint64(len(body))), body))
	}
	if m.Memory != nil {
		exports = append(exports, Cat(Str("memory"), []byte{2, 0}))
	}
	if len(decl) > 0 {
		out = append(out, Section(3, Vec(decl...))...)
	}
	if len(m.Tables) > 0 {
		out = append(out, Section(4, Vec(m.Tables...))...)
	}
	if m.Memory != nil {
		out = append(out, Section(5, Vec(m.Memory))...)
	}
	if len(m.Globals) > 0 {
		out = append(out, Section(6, Vec(m.Globals...))...)
	}
	if len(exports) > 0 {
		out = append(out, Section(7, Vec(exports...))...)
	}
	if m.Start > 0 {
		out = append(out, Section(8, U(uint64(m.Start-1)))...)
	}
	if len(m.Elems) > 0 {
		out = append(out, Section(9, Vec(m.Elems...))...)
	}
	if len(m.Data) > 0 {
		out = append(out, Section(12, U(uint64(len(m.Data))))...)
	}
	if len(bodies) > 0 {
		out = append(out, Section(10, Vec(bodies...))...)
	}
	if len(m.Data) > 0 {
		out = append(out, Section(11, Vec(m.Data...))...)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Custom)) {
		out = append(out, Section(0, Cat(Str(name), m.Custom[name]))...)
	}
	return out
}
