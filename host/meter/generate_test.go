package meter_test

import "bytes"

// generator makes a valid module that ends out of a string of bytes. Each
// straight run of instructions first adds its length to a global, so that the
// module itself knows how many it has executed.
type generator struct {
	choices []byte
	fn      int // the function being written; it calls higher ones only
	budget  int // statements left in this function
	out     bytes.Buffer
	labels  []int // for each open construct the local that counts a loop, -1 otherwise
	loops   int   // open loops
}

const (
	genFuncs   = 4
	genLocals  = 10 // parameters 0 and 1, scratch to 5, loop counters from 6
	genCounter = 6
	genTicks   = 0 // index of the counting global
)

func (g *generator) next(n int) int {
	if len(g.choices) == 0 {
		return 0
	}
	c := int(g.choices[0])
	g.choices = g.choices[1:]
	return c % n
}

func (g *generator) emit(parts ...[]byte) {
	for _, p := range parts {
		g.out.Write(p)
	}
}

// tick counts n instructions that follow, and its own four.
func (g *generator) tick(n int) {
	g.emit([]byte{0x23, genTicks}, i64c(int64(n+4)), []byte{0x7c, 0x24, genTicks})
}

// expr is an i32 expression and its number of instructions.
func (g *generator) expr(depth int) ([]byte, int) {
	local := []byte{0x20, byte(g.next(genCounter))}
	if depth == 0 {
		return local, 1
	}
	switch g.next(12) {
	case 0:
		return i32c(int32(g.next(256)*7919 - 999_999)), 1
	case 1, 2, 3, 4, 5: // arithmetic, comparisons, division that may trap
		a, n := g.expr(depth - 1)
		b, m := g.expr(depth - 1)
		ops := []byte{0x6a, 0x6b, 0x6c, 0x71, 0x72, 0x73, 0x74, 0x76, 0x77, 0x48, 0x4d, 0x46, 0x6e, 0x6f}
		return cat(a, b, []byte{ops[g.next(len(ops))]}), n + m + 1
	case 6: // load, seldom out of bounds
		a, n := g.expr(depth - 1)
		mask := []int32{0xff, 0x7fff, 0x1ffff}[g.next(3)]
		return cat(a, i32c(mask), []byte{0x71, 0x2d, 0, 3}), n + 3
	case 7: // through a float
		a, n := g.expr(depth - 1)
		return cat(a, []byte{0xb7, 0x9f, 0xfc, 2}), n + 3
	case 8: // through a vector
		a, n := g.expr(depth - 1)
		return cat(a, []byte{0xfd, 0x0f}, local, []byte{0xfd, 0x11, 0xfd, 0x6e, 0xfd, 0x1b, 2}), n + 5
	case 9: // select
		a, n := g.expr(depth - 1)
		b, m := g.expr(depth - 1)
		return cat(a, b, local, []byte{0x1b}), n + m + 2
	case 10: // call, direct or through the table
		if g.fn+1 >= genFuncs || g.loops > 1 {
			return local, 1
		}
		a, n := g.expr(depth - 1)
		callee := g.fn + 1 + g.next(genFuncs-g.fn-1)
		if g.next(2) == 0 {
			return cat(a, local, []byte{0x10, byte(callee)}), n + 2
		}
		return cat(a, local, i32c(int32(callee)), []byte{0x11, 0, 0}), n + 3
	}
	return cat(local, []byte{0x45}), 2
}

func (g *generator) statement(depth int) {
	g.budget--
	e, n := g.expr(1 + g.next(3))
	switch g.next(16) {
	default: // assignment
		g.tick(n + 1)
		g.emit(e, []byte{0x21, byte(g.next(genCounter))})
	case 0, 1: // store
		v, m := g.expr(1)
		g.tick(n + m + 3)
		g.emit(e, i32c(0x7fff), []byte{0x71}, v, []byte{0x36, 2, 0})
	case 2, 3, 4: // loop
		if depth == 0 || g.loops == 3 {
			return
		}
		counter := genCounter + g.loops
		g.tick(2 + 1)
		g.emit(i32c(int32(1+g.next(4))), []byte{0x21, byte(counter), 0x03, 0x40})
		g.loops++
		g.block(depth, counter)
		g.again(counter, 0)
		g.loops--
		g.emit([]byte{0x0b})
	case 5, 6: // if, with and without else
		if depth == 0 {
			return
		}
		g.tick(n + 1)
		g.emit(e, []byte{0x04, 0x40})
		g.block(depth, -1)
		if g.next(2) == 0 {
			g.emit([]byte{0x05})
			g.block(depth, -1)
		}
		g.emit([]byte{0x0b})
	case 7: // block
		if depth == 0 {
			return
		}
		g.tick(1)
		g.emit([]byte{0x02, 0x40})
		g.block(depth, -1)
		g.emit([]byte{0x0b})
	case 8, 9: // branch
		l := g.next(len(g.labels) + 1)
		if l < len(g.labels) && g.labels[len(g.labels)-1-l] >= 0 {
			g.again(g.labels[len(g.labels)-1-l], l)
		} else if l < len(g.labels) {
			g.tick(n + 1)
			g.emit(e, []byte{0x0d, byte(l)})
		}
	case 10: // return from an arm
		g.tick(n + 1)
		g.emit(e, []byte{0x04, 0x40})
		v, m := g.expr(1)
		g.tick(m + 1)
		g.emit(v, []byte{0x0f, 0x0b})
	case 11: // jump table over the innermost two labels that are no loops
		if k := len(g.labels); k >= 2 && g.labels[k-1] < 0 && g.labels[k-2] < 0 {
			g.tick(n + 4)
			g.emit([]byte{0x02, 0x40}, e, i32c(3), []byte{0x71, 0x0e, 2, 0, 1, 2, 0x0b})
		}
	case 12: // bulk memory
		op := [][]byte{{0xfc, 11, 0}, {0xfc, 10, 0, 0}, {0xfc, 8, 0, 0}}[g.next(3)]
		length := g.next(30) * []int{1, 1, 1, 5000}[g.next(4)] // seldom out of bounds
		g.tick(n + 5)
		g.emit(e, i32c(0x7fff), []byte{0x71}, i32c(int32(g.next(12))), i32c(int32(length)), op)
	case 13: // growth
		g.tick(3)
		g.emit(i32c(int32(g.next(2))), []byte{0x40, 0, 0x21, 3})
	case 14: // table
		g.tick(4)
		g.emit(i32c(int32(g.next(4))), i32c(int32(g.next(4))), i32c(int32(g.next(3))), []byte{0xfc, 14, 1, 1})
	}
}

// again decrements a loop's counter and goes on with the loop while it lasts.
func (g *generator) again(counter, label int) {
	g.tick(7)
	g.emit([]byte{0x20, byte(counter)}, i32c(1), []byte{0x6b, 0x22, byte(counter)}, i32c(0), []byte{0x4a, 0x0d, byte(label)})
}

func (g *generator) block(depth, counter int) {
	g.labels = append(g.labels, counter)
	for n := 1 + g.next(5); n > 0 && g.budget > 0; n-- {
		g.statement(depth - 1)
	}
	g.labels = g.labels[:len(g.labels)-1]
}

// generate makes the module: run calls the first function and adds its two
// results; the others have one.
func generate(choices []byte) []byte {
	g := &generator{choices: choices}
	m := wasmModule{
		Types:   [][]byte{sig("ii", "i"), sig("ii", "ii")},
		Tables:  [][]byte{{0x70, 1, 4, 4}, {0x6f, 1, 4, 4}},
		Memory:  []byte{1, 1, 3},
		Globals: [][]byte{cat([]byte{0x7e, 1}, i64c(0), []byte{0x0b})},
		Elems:   [][]byte{cat([]byte{0}, i32c(0), []byte{0x0b}, vec([]byte{0}, []byte{1}, []byte{2}, []byte{3}))},
		Data:    [][]byte{cat([]byte{1}, str("sixteen bytes of a passive segment, or so"))},
	}
	locals := vec([]byte{genLocals - 2, 0x7f})
	for g.fn = range genFuncs {
		g.out.Reset()
		g.budget = 12
		for g.budget > 0 {
			g.statement(3)
		}
		g.tick(1)
		g.emit([]byte{0x20, 2})
		m.Funcs = append(m.Funcs, wasmFunc{Locals: locals, Code: bytes.Clone(g.out.Bytes())})
	}
	m.Funcs = append(m.Funcs,
		wasmFunc{Type: 1, Name: "run", Code: []byte{0x20, 0, 0x20, 1, 0x10, 0, 0x20, 1, 0x0f}},
		wasmFunc{Type: 0, Name: "ticks", Code: []byte{0x23, genTicks, 0xa7}})
	return m.Bytes()
}
