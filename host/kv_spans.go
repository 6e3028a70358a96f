package host

import (
	"encoding/binary"
	"errors"
	"slices"
)

// spans is a set of positions in a queue: ascending spans that do not touch.
type spans []span

type span struct{ first, last uint64 }

// maxSpans bounds a set. Positions are taken nearly in order, so that a set has
// a gap for each event that was rejected; the lowest are forgotten first, which
// lie far below any cursor.
const maxSpans = 512

var errSpans = errors.New("the covered positions are malformed")

func (s spans) has(n uint64) bool {
	_, found := s.find(n)
	return found
}

// find returns the span that has n, or where one would be put.
func (s spans) find(n uint64) (int, bool) {
	return slices.BinarySearchFunc(s, n, func(p span, n uint64) int {
		switch {
		case p.last < n:
			return -1
		case p.first > n:
			return 1
		}
		return 0
	})
}

// add puts a position in. 0 is none: an event without a place in a queue is
// never covered.
func (s *spans) add(n uint64) {
	i, found := s.find(n)
	if n == 0 || found {
		return
	}
	list := *s
	before := i > 0 && list[i-1].last+1 == n
	after := i < len(list) && list[i].first-1 == n
	switch {
	case before && after:
		list[i-1].last = list[i].last
		list = slices.Delete(list, i, i+1)
	case before:
		list[i-1].last = n
	case after:
		list[i].first = n
	default:
		list = slices.Insert(list, i, span{n, n})
	}
	if over := len(list) - maxSpans; over > 0 {
		list = slices.Delete(list, 0, over)
	}
	*s = list
}

// encode writes the set as first and last of each span, u64 little-endian.
func (s spans) encode() []byte {
	b := make([]byte, 0, 16*len(s))
	for _, p := range s {
		b = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, p.first), p.last)
	}
	return b
}

func decodeSpans(b []byte) (spans, error) {
	if len(b)%16 != 0 {
		return nil, errSpans
	}
	var s spans
	for ; len(b) > 0; b = b[16:] {
		p := span{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
		if p.first == 0 || p.last < p.first || len(s) > 0 && p.first <= s[len(s)-1].last {
			return nil, errSpans
		}
		s = append(s, p)
	}
	return s, nil
}
