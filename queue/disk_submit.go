package queue

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// batch is what becomes one frame. Its receipts refer to it.
type batch struct {
	q     *Disk
	first Seq
	done  chan struct{} // closed when it is durable or failed

	// Guarded by core.mu while it is pending; the committer's alone once taken;
	// not changed afterwards.
	n       int
	at      int64  // Unix ns
	buf     []byte // the frame; nil when it has left the tail
	taken   bool
	counted int   // bytes in Disk.buffered once taken
	err     error // set before done is closed
}

func (b *batch) last() Seq { return b.first + Seq(b.n) - 1 }

// Submit implements Queue.
func (q *Disk) Submit(ev Event) (Receipt, error) {
	r, _, err := q.submit(ev, true)
	return r, err
}

// SubmitBlocking implements Blocker.
func (q *Disk) SubmitBlocking(ctx context.Context, ev Event) (Receipt, error) {
	for {
		r, room, err := q.submit(ev, false)
		if room == nil {
			return r, err
		}
		select {
		case <-room:
		case <-ctx.Done():
			q.mu.Lock()
			q.refuse(ev.Source)
			q.mu.Unlock()
			return Receipt{}, fmt.Errorf("wait for room: %w", ctx.Err())
		}
	}
}

// submit takes the event if there is room. If not, it counts it as refused, or
// returns what to wait for.
func (q *Disk) submit(ev Event, count bool) (Receipt, <-chan struct{}, error) {
	err := checkEvent(ev, q.o.MaxEvent)
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil && q.unrecorded.Count > 0 && q.roomy() {
		q.recordLoss(q.putLoss)
	}
	switch {
	case err != nil:
	case q.closing:
		err = ErrClosed
	case q.failure != nil:
		err = q.failure
	}
	if err != nil {
		q.fail()
		return Receipt{}, nil, err
	}
	if !q.makeRoom(recordSize(ev)) {
		if !count {
			return Receipt{}, q.room.wait(), nil
		}
		q.refuse(ev.Source)
		return Receipt{}, nil, ErrFull
	}
	q.submitted++
	return q.put(ev), nil, nil
}

// put appends the event to the batch that is being filled.
func (q *Disk) put(ev Event) Receipt {
	var b *batch
	if n := len(q.pending); n > 0 {
		b = q.pending[n-1]
	}
	if b == nil || b.taken || len(b.buf) >= q.frame {
		size := max(frameHeaderSize+recordSize(ev)+frameAlign, q.hint)
		if b != nil && !b.taken {
			size = q.frame + recordSize(ev) // the last one was filled, so will be this
		}
		b = &batch{
			q: q, first: q.next, at: time.Now().UnixNano(),
			done: make(chan struct{}),
			buf:  make([]byte, frameHeaderSize, size),
		}
		q.pending = append(q.pending, b)
		q.buffered += frameHeaderSize
	}
	before, need := len(b.buf), recordSize(ev)+frameAlign
	if cap(b.buf)-before < need {
		b.buf = slices.Grow(b.buf, max(need, before)) // append would add a quarter at a time
	}
	b.buf = appendRecord(b.buf, ev)
	q.buffered += int64(len(b.buf) - before)
	b.n++
	seq := q.next
	q.next++
	if q.idle {
		q.idle = false
		signal(q.wake)
	}
	return Receipt{t: b, n: uint64(seq)}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// putLoss appends a loss record, whatever the bounds.
func (q *Disk) putLoss(ev Event) bool {
	if q.sealed || q.failure != nil || checkEvent(ev, q.o.MaxEvent) != nil {
		return false
	}
	q.submitted++
	q.put(ev)
	return true
}

// limit is how many bytes events may take. Two segments are held back: what is
// preallocated of the last one, and with it room for the loss record; and one
// that is on its way out.
func (q *Disk) limit() int64 { return q.o.MaxBytes - 2*q.o.SegmentBytes }

// takenBytes is what counts against limit. Doomed segments are as good as gone, but
// only one of them: should they not go, the bound must hold all the same.
func (q *Disk) takenBytes() int64 {
	return q.used + q.doomedBytes - min(q.doomedBytes, q.o.SegmentBytes) + q.buffered
}

func (q *Disk) fits(n int) bool {
	return q.buffered+int64(n) <= q.o.MaxBuffered && q.takenBytes()+int64(n)+frameHeaderSize+frameAlign <= q.limit()
}

// roomy says whether an eighth is free, of the memory and of the disk.
func (q *Disk) roomy() bool {
	return q.buffered <= q.o.MaxBuffered/8*7 && q.takenBytes() <= q.limit()/8*7
}

// makeRoom dooms, if it must, segments that only optional consumers still want.
func (q *Disk) makeRoom(n int) bool {
	if q.fits(n) {
		return true
	}
	for done := q.committedSeq(); len(q.segs) > 1 && q.segs[1].first <= done+1; {
		q.doom()
		if q.fits(n) {
			return true
		}
	}
	return false
}

// doom gives up the oldest segment.
func (q *Disk) doom() {
	s := q.segs[0]
	q.segs[0] = nil
	q.segs = q.segs[1:]
	q.head = q.segs[0].first
	q.used -= s.end
	q.doomedBytes += s.end
	q.doomed = append(q.doomed, s)
	signal(q.clean)
}

// release dooms what every consumer is done with.
func (q *Disk) release() {
	low := q.committedSeq()
	for _, c := range q.cursors {
		low = min(low, c.acked)
	}
	for len(q.segs) > 1 && q.segs[1].first <= low+1 {
		q.doom()
	}
}

// madeRoom is called after anything that may have made room.
func (q *Disk) madeRoom() {
	q.room.fire()
	if q.unrecorded.Count > 0 && q.roomy() {
		q.recordLoss(q.putLoss)
	}
}

// WaitTicket implements Ticket.
func (b *batch) WaitTicket(ctx context.Context, n uint64, l Level) error {
	if l < Durable {
		return nil
	}
	select {
	case <-b.done:
	default:
		select {
		case <-b.done:
		case <-b.q.gone:
			select {
			case <-b.done:
			default:
				return ErrClosed
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if b.err != nil || l == Durable {
		return b.err
	}
	return b.q.awaitCommitted(ctx, Seq(n), func() error {
		if b.q.closed {
			return ErrClosed
		}
		return nil
	})
}

// TicketSeq implements Ticket.
func (b *batch) TicketSeq(n uint64) (Seq, bool) {
	select {
	case <-b.done:
		return Seq(n), b.err == nil
	default:
		return 0, false
	}
}
