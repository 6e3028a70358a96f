package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
)

// places is the import of that name. What it is told is a guest's word: it is taken
// only with an answer that it fits, by place.
func (s *Sink) places(ctx context.Context, mod api.Module, stack []uint64) {
	c, n := &s.call, uint64(uint32(stack[1]))
	b := view(mod, stack[0], min(n*abi.PlaceSize, math.MaxUint32))
	switch {
	case c.placed:
		c.violate("R28", "places were told twice")
		return
	case n != uint64(c.events):
		c.violate("R28", "%d places for a batch of %d events", n, c.events)
		return
	}
	c.placed = true
	c.places = slices.Grow(c.places[:0], int(n))[:n]
	le := binary.LittleEndian
	for i := range c.places {
		if i%(portion/abi.PlaceSize) == 0 {
			mayGoOn(ctx)
		}
		x := b[i*abi.PlaceSize:][:abi.PlaceSize]
		c.places[i] = abi.Place{Sequence: le.Uint64(x[abi.PlaceSequence:]), Flags: le.Uint32(x[abi.PlaceFlags:])}
		copy(c.places[i].RowHash[:], x[abi.PlaceRowHash:])
		if le.Uint32(x[abi.PlaceFlags+4:]) != 0 {
			c.places[i].Flags = math.MaxUint32 // which is none
		}
	}
}

// misplaced says what is wrong with the places that go with an answer; "" if nothing
// is. id tells an event's id, and is nil where nobody knows.
//
// The events that are stored now are written in the order of the batch (R21), so
// their sequences rise, and to compare each with the one before is enough. Where
// some were there before, each sequence is looked up.
func misplaced(list []abi.Place, r *abi.Result, id func(i int) string) string {
	var last uint64
	again := false
	for i := range list {
		p := &list[i]
		stored := r.Outcome == abi.OK || r.Verdicts[i].Code == abi.OK
		switch {
		case !stored && *p != (abi.Place{}):
			return fmt.Sprintf("a place for event %d, which is not stored", i)
		case !stored:
		case p.Sequence == 0 || p.Sequence > math.MaxInt64:
			return fmt.Sprintf("sequence %d for event %d; it must be from 1 to 2^63-1", p.Sequence, i)
		case p.Flags&^abi.PlaceStoredNow != 0:
			return fmt.Sprintf("flags %#x for event %d", p.Flags, i)
		case !p.StoredNow():
			again = true
		case p.Sequence <= last:
			return fmt.Sprintf("sequence %d for event %d, stored now as an event before it at %d", p.Sequence, i, last)
		default:
			last = p.Sequence
		}
	}
	if !again {
		return ""
	}
	first := make(map[uint64]int, len(list))
	for i := range list {
		p := &list[i]
		if p.Sequence == 0 {
			continue
		}
		k, taken := first[p.Sequence]
		switch {
		case !taken:
			first[p.Sequence] = i
		case p.StoredNow(), p.RowHash != list[k].RowHash, id != nil && id(i) != id(k):
			return fmt.Sprintf("events %d and %d have the sequence %d", k, i, p.Sequence)
		}
	}
	return ""
}
