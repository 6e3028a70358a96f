package queue

import (
	"math/rand/v2"
	"time"
)

// Bounds of the pauses of a drainer. A guest's wish is bounded by waitLeast and
// waitMost. The pause before a fresh instance begins with restartLeast: there
// nobody has asked for patience, and making an instance takes as long again. A
// pause that repeats grows to growMost: what a sink waits for may be there again
// at any time, and looking every few seconds costs nothing.
const (
	waitLeast    = 10 * time.Millisecond
	waitMost     = 30 * time.Second
	restartLeast = time.Millisecond
	growMost     = 5 * time.Second
)

// budget counts incidents in a sliding window.
type budget struct {
	most   int
	window time.Duration
	spent  []time.Time // oldest first; those older than the window go at the next call
}

// spend counts an incident, and says whether the budget had room for it. One
// without room is not counted: the sink parks instead.
func (b *budget) spend(now time.Time) bool {
	if b.count(now) >= b.most {
		return false
	}
	b.spent = append(b.spent, now)
	return true
}

// count is how many incidents the window holds.
func (b *budget) count(now time.Time) int {
	n := 0
	for n < len(b.spent) && now.Sub(b.spent[n]) >= b.window {
		n++
	}
	b.spent = append(b.spent[:0], b.spent[n:]...)
	return len(b.spent)
}

// clear forgives what was.
func (b *budget) clear() { b.spent = b.spent[:0] }

// pause returns how long to wait for the n-th time in a row (from 0): wish the
// first time, then twice as long each time, less up to a quarter at random, so
// that sinks which failed together do not come back together. The result lies
// between least and most.
func pause(wish, least, most time.Duration, n int) time.Duration {
	d := min(max(wish, least), most)
	if n <= 0 {
		return d
	}
	for ; n > 0 && d < most; n-- {
		d *= 2
	}
	d = min(d, most)
	return max(d-rand.N(d/4+1), least)
}
