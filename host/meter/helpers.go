package meter

// Values of the cause global.
const (
	causeFuel  = 1
	causeStack = 2
	causeStop  = 3
)

// helper is an appended function: its type, what it is called in the name
// section, its local declarations and its instructions.
type helper struct {
	typ    uint32
	name   string
	locals []byte
	code   func(*asm)
}

var (
	noLocals = []byte{0}
	oneI32   = []byte{1, 1, typeI32}
	oneI64   = []byte{1, 1, typeI64}
)

// helpers lists the appended functions in the order of their indices. Those
// that touch the memory exist only in a module that has one.
func (m *module) helpers(a *added) []helper {
	list := []helper{
		{a.none, Reserved + "refill", oneI64, (*asm).refillBody},
		{a.length, Reserved + "items", noLocals, func(s *asm) { s.itemsBody(int32(m.o.MaxTableElements)) }},
	}
	if m.memories > 0 {
		list = append(list,
			helper{a.length, Reserved + "bytes", noLocals, (*asm).bytesBody},
			helper{a.length, Reserved + "grow", oneI32, (*asm).growBody},
			helper{a.span, Reserved + "fill", noLocals, (*asm).fillBody},
			helper{a.span, Reserved + "copy", noLocals, (*asm).copyBody},
		)
	}
	return list
}

// trap ends the guest and leaves the reason where the host can read it.
func (s *asm) trap(cause int32) {
	s.op(opIf, blockVoid)
	s.i32(cause)
	s.set(s.a.cause)
	s.op(opUnreachable, opEnd)
}

// refillBody runs when a counter is below zero.
//
// What is left is always fuel + slice. Growing the appended table by nothing
// leaves compiled code for Go, where the collector can stop the world; it
// needs no memory and no import, so no index of the guest has to move.
func (s *asm) refillBody() {
	a := s.a
	const left = 0 // local: the slice
	s.get(a.meter)
	s.op(opI64Extend32S)
	s.idx(opLocalTee, left)
	s.get(a.fuel)
	s.op(opI64Add)
	s.set(a.fuel)
	s.subtract(a.meter, func() { s.local(left) }) // now the stack alone

	s.get(a.meter)
	s.i64(0)
	s.op(opI64LtS)
	s.trap(causeStack)

	s.op(opRefNull, typeFuncref)
	s.i32(0)
	s.op(prefixMisc)
	s.idx(miscTableGrow, a.table)
	s.op(opDrop)

	s.get(a.stop)
	s.i64(0)
	s.op(opI64Ne)
	s.trap(causeStop)

	s.get(a.fuel)
	s.i64(0)
	s.op(opI64LtS)
	s.trap(causeFuel)

	s.get(a.fuel) // the smaller of fuel and a full slice
	s.i64(slice)
	s.get(a.fuel)
	s.i64(slice)
	s.op(opI64LtS, opSelect)
	s.idx(opLocalSet, left)
	s.subtract(a.fuel, func() { s.local(left) })
	s.get(a.meter)
	s.local(left)
	s.op(opI64Add)
	s.set(a.meter)
}

// spend charges a number of units that v computes.
func (s *asm) spend(v func()) {
	s.subtract(s.a.meter, v)
	s.check()
}

// units turns the byte count in local n into units.
func (s *asm) units(n uint32) {
	s.local(n)
	s.op(opI64ExtendU)
	s.i64(bytesShift)
	s.op(opI64ShrU)
}

// itemsBody charges a table operation by its number of elements and gives the
// number back. More elements than a table can hold cost no work: the operation
// fails at once.
func (s *asm) itemsBody(most int32) {
	s.spend(func() {
		s.local(0)
		s.i32(most)
		s.local(0)
		s.i32(most)
		s.op(opI32LtU, opSelect, opI64ExtendU)
	})
	s.local(0)
}

// bytesBody charges memory.init by its length and gives the length back. It
// is not cut into chunks: the segment is no longer than the module.
func (s *asm) bytesBody() {
	s.spend(func() { s.units(0) })
	s.local(0)
}

// growBody is memory.grow, charged for the pages it did add.
func (s *asm) growBody() {
	s.local(0)
	s.op(opMemoryGrow, 0)
	s.idx(opLocalTee, 1)
	s.i32(-1)
	s.op(opI32Ne, opIf, blockVoid)
	s.spend(func() {
		s.local(0)
		s.op(opI64ExtendU)
		s.i64(pageUnits)
		s.op(opI64Mul)
	})
	s.op(opEnd)
	s.local(1)
}

// inBounds leaves whether the span of length local n at address local p ends
// within the memory.
func (s *asm) inBounds(p, n uint32) {
	s.local(p)
	s.op(opI64ExtendU)
	s.local(n)
	s.op(opI64ExtendU, opI64Add)
	s.op(opMemorySize, 0, opI64ExtendU)
	s.i64(16)
	s.op(opI64Shl, opI64LeU)
}

// chunked runs move, which handles chunk bytes, while more than that is left
// in local 2, with a charge before each.
func (s *asm) chunked(move func()) {
	s.op(opLoop, blockVoid)
	s.charge(chunk >> bytesShift)
	s.check()
	move()
	s.local(2)
	s.i32(chunk)
	s.op(opI32Sub)
	s.idx(opLocalTee, 2)
	s.i32(chunk)
	s.op(opI32GtU)
	s.idx(opBrIf, 0)
	s.op(opEnd)
}

func (s *asm) advance(p uint32) {
	s.local(p)
	s.i32(chunk)
	s.op(opI32Add)
	s.idx(opLocalSet, p)
}

func (s *asm) fillBytes() { s.op(prefixMisc, miscMemoryFill, 0) }
func (s *asm) copyBytes() { s.op(prefixMisc, miscMemoryCopy, 0, 0) }

func (s *asm) three() { s.local(0); s.local(1); s.local(2) }

// fillBody is memory.fill(address, value, length). A long fill is done in
// chunks, because one instruction over gigabytes could be neither stopped nor
// interrupted. Out of bounds it traps before it writes, as it must.
func (s *asm) fillBody() {
	s.local(2)
	s.i32(chunk)
	s.op(opI32GtU, opIf, blockVoid)
	s.inBounds(0, 2)
	s.op(opIf, blockVoid)
	s.chunked(func() {
		s.local(0)
		s.local(1)
		s.i32(chunk)
		s.fillBytes()
		s.advance(0)
	})
	s.op(opEnd, opEnd)
	s.spend(func() { s.units(2) })
	s.three()
	s.fillBytes()
}

// copyBody is memory.copy(to, from, length), likewise. Where the spans overlap
// and the target lies higher, the chunks are taken from the end.
func (s *asm) copyBody() {
	s.local(2)
	s.i32(chunk)
	s.op(opI32GtU, opIf, blockVoid)
	s.inBounds(0, 2)
	s.op(opIf, blockVoid)
	s.inBounds(1, 2)
	s.op(opIf, blockVoid)
	s.local(0)
	s.local(1)
	s.op(opI32LeU, opIf, blockVoid)
	s.chunked(func() {
		s.local(0)
		s.local(1)
		s.i32(chunk)
		s.copyBytes()
		s.advance(0)
		s.advance(1)
	})
	s.op(opElse)
	s.chunked(func() {
		for _, p := range []uint32{0, 1} {
			s.local(p)
			s.local(2)
			s.op(opI32Add)
			s.i32(chunk)
			s.op(opI32Sub)
		}
		s.i32(chunk)
		s.copyBytes()
	})
	s.op(opEnd, opEnd, opEnd, opEnd)
	s.spend(func() { s.units(2) })
	s.three()
	s.copyBytes()
}
