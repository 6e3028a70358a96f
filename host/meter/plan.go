package meter

// spread bounds how much more than the instructions it executes a path can be
// charged between two charge points. Smaller is fairer and slower.
const spread = 32

// plan decides where a function is charged and how much.
//
// Charge points are the function's entry, the head of every loop that is
// branched to, and as many labels and arms in between as fairness needs. What
// is charged at a point is the length of the longest path from there to the
// next charge points, or out of the function. So no path can execute more
// instructions than it was charged: all cycles go through a loop head or a
// function entry, and everything between two points is paid at the first.
//
// The lengths are found walking backwards. Code is structured, so when the
// walk meets a branch the cost behind its label is known: the label of a block
// or an if lies further back in the walk, and that of a loop costs nothing, as
// its head is a charge point. Where two paths meet behind a label and the rest
// is at least spread, the label becomes a charge point, and where one arm of a
// branch is longer than the other by more than spread, that arm does. A jump
// table over a big function (every function of a Go guest is one) then pays
// for the blocks it runs through, not for the whole function at each turn.
func plan(f *function) {
	stack := f.open[:0]
	var c int64 // cost from here to the next charge points
	for i := len(f.events) - 1; i >= 0; i-- {
		e := &f.events[i]
		switch e.kind {
		case evEnd:
			o := arm{end: i, elseAt: -1}
			if e.opener != evLoop { // a loop's label is its head, which is paid there
				meet := e.targeted || e.opener != evBlock
				if meet && c >= spread {
					e.charge, c = c, 0
				}
				o.label = c
			}
			stack = append(stack, o)
		case evElse:
			o := &stack[len(stack)-1]
			o.orelse, o.elseAt = c, i
			c = o.label
		case evIf:
			o := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			other := o.label
			if o.elseAt >= 0 {
				other = o.orelse
				if other > c+spread {
					f.events[o.elseAt].charge, other = other, 0
				}
			}
			if c > other+spread {
				e.charge, c = c, 0
			}
			c = max(c, other)
		case evBlock:
			stack = stack[:len(stack)-1]
		case evLoop:
			o := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if f.events[o.end].targeted {
				f.loops = true
				e.charge, c = c, 0
			}
		case evBr:
			c = stack[len(stack)-1-e.depth].label
		case evBrIf:
			taken := stack[len(stack)-1-e.depth].label
			if c > taken+spread {
				e.charge, c = c, 0
			}
			c = max(c, taken)
		case evBrTable:
			c = 0
			for _, n := range f.labels[e.lo:e.hi] {
				c = max(c, stack[len(stack)-1-n].label)
			}
		case evReturn, evUnreachable:
			c = 0
		}
		c += e.cost
	}
	f.entry = c + 1 // the call itself
	f.open = stack
}

// arm is a construct that the backward walk is inside of.
type arm struct {
	end    int   // index of its end event
	label  int64 // cost of a branch to its label
	orelse int64 // cost of the else arm
	elseAt int   // index of the else event, -1 without
}
