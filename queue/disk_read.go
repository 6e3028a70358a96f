package queue

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"
)

// trimTail drops what no open consumer will want from memory, and the oldest if
// it takes too much. core.mu is held.
func (q *Disk) trimTail() {
	low := q.durable
	for _, c := range q.open {
		low = min(low, c.delivered)
	}
	n := 0
	for n < len(q.tail) && (q.tailBytes > q.o.CacheBytes || len(q.open) > 0 && q.tail[n].last() <= low) {
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

// Consumer implements Queue. The first opening of a name, and one that changes
// where it begins or whether it is required, is durable when Consumer returns.
func (q *Disk) Consumer(ctx context.Context, name string, o ConsumerOptions) (Consumer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	c, at, err := q.reserve(name, o, q.durable)
	if err != nil {
		return nil, err
	}
	if c.store == nil {
		c.store = &slotFile{fs: q.fs, id: q.id, file: cursorFile(name), now: slot{name: name}}
	}
	if s := c.store; s.f == nil || s.now.seq != at || s.now.required != o.Required {
		q.operation(func() { err = s.save(at, o.Required, true) })
	}
	if err == nil && q.closing {
		err = ErrClosed
	}
	if err != nil {
		c.active = false
		return nil, fmt.Errorf("open consumer %q: %w", name, err)
	}
	dc := &diskConsumer{q: q, c: c}
	q.activate(c, at, o.Required)
	dc.wake = c.wake
	c.reader = dc
	q.release()
	q.madeRoom()
	return dc, nil
}

// diskConsumer is one opening of a cursor.
type diskConsumer struct {
	q    *Disk
	c    *cursor
	wake <-chan struct{}

	// Guarded by core.mu.
	closed bool
	busy   int // operations on its files under way

	// Of the goroutine that calls Next; r also of finish and Disk.end, which
	// hold core.mu while nobody is busy.
	now  frame  // the frame whose records come next
	rest []byte // those records
	next Seq    // position of the first of them
	r    frameReader
}

// Next implements Consumer. An error that does not wrap ErrDamaged or ErrLagged
// and is neither ErrClosed nor that of ctx is one of reading a file: Next may be
// called again.
func (dc *diskConsumer) Next(ctx context.Context, maxEvents, maxBytes int) (Batch, error) {
	maxEvents, maxBytes = nextLimits(maxEvents, maxBytes)
	for {
		if err := ctx.Err(); err != nil {
			return Batch{}, err
		}
		b, err := dc.collect(maxEvents, maxBytes)
		if err != nil || len(b.Events) > 0 {
			return b, err
		}
		select {
		case <-dc.wake:
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		}
	}
}

// collect returns what is there and fits, possibly nothing.
func (dc *diskConsumer) collect(maxEvents, maxBytes int) (Batch, error) {
	q, c := dc.q, dc.c
	q.mu.Lock()
	defer q.mu.Unlock()
	if dc.closed || q.closed {
		return Batch{}, ErrClosed
	}
	if err := q.skipLost(c); err != nil {
		return Batch{}, err
	}
	b := Batch{First: c.delivered + 1}
	for want, size := b.First, 0; ; want = b.Last() + 1 {
		if want != dc.next || len(dc.rest) == 0 {
			if want > q.durable || want < q.head {
				break
			}
			err := dc.find(want)
			if dc.closed || q.closed {
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
		var full bool
		var err error
		q.mu.Unlock()
		size, full, err = dc.decode(&b, maxEvents, maxBytes, size)
		q.mu.Lock()
		if dc.closed || q.closed {
			return Batch{}, ErrClosed
		}
		if err != nil {
			return Batch{}, err
		}
		if full {
			break
		}
	}
	if len(b.Events) == 0 {
		if q.sealed && c.delivered >= q.accepted() {
			return Batch{}, ErrClosed
		}
		return Batch{}, nil
	}
	c.delivered = b.Last()
	q.trimTail()
	return b, nil
}

// find makes the frame of want, which is durable and kept, the one that is
// decoded. core.mu is held, but not while a file is read.
func (dc *diskConsumer) find(want Seq) error {
	q := dc.q
	f, ok := q.cached(want)
	if !ok {
		i := q.segmentOf(want)
		s, until := q.segs[i], q.durable
		if i+1 < len(q.segs) {
			until = q.segs[i+1].first - 1
		}
		near, limit := s.place(want), s.end
		var err error
		dc.busy++
		q.operation(func() { f, err = dc.read(s, near, limit, want) })
		dc.busy--
		if dc.closed {
			return dc.finish()
		}
		if err == nil && f.last() > until {
			err = fmt.Errorf("segment %s, offset %d: %w: the frame goes to position %d, want at most %d",
				q.fs.Path(f.file), f.off, ErrDamaged, f.last(), until)
		}
		if err != nil {
			return errors.Join(err, dc.closeReader())
		}
	}
	dc.now, dc.rest, dc.next = f, f.body, f.first
	for dc.next < want {
		if _, err := dc.cut(); err != nil {
			return err
		}
	}
	return nil
}

// read reads the frame of want from its segment.
func (dc *diskConsumer) read(s *segment, near place, limit int64, want Seq) (frame, error) {
	r := &dc.r
	if r.seg != s || r.f == nil {
		before := r.next
		follows := r.f != nil && r.seg.first < s.first && before.first == s.first
		if err := dc.closeReader(); err != nil {
			return frame{}, err
		}
		f, h, err := openSegment(dc.q.fs, dc.q.id, s.file)
		if err != nil {
			return frame{}, err
		}
		*r = frameReader{fs: dc.q.fs, f: f, seg: s, salt: h.salt, next: near}
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
func (dc *diskConsumer) decode(b *Batch, maxEvents, maxBytes, size int) (int, bool, error) {
	for dc.next <= dc.now.last() {
		if len(b.Events) == maxEvents {
			return size, true, nil
		}
		rest, next := dc.rest, dc.next
		e, err := dc.cut()
		if err != nil {
			return size, false, err
		}
		if size += len(e.ID) + len(e.Payload); size > maxBytes && len(b.Events) > 0 {
			dc.rest, dc.next = rest, next
			return size, true, nil
		}
		b.Events = append(b.Events, e)
	}
	return size, false, nil
}

// cut takes the next record off the frame.
func (dc *diskConsumer) cut() (Entry, error) {
	e, rest, ok := cutRecord(dc.rest)
	if !ok {
		return Entry{}, fmt.Errorf("segment %s, offset %d: %w: the frame's records are not right", dc.q.fs.Path(dc.now.file), dc.now.off, ErrDamaged)
	}
	e.Seq, e.At = dc.next, time.Unix(0, dc.now.at)
	dc.rest, dc.next = rest, dc.next+1
	if dc.next > dc.now.last() {
		dc.rest = nil // of the frame only its padding is left
	}
	return e, nil
}

// Ack implements Consumer. When it returns nil the position is durable. An error
// of writing wraps ErrFailed; Ack may be called again.
func (dc *diskConsumer) Ack(ctx context.Context, upTo Seq) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q, c := dc.q, dc.c
	q.mu.Lock()
	defer q.mu.Unlock()
	if dc.closed || q.closed {
		return ErrClosed
	}
	if err := c.checkAck(upTo); err != nil {
		return err
	}
	if upTo == c.acked {
		return nil
	}
	var err error
	dc.busy++
	q.operation(func() { err = c.store.save(upTo, c.required, true) })
	dc.busy--
	if err != nil {
		err = fmt.Errorf("acknowledge %d by consumer %q: %w: %w", upTo, c.name, ErrFailed, err)
	} else {
		c.acked = upTo
		q.settle()
		q.release()
		q.madeRoom()
	}
	if dc.closed {
		err = errors.Join(err, dc.finish())
	}
	return err
}

// Close implements Consumer. The name is free once no other call is reading or
// writing a file.
func (dc *diskConsumer) Close() error {
	q := dc.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if dc.closed {
		return nil
	}
	dc.closed = true
	dc.c.poke()
	return dc.finish()
}

// finish gives the name free, if no operation is under way that will. core.mu is
// held.
func (dc *diskConsumer) finish() error {
	if dc.busy > 0 {
		return nil
	}
	err := dc.closeReader()
	dc.c.reader = nil
	dc.q.detach(dc.c)
	dc.q.trimTail()
	return err
}

// closeReader closes the segment that is read. It is called by the consumer's
// goroutine, or while that one is not busy.
func (dc *diskConsumer) closeReader() error {
	if dc.r.f == nil {
		return nil
	}
	err := dc.r.f.Close()
	dc.r = frameReader{}
	return err
}

// Acked implements Consumer.
func (dc *diskConsumer) Acked() Seq {
	dc.q.mu.Lock()
	defer dc.q.mu.Unlock()
	return dc.c.acked
}
