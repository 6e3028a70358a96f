package meter

// addresses follows which accesses the compiler knows to be within the memory
// because the same value was checked already: of the loads and stores of real
// guests that is the larger part, and the cheap one. A value is known by the
// local that it was read from, between two joins.
type addresses struct {
	values []value // of each local, if its era is now
	era    int32   // grows at each join
	stack  []int32 // numbers of the operands, 0 for an unknown one
	known  []known // by the number of a value
}

// value is the number of a local's value and when that was noted.
type value struct{ number, era int32 }

// known is how far behind a value accesses have been checked, and when.
type known struct {
	end int64
	era int32
}

// reset begins a function.
func (a *addresses) reset(locals int64) {
	for len(a.values) < int(locals) {
		a.values = append(a.values, value{})
	}
	a.join()
	a.stack = a.stack[:0]
	a.known = append(a.known[:0], known{}) // 0 is no value
}

// join forgets everything: behind it each local may have another value.
func (a *addresses) join() { a.era++ }

func (a *addresses) fresh() int32 {
	a.known = append(a.known, known{})
	return int32(len(a.known) - 1)
}

// of gives the number of a local's value.
func (a *addresses) of(local uint32) int32 {
	if int(local) >= len(a.values) {
		return 0 // no such local: the runtime refuses the module
	}
	v := &a.values[local]
	if v.era != a.era {
		*v = value{a.fresh(), a.era}
	}
	return v.number
}

// set gives a local the value of the operand at a height.
func (a *addresses) set(local uint32, height int) {
	if int(local) >= len(a.values) {
		return
	}
	n := a.at(height)
	if n == 0 {
		n = a.fresh()
	}
	a.values[local] = value{n, a.era}
}

func (a *addresses) at(height int) int32 {
	if height < 0 || height >= len(a.stack) {
		return 0
	}
	return a.stack[height]
}

// put notes the number of the operand at a height.
func (a *addresses) put(height int, n int32) {
	if height < 0 {
		return
	}
	for len(a.stack) <= height {
		a.stack = append(a.stack, 0)
	}
	a.stack[height] = n
}

// check tells whether an access that ends so many bytes behind the operand at
// a height has to be checked anew, and notes that it was.
func (a *addresses) check(height int, end int64) bool {
	n := a.at(height)
	if n == 0 {
		return true
	}
	k := &a.known[n]
	if k.era == a.era && k.end >= end {
		return false
	}
	*k = known{end, a.era}
	return true
}
