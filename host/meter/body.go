package meter

// eventKind tells apart the instructions that end a straight run.
type eventKind uint8

const (
	evBlock eventKind = iota
	evLoop
	evIf
	evElse
	evEnd
	evBr
	evBrIf
	evBrTable
	evReturn
	evUnreachable
	evFill  // memory.fill, replaced by a call
	evCopy  // memory.copy, replaced by a call
	evGrow  // memory.grow, replaced by a call
	evBytes // memory.init: its length is charged before it
	evItems // table.init, copy, grow, fill: likewise, in elements
)

// event is one such instruction, with what came before it since the last one.
type event struct {
	kind       eventKind
	opener     eventKind // of an end: what it closes
	targeted   bool      // of an end: some branch goes to the construct's label
	start, end int       // the instruction's bytes in the module
	cost       int64     // instructions since the previous event, this one counted
	depth      int       // label of a branch; number of open constructs at a return
	lo, hi     int       // labels of a br_table in function.labels
	charge     int64     // filled in by plan: charged right after the instruction

	// For the cost of compiling.
	ops   int   // end of the uses of locals before it in function.ops
	chain int64 // of work
	arity int64 // values that a branch to the construct's label carries
	dead  bool  // nothing reaches it
}

// function is one decoded body. Its slices are reused from body to body.
type function struct {
	events []event
	labels []int
	ops    []int32 // uses of locals: index<<1, +1 where it is written
	ctrl   []construct
	open   []arm

	code  int   // offset of the first instruction
	entry int64 // filled in by plan: charged at entry
	frame int64 // estimated native frame in bytes
	calls bool
	loops bool // filled in by plan: some loop is branched to
}

// construct is an open block, loop or if while decoding forwards.
type construct struct {
	kind            eventKind
	targeted        bool
	base            int // operand height below the construct's parameters
	params, results int
	// For the cost: where it opened, and the least of all branches to its label.
	before       place
	known, depth int64
}

// Costs of a native frame beside its values: return address, saved frame
// pointer, frame size marker and alignment.
const frameBase = 64

// decode splits the body of function fn into events.
//
// The walk follows the height of the operand stack, for the frame's size only:
// the runtime validates types. What the walk does check is everything that the
// appended functions, types, globals and the table could make valid.
func (m *module) decode(f *function, fn int) *Error {
	b := m.bodies[fn-m.imported]
	r := &reader{b: m.b, pos: b.start, end: b.end, fn: fn}
	typ := m.types[m.funcs[fn]]

	slots, wide := m.locals(r, typ)
	if r.fail != nil {
		return r.fail
	}
	*f = function{events: f.events[:0], labels: f.labels[:0], ops: f.ops[:0], ctrl: f.ctrl[:0], open: f.open, code: r.pos}

	d := decoder{m: m, r: r, f: f, wide: wide, addr: &m.addresses}
	d.addr.reset(slots)
	d.locals, d.globals, d.mutable = slots, int64(m.globals), int64(m.mutable+len(globalNames))
	d.values = int64(len(typ.params) + len(typ.results))
	f.ctrl = append(f.ctrl, construct{kind: evBlock, results: len(typ.results), known: unreached, depth: unreached})
	for len(f.ctrl) > 0 && r.fail == nil {
		d.instruction()
	}
	if r.fail == nil && r.pos != r.end {
		r.errorf(r.pos, "%d bytes after the end of the body", r.end-r.pos)
	}
	if r.fail == nil {
		m.charge(&d, b.start)
	}
	if r.fail != nil {
		return r.fail
	}
	// The compiler gives every value that has to outlive a call a slot of its
	// own. At most that is each local, each operand, and each later value of a
	// local.
	size := int64(8)
	if d.wide {
		size = 16
	}
	f.frame = frameBase + size*(slots+int64(d.peak)+int64(d.sets))
	return nil
}

// locals reads the declarations and gives the number of values that live in
// the frame, parameters included, and whether there are vectors among them.
func (m *module) locals(r *reader, typ funcType) (slots int64, wide bool) {
	for _, t := range typ.params {
		wide = wide || t == 0x7b
	}
	slots = int64(len(typ.params))
	for n := r.count("local declarations"); n > 0 && r.fail == nil; n-- {
		at := r.pos
		slots += int64(r.u32("local count"))
		if t := valueType(r, "local"); t == 0x7b {
			wide = true
		}
		if slots > int64(m.o.MaxLocals) {
			r.limit(at, "MaxLocals", "%d parameters and locals are more than %d: split the function", slots, m.o.MaxLocals)
		}
	}
	return slots, wide
}

type decoder struct {
	m    *module
	r    *reader
	f    *function
	run  int64 // instructions since the last event
	h    int   // operand height, at least that of the open construct
	peak int
	sets int
	wide bool
	work
	addr *addresses
}

func (d *decoder) effect(pop, push int) {
	base := 0
	if n := len(d.f.ctrl); n > 0 {
		base = d.f.ctrl[n-1].base
	}
	d.h = max(d.h-pop, base) + push
	if d.h > maxOperands {
		d.r.limit(d.r.pos, limitOperands, "more than %d operands: split the function", maxOperands)
		d.h = base
		return
	}
	for i := d.h - push; i < d.h; i++ {
		d.addr.put(i, 0)
	}
	d.peak = max(d.peak, d.h)
}

func (d *decoder) net(n int) {
	if n < 0 {
		d.effect(-n, 0)
	} else {
		d.effect(0, n)
	}
}

func (d *decoder) event(kind eventKind, start int) *event {
	if len(d.f.events) == d.m.o.MaxBranches {
		d.r.limit(start, "MaxBranches", "more than %d control instructions: split the function", d.m.o.MaxBranches)
	}
	d.control(d.h)
	d.f.events = append(d.f.events, event{kind: kind, start: start, end: d.r.pos, cost: d.run,
		ops: len(d.f.ops), chain: d.chain, dead: d.known == unreached})
	d.run = 0
	return &d.f.events[len(d.f.events)-1]
}

// label reads the target of a branch.
func (d *decoder) label() int {
	at := d.r.pos
	n := int64(d.r.u32("label"))
	if n >= int64(len(d.f.ctrl)) {
		d.r.errorf(at, "branch to label %d, %d are open", n, len(d.f.ctrl))
		return 0
	}
	c := &d.f.ctrl[len(d.f.ctrl)-1-int(n)]
	c.targeted = true
	d.edge(c)
	return int(n)
}

// dead resets the height after an instruction that does not fall through.
func (d *decoder) dead() {
	d.h = d.f.ctrl[len(d.f.ctrl)-1].base
	d.known = unreached
}

func (d *decoder) open(kind eventKind, start int) {
	r := d.r
	var params, results int
	at := r.pos
	switch v := r.sint(33, "block type"); {
	case v >= int64(len(d.m.types)):
		r.errorf(at, "type index %d out of range, the module has %d", v, len(d.m.types))
	case v >= 0:
		params, results = len(d.m.types[v].params), len(d.m.types[v].results)
	case r.pos-at != 1:
		r.errorf(at, "block type in more than one byte")
	case r.b[at] != blockVoid:
		r.pos = at
		valueType(r, "block type")
		results = 1
	}
	d.event(kind, start).arity = int64(params)
	d.effect(params, 0)
	d.f.ctrl = append(d.f.ctrl, construct{kind: kind, base: d.h, params: params, results: results})
	d.opened(&d.f.ctrl[len(d.f.ctrl)-1], len(d.f.ctrl)-1)
	if kind == evLoop {
		d.addr.join()
	}
	d.effect(0, params)
}

func (d *decoder) instruction() {
	r, f := d.r, d.f
	start := r.pos
	op := r.byte("instruction")
	if r.fail != nil {
		return
	}
	d.pay(pricePlain)
	if op != opElse && op != opEnd {
		d.run++
	}
	switch {
	case op == opUnreachable:
		d.event(evUnreachable, start)
		d.dead()
	case op == 0x01: // nop
	case op == opBlock:
		d.open(evBlock, start)
	case op == opLoop:
		d.open(evLoop, start)
	case op == opIf:
		d.effect(1, 0)
		d.open(evIf, start)
	case op == opElse:
		c := &f.ctrl[len(f.ctrl)-1]
		if c.kind != evIf {
			r.errorf(start, "else without if")
			return
		}
		d.event(evElse, start)
		d.orelse(c)
		d.addr.join()
		c.kind = evElse
		d.h = c.base
		d.effect(0, c.params)
	case op == opEnd:
		c := f.ctrl[len(f.ctrl)-1]
		e := d.event(evEnd, start)
		e.opener, e.targeted, e.arity = c.kind, c.targeted, int64(c.results)
		if c.kind == evLoop {
			e.arity = int64(c.params)
		}
		d.closed(&c)
		d.addr.join()
		d.h = c.base
		f.ctrl = f.ctrl[:len(f.ctrl)-1]
		d.effect(0, c.results)
	case op == opBr:
		n := d.label()
		d.event(evBr, start).depth = n
		d.dead()
	case op == opBrIf:
		n := d.label()
		d.event(evBrIf, start).depth = n
		d.next()
		d.effect(1, 0)
	case op == opBrTable:
		lo := len(f.labels)
		for n := r.count("br_table") + 1; n > 0 && r.fail == nil; n-- {
			f.labels = append(f.labels, d.label())
			d.pay(priceLabel)
		}
		e := d.event(evBrTable, start)
		e.lo, e.hi = lo, len(f.labels)
		d.dead()
	case op == opReturn:
		d.event(evReturn, start).depth = len(f.ctrl) - 1
		d.edge(&f.ctrl[0])
		d.dead()
	case op == opCall:
		t := d.m.types[d.m.funcs[r.index("function", len(d.m.funcs))]]
		f.calls = true
		d.call(t)
		d.effect(len(t.params), len(t.results))
	case op == opCallIndirect:
		t := d.m.types[r.index("type", len(d.m.types))]
		r.index("table", d.m.tables)
		f.calls = true
		d.call(t)
		d.pay(priceIndirect)
		d.effect(1+len(t.params), len(t.results))
	case op == opDrop:
		d.effect(1, 0)
	case op == opSelect:
		d.effect(3, 1)
	case op == opSelectTyped:
		if n := r.count("select types"); n != 1 {
			r.errorf(start, "select with %d types", n)
			return
		}
		valueType(r, "select")
		d.effect(3, 1)
	case op == opLocalGet:
		n := d.local(0)
		d.read(1)
		d.effect(0, 1)
		d.addr.put(d.h-1, d.addr.of(n))
		return
	case op == opLocalSet:
		d.addr.set(d.local(1), d.h-1)
		d.sets++
		d.effect(1, 0)
		return
	case op == opLocalTee:
		n := d.local(1)
		d.addr.set(n, d.h-1)
		d.addr.put(d.h-1, d.addr.of(n))
		d.sets++
		return
	case op == opGlobalGet:
		r.index("global", d.m.globals)
		d.pay(priceGlobal)
		d.read(1)
		d.effect(0, 1)
	case op == opGlobalSet:
		r.index("global", d.m.globals)
		d.pay(priceGlobal)
		d.effect(1, 0)
	case op == opTableGet:
		r.index("table", d.m.tables)
		d.pay(priceTable)
	case op == opTableSet:
		r.index("table", d.m.tables)
		d.pay(priceTable)
		d.effect(2, 0)
	case op >= 0x28 && op <= 0x3e:
		n := plainEffect(op)
		end := d.memarg() + accessSize[op-0x28]
		if d.addr.check(d.h-1+n/2, end) {
			d.access()
		}
		d.net(n)
		if n != 0 {
			return // a store leaves nothing
		}
	case op == opMemorySize:
		d.memoryZero()
		d.effect(0, 1)
	case op == opMemoryGrow:
		d.memoryZero()
		d.event(evGrow, start)
	case op == opI32Const:
		r.sint(32, "i32.const")
		d.effect(0, 1)
	case op == opI64Const:
		r.sint(64, "i64.const")
		d.effect(0, 1)
	case op == opF32Const:
		r.bytes(4, "f32.const")
		d.effect(0, 1)
	case op == opF64Const:
		r.bytes(8, "f64.const")
		d.effect(0, 1)
	case op >= 0x45 && op <= 0xc4:
		switch {
		case op >= opI32DivS && op <= opI32RemU, op >= opI64DivS && op <= opI64RemU:
			d.pay(priceDivide)
		case op >= opI32TruncF32S && op <= opI32TruncF64U, op >= opI64TruncF32S && op <= opI64TruncF64U:
			d.pay(priceTruncate)
		}
		d.net(plainEffect(op))
	case op == opRefNull:
		refType(r, "ref.null")
		d.effect(0, 1)
	case op == opRefIsNull:
	case op == opRefFunc:
		r.index("function", len(d.m.funcs))
		d.pay(priceFunc)
		d.effect(0, 1)
	case op == prefixMisc:
		d.misc(start)
	case op == prefixVec:
		d.vector(start)
	default:
		r.errorf(start, "opcode %#x (%s) is beyond WebAssembly 2.0", op, proposal(op))
	}
	d.addr.put(d.h-1, 0) // whatever it left there
}

// memarg reads alignment and offset. Bit 6 of the alignment announces a memory
// index.
func (d *decoder) memarg() (offset int64) {
	at := d.r.pos
	align := d.r.u32("alignment")
	if align >= 64 && align < 128 {
		d.r.errorf(at, "memory index in a memory instruction (multi-memory) is beyond WebAssembly 2.0")
	}
	offset = int64(d.r.u32("memory offset"))
	d.needMemory(at)
	return offset
}

// local reads the index of a local that is read (0) or written (1). One that
// is not there is the runtime's to refuse.
func (d *decoder) local(use int32) uint32 {
	n := d.r.u32("local index")
	if int64(n) < d.locals && d.known != unreached {
		d.f.ops = append(d.f.ops, int32(n)<<1|use)
	}
	return n
}

// needMemory refuses what the helper functions could otherwise make valid.
func (d *decoder) needMemory(at int) {
	if d.m.memories == 0 {
		d.r.errorf(at, "memory instruction in a module without a memory")
	}
}

// memoryZero reads the memory index that WebAssembly 2.0 fixes to one byte 0.
func (d *decoder) memoryZero() {
	at := d.r.pos
	if d.r.byte("memory index") != 0 {
		d.r.errorf(at, "memory index other than a zero byte (multi-memory) is beyond WebAssembly 2.0")
	}
	d.needMemory(at)
}

func (d *decoder) misc(start int) {
	r := d.r
	sub := r.u32("opcode")
	switch sub {
	case miscTableFill:
		d.pay(priceFill)
	case miscMemoryInit, miscTableInit, miscTableCopy:
		d.pay(priceBulk)
	case miscTableGrow, miscMemoryCopy, miscMemoryFill:
		d.pay(priceTable) // a call
	}
	switch {
	case sub <= 7: // saturating truncation
	case sub == miscMemoryInit:
		r.u32("data index")
		d.memoryZero()
		d.event(evBytes, start)
		d.effect(3, 0)
	case sub == miscDataDrop, sub == miscElemDrop:
		r.u32("segment index")
	case sub == miscMemoryCopy:
		d.memoryZero()
		d.memoryZero()
		d.event(evCopy, start)
		d.effect(3, 0)
	case sub == miscMemoryFill:
		d.memoryZero()
		d.event(evFill, start)
		d.effect(3, 0)
	case sub == miscTableInit:
		r.u32("element index")
		r.index("table", d.m.tables)
		d.event(evItems, start)
		d.effect(3, 0)
	case sub == miscTableCopy:
		r.index("table", d.m.tables)
		r.index("table", d.m.tables)
		d.event(evItems, start)
		d.effect(3, 0)
	case sub == miscTableGrow:
		r.index("table", d.m.tables)
		d.event(evItems, start)
		d.effect(2, 1)
	case sub == miscTableSize:
		r.index("table", d.m.tables)
		d.effect(0, 1)
	case sub == miscTableFill:
		r.index("table", d.m.tables)
		d.event(evItems, start)
		d.effect(3, 0)
	default:
		r.errorf(start, "opcode 0xfc %#x is beyond WebAssembly 2.0", sub)
	}
}

func (d *decoder) vector(start int) {
	sub := d.r.u32("vector opcode")
	if sub > 0xff {
		d.r.errorf(start, "opcode 0xfd %#x (relaxed SIMD) is beyond WebAssembly 2.0", sub)
		return
	}
	if vecReserved[sub] {
		d.r.errorf(start, "opcode 0xfd %#x is not a vector instruction", sub)
		return
	}
	d.wide = true
	memarg, extra, effect := vecShape(sub)
	if memarg {
		d.memarg()
		d.access()
	}
	d.r.bytes(extra, "vector immediate")
	d.net(effect)
}
