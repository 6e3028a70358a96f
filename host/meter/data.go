package meter

import (
	"cmp"
	"slices"
)

// maxGap is the largest hole between two data segments that is filled, in bytes. A
// segment costs a runtime more than to copy a few zeros. Go's linker leaves out
// every run of zeros that is longer than a segment's header: a sink of three
// megabytes has 37,000 segments, which were half the time that a fresh instance
// took. With these holes filled it has 12, and 0.5 MB of data more.
const maxGap = 64

// maxSegments bounds the segments that are joined: Go's linker makes 100,000 at most.
const maxSegments = 1 << 20

// segment is an active data segment: where it goes in the memory, and where its
// bytes stand in the module.
type segment struct{ from, at, size uint32 }

// joined gives the contents of the data section with segments close to each other
// made one. It is false where that might not be the same: one of them is passive or
// placed by a global, two overlap, the memory is somebody else's and may hold
// something, or instructions can name segments (there is a data count).
func (m *module) joined(s section) ([]byte, bool) {
	own := false
	for _, other := range m.sections {
		own = own || other.id == secMemory && other.count > 0
		if other.id == secDataCount {
			return nil, false
		}
	}
	if !own || s.count > maxSegments {
		return nil, false
	}
	segments := make([]segment, s.count)
	r := &reader{b: m.b, pos: s.items, end: s.end, fn: -1}
	for i := range segments {
		var ok bool
		if segments[i], ok = active(r); !ok {
			return nil, false
		}
	}
	slices.SortStableFunc(segments, func(a, b segment) int { return cmp.Compare(a.from, b.from) })
	var out, run []byte // run is the segment that is being made
	from, end, n := uint32(0), uint64(0), 0
	flush := func() {
		if n > 0 {
			out = appendS64(append(out, 0, opI32Const), int64(int32(from)))
			out = append(appendU32(append(out, opEnd), uint32(len(run))), run...)
		}
	}
	for i, seg := range segments {
		if uint64(seg.from) < end {
			return nil, false
		}
		data := m.b[seg.at : seg.at+seg.size]
		if gap := uint64(seg.from) - end; i > 0 && gap <= maxGap {
			run = append(append(run, make([]byte, gap)...), data...)
		} else {
			flush()
			from, run = seg.from, append(run[:0], data...)
			n++
		}
		end = uint64(seg.from) + uint64(seg.size)
	}
	flush()
	return append(appendU32(nil, uint32(n)), out...), true
}

// active reads a segment of the memory at a constant offset.
func active(r *reader) (segment, bool) {
	switch r.u32("data segment flags") {
	case 0:
	case 2:
		r.u32("memory index") // there is one memory
	default:
		return segment{}, false
	}
	if r.byte("offset") != opI32Const {
		return segment{}, false
	}
	from := r.sint(32, "i32.const")
	if r.byte("offset") != opEnd {
		return segment{}, false
	}
	size := r.count("data segment")
	at := r.pos
	r.bytes(size, "data segment")
	return segment{uint32(from), uint32(at), uint32(size)}, r.fail == nil
}
