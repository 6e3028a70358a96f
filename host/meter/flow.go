package meter

import "math/bits"

// flow counts which locals live where, and which become parameters of joins. A
// local lives where it is read later and not written before that. At a label it
// costs the compiler a look back along each branch; if it was written in the
// construct, or if there is a loop, it becomes a parameter of the label and a
// move at each branch. Loops are taken as a whole: what is read anywhere in one
// lives at its head.
type flow struct {
	words int
	free  []locals
	uses  []uses // of the constructs, in the order of their ends
	open  []join
}

// uses are the locals that a construct reads, and those that may have several
// values at its label.
type uses struct{ read, written locals }

// locals is a set of them.
type locals []uint64

func (s locals) add(i int32)    { s[i>>6] |= 1 << (i & 63) }
func (s locals) remove(i int32) { s[i>>6] &^= 1 << (i & 63) }

func (s locals) union(o locals) {
	for i, w := range o {
		s[i] |= w
	}
}

func (s locals) count() (n int64) {
	for _, w := range s {
		n += int64(bits.OnesCount64(w))
	}
	return n
}

func (s locals) common(o locals) (n int64) {
	for i, w := range s {
		n += int64(bits.OnesCount64(w & o[i]))
	}
	return n
}

// join is a construct that the backward walk is inside of.
type join struct {
	label  locals // what lives at it
	lives  int64  // how many those are
	count  int64  // how many of those are parameters
	orelse locals // what lives at the begin of the else arm
	loop   bool
	arity  int64 // values that a branch carries beside the locals
}

func (w *flow) set() locals {
	if n := len(w.free); n > 0 {
		s := w.free[n-1]
		w.free = w.free[:n-1]
		clear(s)
		return s
	}
	return make(locals, w.words)
}

func (w *flow) copy(o locals) locals {
	s := w.set()
	copy(s, o)
	return s
}

// drop makes sets free again.
func (w *flow) drop(sets ...locals) {
	for _, s := range sets {
		if s != nil {
			w.free = append(w.free, s)
		}
	}
}

// collect fills in the uses of each construct.
func (w *flow) collect(f *function) {
	open := w.uses[:0] // and those that have ended, behind them
	var ended []uses
	done := 0
	fresh := func() { open = append(open, uses{w.set(), w.set()}) }
	fresh() // of the function
	for i := range f.events {
		e := &f.events[i]
		c := &open[len(open)-1]
		for _, op := range f.ops[done:e.ops] {
			if op&1 == 0 {
				c.read.add(op >> 1)
			} else {
				c.written.add(op >> 1)
			}
		}
		done = e.ops
		switch e.kind {
		case evBlock, evLoop, evIf:
			fresh()
		case evEnd:
			u := *c
			if e.opener == evLoop {
				for k := range u.written {
					u.written[k] = ^uint64(0)
				}
			}
			if open = open[:len(open)-1]; len(open) > 0 {
				c = &open[len(open)-1]
				c.read.union(u.read)
				c.written.union(u.written)
			}
			ended = append(ended, u)
		}
	}
	w.uses = ended
}

// count adds to the work what the locals of a function make.
func (w *flow) count(f *function, d *work) {
	if words := int(d.locals+63) / 64; words != w.words {
		w.words, w.free = words, nil
	}
	w.collect(f)
	live := w.set()
	edge := func(e *event, c *join) {
		if e.dead {
			return
		}
		n := c.count + c.arity
		d.edges += n
		d.pairs += n * n
		d.looks += c.lives
		d.steps += c.lives * e.chain
	}
	to := func(depth int) *join { return &w.open[len(w.open)-1-depth] }
	for i := len(f.events) - 1; i >= 0; i-- {
		e := &f.events[i]
		switch e.kind {
		case evEnd:
			n := len(w.uses) - 1
			u := w.uses[n]
			w.uses = w.uses[:n]
			c := join{arity: e.arity, loop: e.opener == evLoop, label: w.copy(live)}
			if c.loop {
				c.label.union(u.read)
			}
			c.lives, c.count = c.label.count(), c.label.common(u.written)
			w.drop(u.read, u.written)
			if !c.loop {
				edge(e, &c)
			}
			w.open = append(w.open, c)
		case evElse:
			c := to(0)
			edge(e, c)
			c.orelse = live
			live = w.copy(c.label)
		case evIf:
			c := to(0)
			if c.orelse != nil {
				live.union(c.orelse)
			} else {
				edge(e, c)
				live.union(c.label)
			}
		case evLoop:
			edge(e, to(0))
			live.union(to(0).label)
		case evBr:
			edge(e, to(e.depth))
			copy(live, to(e.depth).label)
		case evBrIf:
			edge(e, to(e.depth))
			live.union(to(e.depth).label)
		case evBrTable:
			clear(live)
			for _, n := range f.labels[e.lo:e.hi] {
				edge(e, to(n))
				live.union(to(n).label)
			}
		case evReturn:
			edge(e, to(e.depth))
			clear(live)
		case evUnreachable:
			clear(live)
		}
		if e.kind == evIf || e.kind == evBlock || e.kind == evLoop {
			c := to(0)
			w.drop(c.label, c.orelse)
			w.open = w.open[:len(w.open)-1]
		}
		if !e.dead {
			d.live += live.count()
		}
		from := 0
		if i > 0 {
			from = f.events[i-1].ops
		}
		for k := e.ops - 1; k >= from; k-- {
			if op := f.ops[k]; op&1 == 0 {
				live.add(op >> 1)
			} else {
				live.remove(op >> 1)
			}
		}
	}
	for _, c := range w.open { // that of the function
		w.drop(c.label, c.orelse)
	}
	w.open = w.open[:0]
	w.drop(live)
}
