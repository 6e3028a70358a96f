package queue

import (
	"context"
	"slices"
	"time"
)

// noteAfter is how long after a refusal the mark is written for it.
const noteAfter = time.Second

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
	tells   bool  // it has a loss record
	counted int   // bytes in Disk.buffered once taken
	err     error // set before done is closed
}

func (b *batch) last() Seq { return b.first + Seq(b.n) - 1 }

// put implements store: it appends the event to the batch that is being filled.
func (q *Disk) put(ev Event, force bool) (Receipt, error) {
	size := recordSize(ev)
	if !force && !q.fits(size) && !q.makeRoom(size) {
		if !q.noting {
			q.noting = true
			q.note.Reset(noteAfter)
		}
		return Receipt{}, ErrFull
	}
	var b *batch
	if n := len(q.pending); n > 0 {
		b = q.pending[n-1]
	}
	if b == nil || b.taken || len(b.buf) >= q.frame {
		room := max(frameHeaderSize+size+frameAlign, q.hint)
		if b != nil && !b.taken {
			room = q.frame + size // the last one was filled, so will be this
		}
		b = &batch{
			q: q, first: q.next, at: time.Now().UnixNano(),
			done: make(chan struct{}),
			buf:  make([]byte, frameHeaderSize, room),
		}
		q.pending = append(q.pending, b)
		q.buffered += frameHeaderSize
	}
	before, need := len(b.buf), size+frameAlign
	if cap(b.buf)-before < need {
		b.buf = slices.Grow(b.buf, max(need, before)) // append would add a quarter at a time
	}
	b.tells = b.tells || force
	b.buf = appendRecord(b.buf, ev)
	q.buffered += int64(len(b.buf) - before)
	b.n++
	if q.idle {
		q.idle = false
		signal(q.wake)
	}
	return Receipt{t: b, n: uint64(q.next)}, nil
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

// roomy implements store: of the memory and of the disk.
func (q *Disk) roomy() bool {
	return q.buffered <= q.o.MaxBuffered/8*7 && q.takenBytes() <= q.limit()/8*7
}

// makeRoom dooms segments that only optional consumers still want, until n bytes
// fit.
func (q *Disk) makeRoom(n int) bool {
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

// free implements store: whole segments go.
func (q *Disk) free(upTo Seq) {
	for len(q.segs) > 1 && q.segs[1].first <= upTo+1 {
		q.doom()
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
	return b.q.awaitCommitted(ctx, Seq(n))
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
