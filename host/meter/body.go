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
}

// function is one decoded body. Its slices are reused from body to body.
type function struct {
	events []event
	labels []int
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
	*f = function{events: f.events[:0], labels: f.labels[:0], ctrl: f.ctrl[:0], open: f.open, code: r.pos}

	d := decoder{m: m, r: r, f: f, wide: wide}
	f.ctrl = append(f.ctrl, construct{kind: evBlock, results: len(typ.results)})
	for len(f.ctrl) > 0 && r.fail == nil {
		d.instruction()
	}
	if r.fail == nil && r.pos != r.end {
		r.errorf(r.pos, "%d bytes after the end of the body", r.end-r.pos)
	}
	if r.fail == nil {
		m.cost += d.compileCost(slots)
		if n := len(f.events); n > m.o.MaxBranches {
			r.limit(b.start, "MaxBranches", "%d control instructions are more than %d", n, m.o.MaxBranches)
		} else if m.cost > m.o.MaxCompileCost {
			r.limit(b.start, "MaxCompileCost", "up to here compiling costs %d, which is more than %d", m.cost, m.o.MaxCompileCost)
		}
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
			r.limit(at, "MaxLocals", "%d parameters and locals are more than %d", slots, m.o.MaxLocals)
		}
	}
	return slots, wide
}

// compileCost estimates what the runtime's compiler takes for a function, in
// units of some nanoseconds. Measured with wazero v1.12.0, its time grows with
// the square of the control instructions and with the sum of the depths at
// which constructs open: 20,000 loops within each other, a module of 60 KB,
// took 41 s, and 100,000 empty ifs one after the other several minutes.
func (d *decoder) compileCost(locals int64) int64 {
	n := int64(len(d.f.events) + len(d.f.labels)/3)
	return n*n + 40*d.depths + 6*locals
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
	// depths is the sum of the depths at which constructs open.
	depths int64
}

func (d *decoder) effect(pop, push int) {
	base := 0
	if n := len(d.f.ctrl); n > 0 {
		base = d.f.ctrl[n-1].base
	}
	d.h = max(d.h-pop, base) + push
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
	d.f.events = append(d.f.events, event{kind: kind, start: start, end: d.r.pos, cost: d.run})
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
	d.f.ctrl[len(d.f.ctrl)-1-int(n)].targeted = true
	return int(n)
}

// dead resets the height after an instruction that does not fall through.
func (d *decoder) dead() { d.h = d.f.ctrl[len(d.f.ctrl)-1].base }

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
	d.event(kind, start)
	d.depths += int64(len(d.f.ctrl))
	d.effect(params, 0)
	d.f.ctrl = append(d.f.ctrl, construct{kind: kind, base: d.h, params: params, results: results})
	d.effect(0, params)
}

func (d *decoder) instruction() {
	r, f := d.r, d.f
	start := r.pos
	op := r.byte("instruction")
	if r.fail != nil {
		return
	}
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
		c.kind = evElse
		d.event(evElse, start)
		d.h = c.base
		d.effect(0, c.params)
	case op == opEnd:
		c := f.ctrl[len(f.ctrl)-1]
		e := d.event(evEnd, start)
		e.opener, e.targeted = c.kind, c.targeted
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
		d.effect(1, 0)
	case op == opBrTable:
		lo := len(f.labels)
		for n := r.count("br_table") + 1; n > 0 && r.fail == nil; n-- {
			f.labels = append(f.labels, d.label())
		}
		e := d.event(evBrTable, start)
		e.lo, e.hi = lo, len(f.labels)
		d.dead()
	case op == opReturn:
		d.event(evReturn, start).depth = len(f.ctrl) - 1
		d.dead()
	case op == opCall:
		t := d.m.types[d.m.funcs[r.index("function", len(d.m.funcs))]]
		f.calls = true
		d.effect(len(t.params), len(t.results))
	case op == opCallIndirect:
		t := d.m.types[r.index("type", len(d.m.types))]
		r.index("table", d.m.tables)
		f.calls = true
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
		r.u32("local index")
		d.effect(0, 1)
	case op == opLocalSet:
		r.u32("local index")
		d.sets++
		d.effect(1, 0)
	case op == opLocalTee:
		r.u32("local index")
		d.sets++
	case op == opGlobalGet:
		r.index("global", d.m.globals)
		d.effect(0, 1)
	case op == opGlobalSet:
		r.index("global", d.m.globals)
		d.effect(1, 0)
	case op == opTableGet:
		r.index("table", d.m.tables)
	case op == opTableSet:
		r.index("table", d.m.tables)
		d.effect(2, 0)
	case op >= 0x28 && op <= 0x3e:
		d.memarg()
		d.net(plainEffect(op))
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
		d.net(plainEffect(op))
	case op == opRefNull:
		refType(r, "ref.null")
		d.effect(0, 1)
	case op == opRefIsNull:
	case op == opRefFunc:
		r.index("function", len(d.m.funcs))
		d.effect(0, 1)
	case op == prefixMisc:
		d.misc(start)
	case op == prefixVec:
		d.vector(start)
	default:
		r.errorf(start, "opcode %#x (%s) is beyond WebAssembly 2.0", op, proposal(op))
	}
}

// memarg reads alignment and offset. Bit 6 of the alignment announces a memory
// index.
func (d *decoder) memarg() {
	at := d.r.pos
	align := d.r.u32("alignment")
	if align >= 64 && align < 128 {
		d.r.errorf(at, "memory index in a memory instruction (multi-memory) is beyond WebAssembly 2.0")
	}
	d.r.u32("memory offset")
	d.needMemory(at)
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
	switch sub := r.u32("opcode"); {
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
	}
	d.r.bytes(extra, "vector immediate")
	d.net(effect)
}
