package meter

// slice is how many units of fuel a guest spends between two visits to the
// host. At the fastest a unit is a fraction of a nanosecond, at the slowest
// (a load that misses every cache) some tens: a visit every 0.05 to 10 ms.
const slice = 1 << 18

// chunk is how many bytes a bulk operation moves between two charges.
const chunk = 1 << 20

// bytesPerUnit and pageUnits price bulk operations: eight bytes moved or
// cleared cost what one instruction costs.
const (
	bytesShift = 3
	pageUnits  = 65536 >> bytesShift
)

// leafFrame is the largest frame in bytes of a function that calls nothing
// and is not charged for its stack: there is at most one such at the top.
const leafFrame = 1024

// leafUnits is the most that a function without calls and loops may cost to be
// charged without looking whether the slice is spent: the next loop head or
// entry looks. Every cycle has one of them.
const leafUnits = 64

// added numbers what the rewriting appends to the module's index spaces.
type added struct {
	fuel, meter, stop, cause uint32 // globals
	table                    uint32
	refill, items            uint32 // functions
	bytes, grow, fill, copy  uint32 // functions, only with a memory
	none, length, span       uint32 // types
	typesEnd                 uint32 // first type after those
}

func (m *module) added() added {
	g, f, t := uint32(m.globals), uint32(len(m.funcs)), uint32(len(m.types))
	return added{
		fuel: g, meter: g + 1, stop: g + 2, cause: g + 3,
		table:  uint32(m.tables),
		refill: f, items: f + 1, bytes: f + 2, grow: f + 3, fill: f + 4, copy: f + 5,
		none: t, length: t + 1, span: t + 2, typesEnd: t + 3,
	}
}

// The meter global holds two counters, so that a call pays for both with one
// load, one store and one compare: stack<<32 + slice, both signed, added as
// numbers. A slice below zero borrows from the half above until refill has
// taken it out. Neither half can run through its range between two checks:
// a frame is below 2^28 bytes, a charge below 2^30 units.
const (
	stackShift = 32
	signs      = int64(-1<<63 | 1<<31) // either counter below zero
)

// asm appends instructions.
type asm struct {
	out []byte
	a   *added
}

func (s *asm) op(b ...byte)                { s.out = append(s.out, b...) }
func (s *asm) idx(op byte, i uint32)       { s.out = appendU32(append(s.out, op), i) }
func (s *asm) i32(v int32)                 { s.out = appendS64(append(s.out, opI32Const), int64(v)) }
func (s *asm) i64(v int64)                 { s.out = appendS64(append(s.out, opI64Const), v) }
func (s *asm) call(f uint32)               { s.idx(opCall, f) }
func (s *asm) get(g uint32)                { s.idx(opGlobalGet, g) }
func (s *asm) set(g uint32)                { s.idx(opGlobalSet, g) }
func (s *asm) local(i uint32)              { s.idx(opLocalGet, i) }
func (s *asm) subtract(g uint32, v func()) { s.get(g); v(); s.op(opI64Sub); s.set(g) }

// charge takes n units from the slice.
func (s *asm) charge(n int64) {
	s.subtract(s.a.meter, func() { s.i64(n) })
}

// check lets the host in when the slice is spent. The branch is taken once in
// a slice.
func (s *asm) check() {
	s.get(s.a.meter)
	s.op(opI32WrapI64)
	s.i32(0)
	s.op(opI32LtS, opIf, blockVoid)
	s.call(s.a.refill)
	s.op(opEnd)
}

// enter charges the entry of a function that has a frame. Refill looks which
// counter it was.
func (s *asm) enter(units, frame int64) {
	s.charge(frame<<stackShift + units)
	s.get(s.a.meter)
	s.i64(signs)
	s.op(opI64And)
	s.i64(0)
	s.op(opI64Ne, opIf, blockVoid)
	s.call(s.a.refill)
	s.op(opEnd)
}

// leave gives the frame back.
func (s *asm) leave(frame int64) { s.charge(-frame << stackShift) }
