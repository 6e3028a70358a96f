package meter

import "strings"

// Section ids of the binary format, and the place each has in the order.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
)

var sectionNames = [...]string{
	"custom", "type", "import", "function", "table", "memory", "global",
	"export", "start", "element", "code", "data", "data count",
}

// sectionOrder[id] is the rank of a section: data count stands between
// element and code.
var sectionOrder = [...]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6, secExport: 7,
	secStart: 8, secElement: 9, secDataCount: 10, secCode: 11, secData: 12,
}

// section is one section of the module as it came.
type section struct {
	id         byte
	name       string // of a custom section
	header     int    // offset of the id
	start, end int    // contents; for custom sections after the name
	items      int    // offset after the element count, where there is one
	count      int
}

type funcType struct{ params, results []byte }

// body is one entry of the code section.
type body struct{ start, end int }

// table is a table that the module defines itself.
type table struct {
	limits int // offset of the limits
	end    int
	min    uint32
	max    uint32
	hasMax bool
}

// module is what Rewrite needs to know of a module, every index checked.
type module struct {
	b         []byte
	o         *Options
	sections  []section
	types     []funcType
	funcs     []uint32 // type of each function, imports first
	imported  int      // how many of funcs are imported
	tables    int      // size of the table index space
	memories  int
	globals   int
	own       []table
	elements  int64 // sum of the minimums of own
	mutable   int   // globals
	scanned   int64 // entries that the compiler goes through for each function
	cost      int64 // of compiling what has been read so far, in nanoseconds
	held      int64 // what that leaves behind, in bytes
	largest   share // the most that the compiler holds for one function, in bytes
	dearest   share // the most that one function costs
	addresses addresses
	flow      flow
	exports   int
	bodies    []body
}

// parseModule reads all of a module except the function bodies' instructions.
// Every count is checked against the bytes that are there, so that nothing
// later, neither here nor in the runtime, allocates by a number that a guest
// made up.
func parseModule(b []byte, o *Options) (*module, *Error) {
	m := &module{b: b, o: o}
	r := &reader{b: b, end: len(b), fn: -1}
	if len(b) > o.MaxModuleSize {
		r.limit(0, "MaxModuleSize", "module of %d bytes is larger than %d", len(b), o.MaxModuleSize)
		return nil, r.fail
	}
	if magic := string(r.bytes(4, "magic number")); magic != "\x00asm" {
		r.errorf(0, "not a WebAssembly binary")
	} else if version := string(r.bytes(4, "version")); version != "\x01\x00\x00\x00" {
		r.errorf(4, "version % x is not that of a core module (a component must be unpacked first)", version)
	}
	rank := 0
	for r.more() {
		s := section{header: r.pos}
		s.id = r.byte("section id")
		if int(s.id) >= len(sectionNames) {
			if s.id == 13 {
				r.errorf(s.header, "tag section (exception handling) is beyond WebAssembly 2.0")
			} else {
				r.errorf(s.header, "unknown section %d", s.id)
			}
			break
		}
		size := r.u32("section size")
		s.start = r.pos
		in := r.sub(int(size), sectionNames[s.id]+" section")
		s.end = r.pos
		if r.fail != nil {
			break
		}
		if s.id == secCustom {
			s.name = in.name("custom section name")
			s.start = in.pos
			in.pos = in.end
		} else if now := sectionOrder[s.id]; now <= rank {
			r.errorf(s.header, "%s section repeated or out of order", sectionNames[s.id])
			break
		} else {
			rank = now
			m.section(&s, &in)
			if in.fail == nil && in.pos != in.end {
				in.errorf(in.pos, "%s section: %d bytes left over", sectionNames[s.id], in.end-in.pos)
			}
		}
		if in.fail != nil {
			return nil, in.fail
		}
		m.sections = append(m.sections, s)
	}
	if have, want := len(m.bodies), len(m.funcs)-m.imported; r.fail == nil && have != want {
		r.errorf(len(b), "%d functions declared, %d bodies", want, have)
	}
	if r.fail != nil {
		return nil, r.fail
	}
	return m, nil
}

func (m *module) section(s *section, r *reader) {
	what := sectionNames[s.id]
	if s.id == secStart {
		r.index("function", len(m.funcs))
		return
	}
	if s.id == secDataCount {
		r.u32(what)
		return
	}
	at := r.pos
	s.count = r.count(what + " section")
	s.items = r.pos
	if most := sectionMost[s.id]; most != 0 && s.count > most {
		r.limit(at, limitCount, "%d entries in the %s section are more than %d", s.count, what, most)
	}
	m.list(r, s.id, s.count)
	for i := 0; i < s.count && r.fail == nil; i++ {
		switch s.id {
		case secType:
			m.typ(r)
		case secImport:
			m.imp(r)
		case secFunction:
			if len(m.funcs)-m.imported >= m.o.MaxFunctions {
				r.limit(r.pos, "MaxFunctions", "more than %d functions", m.o.MaxFunctions)
			}
			m.funcs = append(m.funcs, uint32(r.index("type", len(m.types))))
		case secTable:
			m.table(r, true)
		case secMemory:
			m.memory(r)
		case secGlobal:
			m.globalType(r)
			m.constExpr(r)
			m.globals++
		case secExport:
			m.export(r)
		case secElement:
			m.element(r)
		case secCode:
			at := r.pos
			size := r.u32("body size")
			if int64(size) > int64(m.o.MaxFunctionSize) {
				r.limit(at, "MaxFunctionSize", "function %d: a body of %d bytes is larger than %d: split it", m.imported+len(m.bodies), size, m.o.MaxFunctionSize)
				return
			}
			start := r.pos
			r.bytes(int(size), "function body")
			m.bodies = append(m.bodies, body{start, r.pos})
		case secData:
			m.data(r)
		}
	}
}

func valueType(r *reader, what string) byte {
	at := r.pos
	t := r.byte(what)
	switch t {
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f:
	default:
		r.errorf(at, "%s: value type %#x is beyond WebAssembly 2.0", what, t)
	}
	return t
}

func refType(r *reader, what string) {
	at := r.pos
	if t := r.byte(what); t != 0x70 && t != 0x6f {
		r.errorf(at, "%s: reference type %#x is beyond WebAssembly 2.0", what, t)
	}
}

func (m *module) typ(r *reader) {
	at := r.pos
	if form := r.byte("type"); form != 0x60 {
		r.errorf(at, "type form %#x is not a function type", form)
		return
	}
	var t funcType
	for _, dst := range []*[]byte{&t.params, &t.results} {
		at := r.pos
		n := r.count("value types")
		if n > maxArity {
			r.limit(at, limitArity, "type %d has %d parameters or results, more than %d", len(m.types), n, maxArity)
			return
		}
		m.spend(r, at, int64(n)*nsArity, int64(n)*byteArity)
		start := r.pos
		for range n {
			valueType(r, "function type")
			if r.fail != nil {
				return
			}
		}
		*dst = r.b[start:r.pos]
	}
	m.types = append(m.types, t)
}

func (m *module) imp(r *reader) {
	r.name("import module")
	r.name("import name")
	at := r.pos
	switch kind := r.byte("import kind"); kind {
	case 0:
		m.funcs = append(m.funcs, uint32(r.index("type", len(m.types))))
		m.imported++
	case 1:
		m.table(r, false)
	case 2:
		m.memory(r)
	case 3:
		m.globalType(r)
		m.globals++
	default:
		r.errorf(at, "import kind %#x is beyond WebAssembly 2.0", kind)
	}
}

func (m *module) globalType(r *reader) {
	valueType(r, "global type")
	at := r.pos
	mut := r.byte("mutability")
	if mut > 1 {
		r.errorf(at, "global mutability %#x is neither 0 nor 1", mut)
	}
	m.mutable += int(mut)
}

func limits(r *reader, what string) (lo, hi uint32, bounded bool) {
	at := r.pos
	switch flag := r.byte(what); flag {
	case 0:
		return r.u32(what), 0, false
	case 1:
		lo = r.u32(what)
		return lo, r.u32(what), true
	case 2, 3:
		r.errorf(at, "shared %s (threads) is beyond WebAssembly 2.0", what)
	default:
		r.errorf(at, "%s limits flag %#x is beyond WebAssembly 2.0", what, flag)
	}
	return 0, 0, false
}

func (m *module) table(r *reader, own bool) {
	refType(r, "table")
	t := table{limits: r.pos}
	t.min, t.max, t.hasMax = limits(r, "table")
	t.end = r.pos
	if own {
		if t.hasMax && t.max < t.min {
			r.errorf(t.limits, "table maximum %d is below its minimum %d", t.max, t.min)
		} else if m.elements += int64(t.min); m.elements > int64(m.o.MaxTableElements) {
			r.limit(t.limits, "MaxTableElements", "table of %d elements: all tables together have more than %d", t.min, m.o.MaxTableElements)
		} else if len(m.own) >= m.o.MaxTables {
			r.limit(t.limits, "MaxTables", "more than %d tables", m.o.MaxTables)
		}
		m.own = append(m.own, t)
	}
	m.tables++
}

func (m *module) memory(r *reader) {
	limits(r, "memory")
	m.memories++
	if m.memories > 1 {
		r.errorf(r.pos, "a second memory (multi-memory) is beyond WebAssembly 2.0")
	}
}

func (m *module) export(r *reader) {
	at := r.pos
	name := r.name("export name")
	if strings.HasPrefix(name, Reserved) {
		r.errorf(at, "export %q: names that begin with %q are reserved for the host, rename it", name, Reserved)
		return
	}
	at = r.pos
	switch kind := r.byte("export kind"); kind {
	case 0:
		r.index("function", len(m.funcs))
	case 1:
		r.index("table", m.tables)
	case 2:
		r.index("memory", m.memories)
	case 3:
		r.index("global", m.globals)
	default:
		r.errorf(at, "export kind %#x is beyond WebAssembly 2.0", kind)
	}
	m.exports++
}

// constExpr steps over an initialiser.
func (m *module) constExpr(r *reader) {
	for r.fail == nil {
		at := r.pos
		switch op := r.byte("constant expression"); op {
		case opEnd:
			return
		case opI32Const:
			r.sint(32, "i32.const")
		case opI64Const:
			r.sint(64, "i64.const")
		case opF32Const:
			r.bytes(4, "f32.const")
		case opF64Const:
			r.bytes(8, "f64.const")
		case opGlobalGet:
			r.index("global", m.globals)
		case opRefNull:
			refType(r, "ref.null")
		case opRefFunc:
			r.index("function", len(m.funcs))
		case prefixVec:
			if sub := r.u32("vector opcode"); sub != vecConst {
				r.errorf(at, "vector opcode %#x in a constant expression", sub)
			}
			r.bytes(16, "v128.const")
		default:
			r.errorf(at, "opcode %#x in a constant expression is beyond WebAssembly 2.0", op)
		}
	}
}

func (m *module) element(r *reader) {
	at := r.pos
	flag := r.u32("element segment flags")
	if flag > 7 {
		r.errorf(at, "element segment flags %#x are beyond WebAssembly 2.0", flag)
		return
	}
	if flag&1 == 0 { // active
		if flag&2 != 0 {
			r.index("table", m.tables)
		} else if m.tables == 0 {
			r.errorf(at, "element segment without a table")
		}
		m.constExpr(r)
	}
	exprs := flag&4 != 0
	if flag&3 != 0 {
		if exprs {
			refType(r, "element segment")
		} else {
			kindAt := r.pos
			if kind := r.byte("element kind"); kind != 0 {
				r.errorf(kindAt, "element kind %#x is beyond WebAssembly 2.0", kind)
			}
		}
	}
	at = r.pos
	n := r.count("element segment")
	m.spend(r, at, int64(n)*nsItem, int64(n)*byteItem)
	for ; n > 0 && r.fail == nil; n-- {
		if exprs {
			m.constExpr(r)
		} else {
			r.index("function", len(m.funcs))
		}
	}
}

func (m *module) data(r *reader) {
	at := r.pos
	flag := r.u32("data segment flags")
	switch flag {
	case 0, 2:
		if flag == 2 {
			r.index("memory", m.memories)
		} else if m.memories == 0 {
			r.errorf(at, "data segment without a memory")
		}
		m.constExpr(r)
	case 1:
	default:
		r.errorf(at, "data segment flags %#x are beyond WebAssembly 2.0", flag)
	}
	r.bytes(r.count("data segment"), "data segment")
}
