package meter_test

import (
	"bytes"
	"fmt"
	"strings"
)

// shape is a function that is dear to compile in one way, a and b are its two
// dimensions. It may add types and globals to the module.
type shape struct {
	name string
	make func(m *wasmModule, a, b int) wasmFunc
	a    int // of the seed: the dimension that does not grow
}

func times(n int, code ...[]byte) []byte { return bytes.Repeat(cat(code...), n) }

// each joins what f gives for the numbers below n.
func each(n int, f func(i int) []byte) []byte {
	var out bytes.Buffer
	for i := range n {
		out.Write(f(i))
	}
	return out.Bytes()
}

func getLocal(i int) []byte { return cat([]byte{0x20}, leb(uint64(i))) }
func setLocal(i int) []byte { return cat([]byte{0x21}, leb(uint64(i))) }
func longs(n int) []byte    { return vec(cat(leb(uint64(n)), []byte{0x7e})) }

// sumLocals reads locals 1 to n.
func sumLocals(n int) []byte {
	return cat(i64c(0), each(n, func(i int) []byte { return cat(getLocal(i+1), []byte{0x85}) }), []byte{0x1a})
}

// setLocals gives locals 1 to n a value each.
func setLocals(n int) []byte {
	return each(n, func(i int) []byte { return cat(getLocal(0), []byte{0xad}, setLocal(i+1)) })
}

// typ adds a type of so many numbers in and out.
func typ(m *wasmModule, in, out int) int {
	m.Types = append(m.Types, sig(strings.Repeat("i", in), strings.Repeat("i", out)))
	return len(m.Types) - 1
}

func globals(m *wasmModule, n int) {
	for len(m.Globals) < n {
		m.Globals = append(m.Globals, cat([]byte{0x7e, 1}, i64c(1), []byte{0x0b}))
	}
}

// Types 0 and 1 of the module are (i32) -> () and () -> (); function 0 is of type 1.
func plain(locals, code []byte) wasmFunc { return wasmFunc{Locals: locals, Code: code} }

var (
	brIf0  = cat(getLocal(0), []byte{0x0d, 0})
	emptyI = cat(getLocal(0), []byte{0x04, 0x40, 0x0b})
	end    = []byte{0x0b}
)

var shapes = []shape{
	{"locals at loops", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(a), cat(setLocals(a), times(b, []byte{0x03, 0x40}, brIf0, end), sumLocals(a)))
	}, 300},
	{"locals at nested loops", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(a), cat(times(b, []byte{0x03, 0x40}), sumLocals(a), times(b, brIf0, end)))
	}, 100},
	{"locals set in nested loops", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(a), cat(times(b, []byte{0x03, 0x40}), each(a, func(i int) []byte {
			return cat(getLocal(i+1), getLocal(1+(i+1)%a), []byte{0x7c}, setLocal(i+1))
		}), times(b, brIf0, end)))
	}, 100},
	{"locals over branches", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(a), cat(setLocals(a), []byte{0x02, 0x40}, times(b, brIf0), end, sumLocals(a)))
	}, 300},
	{"locals over ifs", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(a), cat(setLocals(a), each(b, func(i int) []byte {
			return cat(getLocal(0), []byte{0x04, 0x40}, i64c(5), setLocal(1+i%a), end)
		}), sumLocals(a)))
	}, 300},
	{"locals over nested ifs", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(a), cat(setLocals(a), times(b, getLocal(0), []byte{0x04, 0x40}), i64c(1), setLocal(1), sumLocals(a), times(b, end), sumLocals(a)))
	}, 300},
	{"operands over ifs", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(nil, cat(times(a, getLocal(0), i32c(7), []byte{0x6c}), times(b, emptyI), times(a, []byte{0x1a})))
	}, 1000},
	{"jump tables", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(nil, times(max(a, 1), []byte{0x02, 0x40}, getLocal(0), []byte{0x0e}, leb(uint64(b)), make([]byte, b+1), end))
	}, 1},
	{"jump table over blocks with locals", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(a), cat(setLocals(a), []byte{0x03, 0x40}, times(b, []byte{0x02, 0x40}), getLocal(0), []byte{0x0e}, leb(uint64(b)),
			each(b+1, func(i int) []byte { return leb(uint64(min(i, b-1))) }),
			each(b, func(i int) []byte {
				return cat(end, getLocal(1+(i+1)%a), setLocal(1+i%a), getLocal(0), []byte{0x0d}, leb(uint64(b-1-i)))
			}), end, sumLocals(a)))
	}, 100},
	{"calls with results", func(m *wasmModule, a, b int) wasmFunc {
		t := typ(m, 0, a)
		m.Funcs = append(m.Funcs, wasmFunc{Type: t, Code: []byte{0}})
		return plain(nil, cat(times(b, []byte{0x10}, leb(uint64(len(m.Funcs)-1))), []byte{0}))
	}, 1000},
	{"calls with parameters", func(m *wasmModule, a, b int) wasmFunc {
		t := typ(m, a, 0)
		m.Funcs = append(m.Funcs, wasmFunc{Type: t})
		return plain(nil, cat([]byte{0x02}, leb(uint64(typ(m, 0, a))), times(a, getLocal(0)), end,
			times(b, []byte{0x10}, leb(uint64(len(m.Funcs)-1)), times(a, getLocal(0))), []byte{0}))
	}, 100},
	{"indirect calls", func(m *wasmModule, a, b int) wasmFunc {
		t := typ(m, 0, a)
		return plain(nil, cat(times(b, getLocal(0), []byte{0x11}, leb(uint64(t)), []byte{0}), []byte{0}))
	}, 1000},
	{"blocks with values", func(m *wasmModule, a, b int) wasmFunc {
		t := leb(uint64(typ(m, a, a)))
		return plain(nil, cat(times(a, getLocal(0)), times(b, []byte{0x02}, t, end), times(a, []byte{0x1a})))
	}, 1000},
	{"loops with values", func(m *wasmModule, a, b int) wasmFunc {
		t := leb(uint64(typ(m, a, a)))
		return plain(nil, cat(times(a, getLocal(0)), times(b, []byte{0x03}, t, brIf0, end), times(a, []byte{0x1a})))
	}, 100},
	{"ifs with values", func(m *wasmModule, a, b int) wasmFunc {
		t := leb(uint64(typ(m, a, a)))
		return plain(nil, cat(times(a, getLocal(0)), times(b, getLocal(0), []byte{0x04}, t, []byte{0x05}, end), times(a, []byte{0x1a})))
	}, 100},
	{"branches with values", func(m *wasmModule, a, b int) wasmFunc {
		t := leb(uint64(typ(m, 0, a)))
		return plain(nil, cat([]byte{0x02}, t, times(a, getLocal(0)), times(b, brIf0), end, times(a, []byte{0x1a})))
	}, 1000},
	{"jump tables with values", func(m *wasmModule, a, b int) wasmFunc {
		t := leb(uint64(typ(m, 0, a)))
		return plain(nil, cat([]byte{0x02}, t, times(a, getLocal(0)), getLocal(0), []byte{0x0e}, leb(uint64(b)), make([]byte, b+1), end, times(a, []byte{0x1a})))
	}, 1000},
	{"returns with values", func(m *wasmModule, a, b int) wasmFunc {
		f := plain(nil, cat(times(b, i32c(1), []byte{0x04, 0x40}, times(a, i32c(2)), []byte{0x0f, 0x0b}), []byte{0}))
		f.Type = typ(m, 0, a)
		return f
	}, 100},
	{"reads far from the definition", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(1), cat(setLocals(1), []byte{0x02, 0x40}, times(b, brIf0), times(a, getLocal(1), []byte{0x1a}), end))
	}, 3000},
	{"joins far from the definition", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(a), cat(setLocals(a), []byte{0x02, 0x40}, times(b, brIf0), i64c(1), setLocal(1), end, sumLocals(a)))
	}, 300},
	{"addresses over ifs", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(nil, cat(each(a, func(i int) []byte {
			return cat(getLocal(0), i32c(int32(i)), []byte{0x6a, 0x28, 2, 0, 0x1a})
		}), times(b, emptyI)))
	}, 1000},
	{"addresses over branches", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(nil, cat([]byte{0x02, 0x40}, each(a, func(i int) []byte {
			return cat(getLocal(0), i32c(int32(i)), []byte{0x6a, 0x28, 2, 0, 0x1a})
		}), times(b, brIf0), end))
	}, 1000},
	{"globals at calls", func(m *wasmModule, a, b int) wasmFunc {
		globals(m, a)
		return plain(nil, times(b, []byte{0x10, 0}))
	}, 1000},
	{"globals over branches", func(m *wasmModule, a, b int) wasmFunc {
		globals(m, a)
		sum := cat(i64c(0), each(a, func(i int) []byte { return cat([]byte{0x23}, leb(uint64(i)), []byte{0x85}) }), []byte{0x1a})
		return plain(nil, cat(sum, []byte{0x02, 0x40}, times(b, brIf0), sum, end))
	}, 300},
	{"values at calls", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(a), cat(setLocals(a), times(b, []byte{0x10, 0}), sumLocals(a)))
	}, 1000},
	{"one kind of instruction", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(longs(1), times(b, straight[a%len(straight)]))
	}, 0},
	{"ifs", func(_ *wasmModule, a, b int) wasmFunc { return plain(nil, times(b, emptyI)) }, 0},
	{"loops within each other", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(nil, cat(times(b, []byte{0x03, 0x40}), times(b, brIf0, end)))
	}, 0},
	{"blocks within each other", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(nil, cat(times(b, []byte{0x02, 0x40}), each(b, func(i int) []byte { return cat(getLocal(0), []byte{0x0d}, leb(uint64(i))) }), times(b, brIf0, end)))
	}, 0},
	{"ifs within each other", func(_ *wasmModule, a, b int) wasmFunc {
		return plain(nil, cat(times(b, getLocal(0), []byte{0x04, 0x40}), times(b, end)))
	}, 0},
	{"declared locals", func(_ *wasmModule, a, b int) wasmFunc { return plain(longs(a), nil) }, 10_000},
	{"types", func(m *wasmModule, a, b int) wasmFunc {
		for range b {
			typ(m, a, a)
		}
		return plain(nil, nil)
	}, 1000},
	{"types of nothing", func(m *wasmModule, a, b int) wasmFunc {
		for range b {
			typ(m, 0, 0)
		}
		return plain(nil, nil)
	}, 0},
	{"imports", func(m *wasmModule, a, b int) wasmFunc {
		m.Imports = append(m.Imports, many(b, cat(str("m"), str("n"), []byte{3, 0x7f, 0}))...)
		return plain(nil, nil)
	}, 0},
	{"globals", func(m *wasmModule, a, b int) wasmFunc {
		globals(m, b)
		return plain(nil, nil)
	}, 0},
	{"segments", func(m *wasmModule, a, b int) wasmFunc {
		m.Data = append(m.Data, many(b, cat([]byte{1}, str("data")))...)
		m.Elems = append(m.Elems, many(b/10, cat([]byte{1, 0}, vec([]byte{0})))...)
		return plain(nil, nil)
	}, 0},
	{"elements", func(m *wasmModule, a, b int) wasmFunc {
		m.Elems = append(m.Elems, cat([]byte{1, 0}, vec(many(b, []byte{0})...)))
		return plain(nil, nil)
	}, 0},
	{"functions beside long lists", func(m *wasmModule, a, b int) wasmFunc {
		for len(m.Types) < 9000 {
			typ(m, 0, 0)
		}
		for len(m.Imports) < 9000 {
			m.Imports = append(m.Imports, cat(str("m"), str("n"), []byte{3, 0x7f, 0}))
		}
		m.Funcs = append(m.Funcs, many(b, wasmFunc{})...)
		return plain(nil, nil)
	}, 0},
	{"exports", func(m *wasmModule, a, b int) wasmFunc {
		for range b {
			m.Funcs = append(m.Funcs, wasmFunc{Type: 1, Name: fmt.Sprint("f", len(m.Funcs))})
		}
		return plain(nil, nil)
	}, 0},
	{"nothing", func(*wasmModule, int, int) wasmFunc { return plain(nil, nil) }, 0},
}

// straight are instructions, one kind each, that leave nothing behind.
var straight = [][]byte{
	{0x20, 0, 0x1a},
	{0x20, 1, 0x50, 0x1a},
	{0x20, 1, 0x42, 1, 0x7c, 0x21, 1},
	{0x20, 1, 0x42, 3, 0x7f, 0x21, 1}, // divide
	{0x20, 1, 0x42, 3, 0x81, 0x21, 1}, // remainder
	{0x20, 0, 0x28, 2, 0, 0x1a},
	{0x20, 0, 0x28, 2, 0, 0x21, 0},
	{0x20, 0, 0x20, 1, 0x37, 3, 0},
	{0x20, 0, 0x20, 0, 0x28, 2, 0, 0x36, 2, 0},
	{0x43, 0, 0, 0x80, 0x3f, 0xa8, 0x1a}, // truncate
	{0x43, 0, 0, 0x80, 0x3f, 0xfc, 1, 0x21, 0},
	{0x20, 1, 0xba, 0x9f, 0xfc, 6, 0x21, 1},
	{0x20, 1, 0x20, 1, 0x20, 0, 0x1b, 0x21, 1},
	{0x10, 0},
	{0x20, 0, 0x11, 1, 0},
	{0x20, 0, 0x25, 0, 0x1a},
	{0x20, 0, 0x20, 0, 0x25, 0, 0x26, 0},
	{0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 11, 0},
	{0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 10, 0, 0},
	{0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 14, 0, 0},
	{0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 8, 0, 0},
	{0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 12, 0, 0},
	{0xd0, 0x70, 0x41, 0, 0xfc, 15, 0, 0x1a},
	{0x41, 0, 0xd0, 0x70, 0x41, 0, 0xfc, 17, 0},
	{0x41, 0, 0x40, 0, 0x1a},
	{0xd2, 0, 0x1a},
	{0x41, 0, 0xfd, 0x0f, 0x41, 3, 0xfd, 0x6c, 0xfd, 0x1b, 0, 0x21, 0},
	{0x20, 0, 0xfd, 0x0f, 0x20, 0, 0xfd, 0x0f, 0xfd, 0x0e, 0xfd, 0x1b, 0, 0x21, 0}, // swizzle
	{0x20, 0, 0xfd, 0x11, 0xfd, 0xf8, 0x01, 0xfd, 0x1b, 0, 0x21, 0},                // truncate lanes
	{0x20, 0, 0xfd, 0x11, 0x20, 0, 0xfd, 0x6b, 0xfd, 0x1b, 0, 0x21, 0},             // shift bytes
	{0x20, 0, 0xfd, 0x11, 0x20, 0, 0xfd, 0x11, 0xfd, 0xd5, 0x01, 0xfd, 0x1b, 0, 0x21, 0},
	{0x20, 0, 0x04, 0x40, 0x0b},
	{0x02, 0x40, 0x20, 0, 0x0d, 0, 0x0b},
	{0x03, 0x40, 0x20, 0, 0x0d, 0, 0x0b},
	{0x02, 0x40, 0x0c, 0, 0x0b},
	{0x23, 0, 0x42, 1, 0x7c, 0x24, 0},
	{0x20, 0, 0x69, 0x21, 0},
	{0x20, 0, 0xad, 0x79, 0x21, 1},
	{0x01},
}

// dear are the dearest of them: a division, a load, an indirect call, table
// operations and loops.
var dear = []int{3, 6, 9, 14, 19, 23, 33}

// part is a number of functions of a shape.
type part struct {
	shape   shape
	a, b, n int
}

// moduleOf makes a module of parts.
func moduleOf(parts ...part) []byte {
	m := wasmModule{
		Types:   [][]byte{sig("i", ""), sig("", "")},
		Tables:  [][]byte{{0x70, 0, 1}},
		Memory:  []byte{0, 1},
		Globals: [][]byte{cat([]byte{0x7e, 1}, i64c(0), []byte{0x0b})},
		Elems:   [][]byte{cat([]byte{1, 0}, vec([]byte{0}))},
		Data:    [][]byte{cat([]byte{1}, str("data"))},
		Funcs:   []wasmFunc{{Type: 1, Name: "run"}},
	}
	for _, p := range parts {
		for range p.n {
			f := p.shape.make(&m, p.a, p.b)
			m.Funcs = append(m.Funcs, f)
		}
	}
	return m.Bytes()
}
