package meter

import "fmt"

// What a runtime's compiler takes for a module, estimated before it sees it.
//
// A compiler is linear in most of a module and superlinear in some products
// that a small module can make large: locals times labels, where each local
// becomes a parameter of each label; values that live across many blocks; calls
// times results; reads that walk back through a chain of blocks to the
// definition. The decoder counts those products in its one pass, and flow those
// of locals. The factors are measured with wazero v1.12.0, each by the worst
// module that could be found for its term, in nanoseconds of a processor that
// others use too and in bytes. RATIONALE has the figures, FuzzCompileCost the
// modules.
const (
	nsEdge     = 1000 // a value that an edge carries to a join
	nsLook     = 700  // a local that lives at a join, for each edge to it
	nsValue    = 500  // a value that goes through a call, a block or a branch
	nsLive     = 40   // a value that lives at a control instruction
	nsClimb    = 16   // a block above an edge in the tree of dominators
	nsDepth    = 40   // a level of nesting where a construct opens
	nsPair     = 1    // a pair of branches of one function
	nsPhi      = 3    // a pair of values at an edge, for each level of loops
	nsStep     = 30   // a block that a read or a join walks back through
	nsBound    = 60   // an address that is known to be good, at a control instruction
	nsFunction = 8000
	nsLocal    = 40
	nsScan     = 6    // an entry of a list that is gone through for each function
	nsEntry    = 2000 // an entry of a section
	nsArity    = 2500 // a parameter or result of a type
	nsItem     = 500  // an element of a segment
	nsTouch10  = 25   // ten bytes more than any function before needs: fresh memory is dear

	byteEdge  = 500
	byteLook  = 80
	byteValue = 300
	byteLive  = 16
	byteBound = 32
	byteLocal = 64
	byteEntry = 600
	byteArity = 200
	byteItem  = 100
	// codeShare is which part of that is machine code in the end, in all its copies.
	codeShare = 16
)

// price is what one instruction takes beside what the products count.
type price struct{ ns, bytes int64 }

var (
	pricePlain    = price{400, 200}
	priceAccess   = price{7000, 5000} // with a check of the bounds
	priceDivide   = price{6000, 6000}
	priceTruncate = price{8000, 8000}
	priceControl  = price{2000, 4000}
	priceLabel    = price{5000, 2500} // of a jump table
	priceCall     = price{1500, 2000}
	priceIndirect = price{20_000, 14_000}
	priceTable    = price{6000, 4500} // table.get and set
	priceBulk     = price{45_000, 25_000}
	priceFill     = price{160_000, 36_000} // table.fill
	priceGlobal   = price{1200, 800}
	priceFunc     = price{3000, 2500}
)

// Limits that are not for anyone to move.
const (
	// maxArity is the most parameters, and the most results, of a type, as in
	// other engines.
	maxArity = 1000
	// maxOperands is the most values on the operand stack.
	maxOperands = 10_000

	limitArity    = "type size"
	limitCount    = "section entries"
	limitOperands = "operands"
	limitName     = "name"
)

// sectionMost is the most entries of each section that has no option for it.
var sectionMost = [...]int{
	secType: 10_000, secImport: 10_000, secGlobal: 10_000, secExport: 20_000, secElement: 10_000, secData: 100_000,
	secDataCount: 0, // the last, so that each section has a place
}

// place is where a walk through a function is.
type place struct{ known, chain, depth int64 }

// unreached stands for the number of known addresses in code that nothing
// reaches, which is not compiled.
const unreached = 1 << 62

// work is what the decoder counts of one function for its cost.
type work struct {
	paid   price // for the instructions
	edges  int64 // values that edges carry to joins
	looks  int64 // locals that live at those
	values int64 // parameters and results of calls, blocks and branches
	live   int64 // locals that are read later, operands and globals at each control instruction
	pairs  int64 // of the values that an edge carries
	climbs int64 // blocks above the edges in the tree of dominators
	depths int64 // sum of the depths at which constructs open
	steps  int64 // blocks that reads and joins walk back through
	bounds int64 // known addresses at each control instruction

	locals  int64
	globals int64 // of the module: a function may hold each in a value
	mutable int64 // of those, what a call makes it load again
	chain   int64 // blocks back to the last join
	depth   int64 // of this block in the tree of dominators, at most
	known   int64 // addresses that were accessed since, at most
	loops   int64 // open loops
	nest    int64 // the most of them
}

func (w *work) pay(p price) {
	w.paid.ns += p.ns
	w.paid.bytes += p.bytes
}

// control counts a control instruction with so many operands below it.
func (w *work) control(operands int) {
	if w.known == unreached {
		return
	}
	w.pay(priceControl)
	w.live += w.globals + int64(operands)
	w.bounds += w.known
	w.climbs += w.depth
}

// edge counts a branch to the label of a construct.
func (w *work) edge(c *construct) {
	if w.known == unreached {
		return
	}
	values := int64(c.results)
	if c.kind == evLoop {
		values = int64(c.params)
	} else {
		c.known, c.depth = min(c.known, w.known), min(c.depth, w.depth)
	}
	w.values += values
	w.climbs += w.depth
	w.bounds += w.known
}

// opened counts a construct that has just been opened.
func (w *work) opened(c *construct, depth int) {
	c.known, c.depth = unreached, unreached
	c.before = place{w.known, w.chain, w.depth}
	if w.known == unreached {
		return
	}
	w.depths += int64(depth)
	w.values += int64(c.params + c.results)
	switch c.kind {
	case evLoop:
		w.depths += 10 * w.loops // dearer within other loops
		w.edge(c)
		w.chain = 0
		w.control(0) // the meter looks at each head
		w.control(0)
		w.depth += 3
		w.loops++
		w.nest = max(w.nest, w.loops)
	case evIf:
		w.next()
	}
}

// next goes to a block that has no other before it.
func (w *work) next() {
	w.chain++
	w.depth++
}

// orelse goes from the one arm of an if to the other.
func (w *work) orelse(c *construct) {
	w.edge(c)
	w.known, w.chain, w.depth = c.before.known, c.before.chain+1, c.before.depth+1
}

// closed counts the end of a construct.
func (w *work) closed(c *construct) {
	switch {
	case c.kind == evLoop:
		w.loops--
		w.next()
		return
	case c.kind == evIf: // the other arm is empty
		w.orelse(c)
	}
	w.edge(c)
	w.known, w.depth = c.known, c.depth
	w.next()
	if c.targeted || c.kind != evBlock {
		w.chain = 0
	}
}

// read counts what looks for the last definition of a local, a global or the
// memory's place.
func (w *work) read(n int64) {
	if w.known != unreached {
		w.steps += n * (w.chain + 1)
	}
}

// access counts a load or store.
func (w *work) access() {
	if w.known != unreached {
		w.known++
		w.pay(priceAccess)
		w.read(2)
	}
}

// call counts a call. After it the memory's place and all mutable globals are
// loaded again.
func (w *work) call(t funcType) {
	w.pay(priceCall)
	w.values += int64(len(t.params)+len(t.results)) + w.mutable
}

// time is what a function with so many control instructions takes, in
// nanoseconds.
func (w *work) time(n int64) int64 {
	return nsFunction + w.paid.ns + nsEdge*w.edges + nsLook*w.looks + nsValue*w.values + nsLive*w.live + nsClimb*w.climbs +
		nsDepth*w.depths + nsPair*n*n + nsPhi*min(w.pairs, 1<<44)*(1+w.nest) + nsStep*w.steps + nsBound*w.bounds + nsLocal*w.locals
}

// memory is what the compiler holds for it, in bytes.
func (w *work) memory() int64 {
	return w.paid.bytes + byteEdge*w.edges + byteLook*w.looks + byteValue*w.values + byteLive*w.live + byteBound*w.bounds + byteLocal*w.locals
}

// charge adds a decoded function to the cost of the module.
func (m *module) charge(d *decoder, at int) {
	n := len(d.f.events)
	m.flow.count(d.f, &d.work)
	most, ns := d.memory(), d.time(int64(n+len(d.f.labels)))
	if ns > m.dearest.n {
		m.dearest = share{d.r.fn, ns}
	}
	if fresh := most - m.largest.n; fresh > 0 {
		ns += fresh * nsTouch10 / 10
		m.largest = share{d.r.fn, most}
	}
	m.spend(d.r, at, ns, most/codeShare+8*d.locals)
}

// list counts the entries of a section. For each function the compiler goes
// through most of the lists.
func (m *module) list(r *reader, id byte, n int) {
	ns, bytes := int64(n)*nsEntry, int64(n)*byteEntry
	switch id {
	case secCode:
		ns = int64(n) * m.scanned * nsScan
	case secType, secImport, secGlobal, secExport:
		m.scanned += int64(n)
	}
	m.spend(r, r.pos, ns, bytes)
}

// spend adds to the cost of the module and looks whether it is too much.
func (m *module) spend(r *reader, at int, ns, bytes int64) {
	m.cost += ns
	m.held += bytes
	switch most := m.held + m.largest.n; {
	case m.cost > m.o.MaxCompileCost:
		r.limit(at, "MaxCompileCost", "up to here compiling costs %d units, which is more than %d%s", m.cost, m.o.MaxCompileCost, m.dearest)
	case most > m.o.MaxCompileMemory:
		r.limit(at, "MaxCompileMemory", "up to here compiling needs %d bytes, which is more than %d%s", most, m.o.MaxCompileMemory, m.largest)
	}
}

// share is what the function that has most of something has of it.
type share struct {
	fn int
	n  int64
}

// String is for the end of an error, where it says what to do.
func (s share) String() string {
	if s.n == 0 {
		return ""
	}
	return fmt.Sprintf(", and of that %d for function %d alone: split it, or use fewer locals and branches in it", s.n, s.fn)
}
