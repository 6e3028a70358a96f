package meter_test

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
)

// specValue is an argument or an expected result. Numbers are decimal strings
// of their bits; "nan:canonical" and "nan:arithmetic" stand for sets.
type specValue struct {
	Type  string          `json:"type"`
	Lane  string          `json:"lane_type"`
	Value json.RawMessage `json:"value"`
}

var laneBits = map[string]int{
	"i8": 8, "i16": 16, "i32": 32, "i64": 64, "f32": 32, "f64": 64,
	"externref": 64, "funcref": 64,
}

// lanes gives the width and the texts of a value's parts, one for a scalar.
func (v specValue) lanes() (bits int, texts []string) {
	if v.Type == "v128" {
		if json.Unmarshal(v.Value, &texts) != nil {
			return 0, nil
		}
		return laneBits[v.Lane], texts
	}
	var s string
	if len(v.Value) > 0 && json.Unmarshal(v.Value, &s) != nil {
		return 0, nil
	}
	return laneBits[v.Type], []string{s}
}

// word gives the bits of one part. The runtime takes an externref for an
// address, so that 0 has to stand for null only.
func (v specValue) word(bits int, s string) uint64 {
	if s == "null" || s == "" {
		return 0
	}
	if n, err := strconv.ParseInt(s, 10, bits); err == nil && n < 0 {
		return uint64(n) & (math.MaxUint64 >> (64 - bits))
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		panic("argument " + s)
	}
	if v.Type == "externref" {
		n++
	}
	return n
}

func (v specValue) words() []uint64 {
	bits, texts := v.lanes()
	if v.Type != "v128" {
		return []uint64{v.word(bits, texts[0])}
	}
	out := make([]uint64, 2)
	for i, s := range texts {
		at := i * bits
		out[at/64] |= v.word(bits, s) << (at % 64)
	}
	return out
}

// match tells whether words, one or two, are what is expected.
func (v specValue) match(words []uint64) bool {
	if strings.HasSuffix(v.Type, "ref") && len(v.Value) == 0 {
		return true // any reference
	}
	bits, texts := v.lanes()
	if v.Type == "funcref" {
		return (words[0] == 0) == (texts[0] == "null")
	}
	for i, s := range texts {
		at := i * bits
		got := words[at/64] >> (at % 64) & (math.MaxUint64 >> (64 - bits))
		if strings.HasPrefix(s, "nan:") {
			if !matchNaN(s, bits, got) {
				return false
			}
		} else if got != v.word(bits, s) {
			return false
		}
	}
	return true
}

func matchNaN(s string, bits int, got uint64) bool {
	quiet := uint64(0x7fc00000)
	sign := uint64(1) << 31
	if bits == 64 {
		quiet, sign = 0x7ff8000000000000, 1<<63
	}
	if s == "nan:canonical" {
		return got&^sign == quiet
	}
	return got&quiet == quiet
}

// holds tells whether the outcome is the one the command expects.
func (c specCommand) holds(o outcome) bool {
	switch c.Type {
	case "action":
		return o.trap == ""
	case "assert_trap":
		return o.trap != "" && strings.Contains(o.trap, specTrap(c.Text))
	case "assert_exhaustion":
		return strings.Contains(o.trap, "stack overflow")
	}
	if o.trap != "" {
		return false
	}
	pos := 0
	for _, want := range c.Expected {
		size := 1
		if want.Type == "v128" {
			size = 2
		}
		if pos+size > len(o.values) || !want.match(o.values[pos:pos+size]) {
			return false
		}
		pos += size
	}
	return pos == len(o.values)
}

// specTrap is what the runtime says where the suite says text.
func specTrap(text string) string {
	switch {
	case strings.HasPrefix(text, "indirect call"):
		return "indirect call type mismatch"
	case strings.HasPrefix(text, "undefined"), strings.HasPrefix(text, "uninitialized"), text == "out of bounds table access":
		return "invalid table access"
	}
	return text
}

func equalWords(a, b []uint64) bool { return slices.Equal(a, b) }
