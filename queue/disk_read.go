package queue

import (
	"errors"
	"fmt"
	"sort"
	"time"
)

// trimTail drops what no open consumer will want from memory, and the oldest if
// it takes too much. For a consumer that is behind what is there, and so reads
// files, an eighth is enough to find it when it has caught up; all of it would
// only be memory that a backlog costs. core.mu is held.
func (q *Disk) trimTail() {
	low, keep := q.durable, int64(0)
	for _, con := range q.open {
		if at := con.c.delivered; len(q.tail) > 0 && at+1 < q.tail[0].first {
			keep = q.o.CacheBytes / 8
		} else {
			low = min(low, at)
		}
	}
	n := 0
	for n < len(q.tail) && (q.tailBytes > q.o.CacheBytes || len(q.open) > 0 && q.tailBytes > keep && q.tail[n].last() <= low) {
		q.tailBytes -= int64(cap(q.tail[n].buf))
		q.tail[n].buf = nil
		q.tail[n] = nil
		n++
	}
	q.tail = q.tail[n:]
}

// cached returns the frame of seq if it is in memory. core.mu is held.
func (q *Disk) cached(seq Seq) (frame, bool) {
	i := sort.Search(len(q.tail), func(i int) bool { return q.tail[i].first > seq }) - 1
	if i < 0 {
		return frame{}, false
	}
	b := q.tail[i]
	return frame{
		frameHeader: frameHeader{first: b.first, at: b.at, events: b.n},
		body:        b.buf[frameHeaderSize:],
	}, true
}

// diskReader reads for one consumer.
type diskReader struct {
	q   *Disk
	con *consumer

	// Of the goroutine that calls Next; r also of close, which is called while the
	// consumer is not busy.
	now  frame  // the frame whose records come next
	rest []byte // those records
	next Seq    // position of the first of them
	r    frameReader
}

func (q *Disk) reader(con *consumer) reader { return &diskReader{q: q, con: con} }

// read implements reader.
func (dr *diskReader) read(maxEvents, maxBytes int) (Batch, error) {
	q, c := dr.q, dr.con.c
	b := Batch{First: c.delivered + 1}
	for want, size, full := b.First, 0, false; !full; want = b.Last() + 1 {
		if want != dr.next || len(dr.rest) == 0 {
			if want > q.durable || want < q.head {
				break
			}
			err := dr.find(want)
			if dr.con.closed {
				return Batch{}, ErrClosed
			}
			if err != nil && len(b.Events) > 0 {
				break // what there is first; the error comes again
			}
			if err != nil {
				if lost := q.skipLost(c); lost != nil {
					err = lost // the segment was removed under the reader
				}
				return Batch{}, err
			}
		}
		if b.Events == nil {
			b.Events = make([]Entry, 0, min(Seq(maxEvents), q.durable-want+1))
		}
		// The frame is not changed by anybody, but decoding takes its time.
		var err error
		q.mu.Unlock()
		size, full, err = dr.decode(&b, maxEvents, maxBytes, size)
		q.mu.Lock()
		if dr.con.closed {
			return Batch{}, ErrClosed
		}
		if err != nil {
			return Batch{}, err
		}
	}
	if len(b.Events) == 0 {
		return Batch{}, nil
	}
	c.delivered = b.Last()
	q.trimTail()
	return b, nil
}

// find makes the frame of want, which is durable and kept, the one that is
// decoded. core.mu is held, but not while a file is read.
func (dr *diskReader) find(want Seq) error {
	q := dr.q
	f, ok := q.cached(want)
	if !ok {
		i := q.segmentOf(want)
		s, until := q.segs[i], q.durable
		if i+1 < len(q.segs) {
			until = q.segs[i+1].first - 1
		}
		near, limit := s.place(want), s.end
		var err error
		dr.con.busy++
		q.operation(func() { f, err = dr.load(s, near, limit, want) })
		dr.con.busy--
		if dr.con.closed {
			return dr.con.finish()
		}
		if err == nil && f.last() > until {
			err = fmt.Errorf("segment %s, offset %d: %w: the frame goes to position %d, want at most %d",
				q.fs.Path(f.file), f.off, ErrDamaged, f.last(), until)
		}
		if err != nil {
			return errors.Join(err, dr.closeFile())
		}
	}
	dr.now, dr.rest, dr.next = f, f.body, f.first
	for dr.next < want {
		if _, err := dr.cut(); err != nil {
			return err
		}
	}
	return nil
}

// load reads the frame of want from its segment.
func (dr *diskReader) load(s *segment, near place, limit int64, want Seq) (frame, error) {
	r := &dr.r
	if r.seg != s || r.f == nil {
		before := r.next
		follows := r.f != nil && r.seg.first < s.first && before.first == s.first
		if err := dr.closeFile(); err != nil {
			return frame{}, err
		}
		f, h, err := openSegment(dr.q.fs, dr.q.id, s.file)
		if err != nil {
			return frame{}, err
		}
		*r = frameReader{fs: dr.q.fs, f: f, seg: s, salt: h.salt, next: near}
		if h != s.segmentHeader || follows && before.batch != h.batch {
			return frame{}, r.bad("the segment is not the one that belongs there")
		}
	} else if r.next.first > want || r.next.first < near.first {
		r.next, r.chunk = near, nil
	}
	r.limit = limit
	for {
		f, err := r.read()
		if err != nil || f.last() >= want {
			return f, err
		}
	}
}

// decode appends records to b until it is full or the frame is at its end.
func (dr *diskReader) decode(b *Batch, maxEvents, maxBytes, size int) (int, bool, error) {
	for dr.next <= dr.now.last() {
		if len(b.Events) == maxEvents {
			return size, true, nil
		}
		rest, next := dr.rest, dr.next
		e, err := dr.cut()
		if err != nil {
			return size, false, err
		}
		if size += len(e.ID) + len(e.Payload); size > maxBytes && len(b.Events) > 0 {
			dr.rest, dr.next = rest, next
			return size, true, nil
		}
		b.Events = append(b.Events, e)
	}
	return size, false, nil
}

// cut takes the next record off the frame.
func (dr *diskReader) cut() (Entry, error) {
	e, rest, ok := cutRecord(dr.rest)
	if !ok {
		return Entry{}, fmt.Errorf("segment %s, offset %d: %w: the frame's records are not right", dr.q.fs.Path(dr.now.file), dr.now.off, ErrDamaged)
	}
	e.Seq, e.At = dr.next, time.Unix(0, dr.now.at)
	dr.rest, dr.next = rest, dr.next+1
	if dr.next > dr.now.last() {
		dr.rest = nil // of the frame only its padding is left
	}
	return e, nil
}

// close implements reader.
func (dr *diskReader) close() error {
	dr.q.trimTail()
	return dr.closeFile()
}

// closeFile closes the segment that is read.
func (dr *diskReader) closeFile() error {
	if dr.r.f == nil {
		return nil
	}
	err := dr.r.f.Close()
	dr.r = frameReader{}
	return err
}
