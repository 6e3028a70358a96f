package queue

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Overhead is what an event counts in Watermarks.Bytes and against MaxBytes of a
// memory queue beyond its ID and payload, in bytes.
const Overhead = 96

// Sizes of a memory queue's pieces. A piece is freed when all events in it are.
const (
	chunkEvents = 256
	arenaBytes  = 128 << 10
)

// MemoryOptions bound a memory queue. The zero value is good.
type MemoryOptions struct {
	// MaxEvents is how many events are kept at most; 0 means 65,536.
	MaxEvents int
	// MaxBytes bounds IDs, payloads and Overhead together; 0 means 64 MiB. Up to
	// 128 KiB per queue, and what consumers hold, come on top.
	MaxBytes int64
	// MaxEvent is the largest payload in bytes; 0 means 1 MiB.
	MaxEvent int
	// First is the number of the first event, 0 means 1. Give the ledger's head
	// + 1 where a ledger outlives the queue.
	First Seq
	// LossRecord makes the event that tells of refused ones. It is called once
	// at least an eighth of the queue is free again, or at Close, without any
	// lock held; its event is taken whatever the bounds. false: no record.
	LossRecord func(Refusals) (Event, bool)
}

// Memory is a queue in this process's memory: it survives a panic of a consumer,
// and nothing more. Durable is the same as Accepted.
type Memory struct {
	core
	o MemoryOptions

	// Guarded by core.mu.
	chunks []*chunk
	arena  []byte // where payloads are copied to; never reused, so entries stay valid
	count  int
	bytes  int64
}

// chunk holds consecutive events. Entries below core.head are dead.
type chunk struct {
	entries []Entry // capacity chunkEvents
	stamps  []int64 // when each was accepted, Unix nanoseconds
}

// NewMemory makes an empty queue. It panics on a negative bound.
func NewMemory(o MemoryOptions) *Memory {
	if o.MaxEvents < 0 || o.MaxBytes < 0 || o.MaxEvent < 0 {
		panic("queue: NewMemory with a negative bound")
	}
	if o.MaxEvents == 0 {
		o.MaxEvents = 65_536
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	if o.MaxEvent == 0 {
		o.MaxEvent = 1 << 20
	}
	if o.First == 0 {
		o.First = 1
	}
	q := &Memory{o: o}
	q.next, q.head, q.opened = o.First, o.First, o.First-1
	q.committed.at = o.First - 1
	q.cursors = make(map[string]*cursor)
	q.lossRecord = o.LossRecord
	return q
}

// Submit implements Queue.
func (q *Memory) Submit(ev Event) (Receipt, error) {
	r, _, err := q.submit(ev, true)
	return r, err
}

// SubmitBlocking implements Blocker.
func (q *Memory) SubmitBlocking(ctx context.Context, ev Event) (Receipt, error) {
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
func (q *Memory) submit(ev Event, count bool) (Receipt, <-chan struct{}, error) {
	err := checkEvent(ev, q.o.MaxEvent)
	if err == nil && cost(ev) > q.o.MaxBytes {
		err = ErrTooLarge
	}
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.fail()
		return Receipt{}, nil, err
	}
	if q.unrecorded.Count > 0 && q.roomy() {
		q.recordLoss(q.putLoss)
	}
	if q.closing {
		q.fail()
		return Receipt{}, nil, ErrClosed
	}
	if !q.makeRoom(cost(ev)) {
		if !count {
			return Receipt{}, q.room.wait(), nil
		}
		q.refuse(ev.Source)
		return Receipt{}, nil, ErrFull
	}
	seq := q.append(ev, now)
	q.submitted++
	q.pokeAll()
	return Receipt{t: q, n: uint64(seq)}, nil, nil
}

func cost(ev Event) int64 { return int64(len(ev.ID) + len(ev.Payload) + Overhead) }

func (q *Memory) fits(n int64) bool {
	return q.count < q.o.MaxEvents && q.bytes+n <= q.o.MaxBytes
}

// roomy says whether an eighth of the queue is free.
func (q *Memory) roomy() bool {
	return q.o.MaxEvents-q.count >= max(1, q.o.MaxEvents/8) && q.o.MaxBytes-q.bytes >= q.o.MaxBytes/8
}

// makeRoom frees, if it must, what only optional consumers still want.
func (q *Memory) makeRoom(n int64) bool {
	for c := q.committedSeq(); !q.fits(n); {
		if q.head > c {
			return false
		}
		q.free(q.head)
	}
	return true
}

// append copies the event in. There is room, or the bounds do not matter.
func (q *Memory) append(ev Event, now time.Time) Seq {
	if n := len(q.chunks); n == 0 || len(q.chunks[n-1].entries) == chunkEvents {
		q.chunks = append(q.chunks, &chunk{
			entries: make([]Entry, 0, chunkEvents),
			stamps:  make([]int64, 0, chunkEvents),
		})
	}
	seq := q.next
	q.next++
	c := q.chunks[len(q.chunks)-1]
	c.entries = append(c.entries, Entry{Seq: seq, ID: ev.ID, Payload: q.copyIn(ev.Payload)})
	c.stamps = append(c.stamps, now.UnixNano())
	q.count++
	q.bytes += cost(ev)
	return seq
}

// copyIn copies p to the arena, or to a place of its own if it is large.
func (q *Memory) copyIn(p []byte) []byte {
	if len(p) > arenaBytes/4 {
		return slices.Clone(p)
	}
	if cap(q.arena)-len(q.arena) < len(p) {
		q.arena = make([]byte, 0, arenaBytes)
	}
	at := len(q.arena)
	q.arena = append(q.arena, p...)
	return q.arena[at:len(q.arena):len(q.arena)]
}

// putLoss appends a loss record.
func (q *Memory) putLoss(ev Event) bool {
	if q.sealed || checkEvent(ev, q.o.MaxEvent) != nil {
		return false
	}
	q.append(ev, time.Now())
	q.submitted++
	q.pokeAll()
	return true
}

// free drops the events up to and including upTo.
func (q *Memory) free(upTo Seq) {
	for q.head <= upTo && len(q.chunks) > 0 {
		c := q.chunks[0]
		i := q.head - c.entries[0].Seq
		e := &c.entries[i]
		q.count--
		q.bytes -= cost(Event{ID: e.ID, Payload: e.Payload})
		q.head++
		if int(i) == len(c.entries)-1 {
			q.chunks[0] = nil
			if q.chunks = q.chunks[1:]; len(q.chunks) == 0 {
				q.chunks, q.arena = nil, nil
			}
		}
	}
}

// find returns the chunk of seq, which is kept, and the index in it.
func (q *Memory) find(seq Seq) (int, int) {
	// All chunks but the last are full, so that the place can be computed.
	d := int(seq - q.chunks[0].entries[0].Seq)
	return d / chunkEvents, d % chunkEvents
}

// Watermarks implements Queue.
func (q *Memory) Watermarks() Watermarks {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := Watermarks{
		Submitted: q.submitted, SendFailures: q.failures, Opened: q.opened,
		Accepted: q.accepted(), Durable: q.accepted(), Committed: q.committedSeq(),
		LimitEvents: int64(q.o.MaxEvents),
		Bytes:       q.bytes, LimitBytes: q.o.MaxBytes,
		Refused: q.refused.clone(), Unrecorded: q.unrecorded.clone(),
	}
	w.Events = int64(w.Accepted - w.Committed)
	if w.Events > 0 {
		c, i := q.find(max(w.Committed+1, q.head))
		w.Oldest = time.Unix(0, q.chunks[c].stamps[i])
	}
	return w
}

// Caps implements Queue.
func (q *Memory) Caps() Caps {
	return Caps{Dense: true, DurableMeans: "nothing: memory only", MaxEvent: q.o.MaxEvent}
}

// Forget removes the cursor of a consumer that will not come back, so that
// nothing waits for it. ErrBusy if it is open.
func (q *Memory) Forget(_ context.Context, name string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.forget(name); err != nil {
		return err
	}
	q.release()
	return nil
}

// WaitTicket implements Ticket.
func (q *Memory) WaitTicket(ctx context.Context, n uint64, l Level) error {
	if l < Committed {
		return nil
	}
	return q.awaitCommitted(ctx, Seq(n), func() error {
		if q.closed {
			return ErrClosed
		}
		return nil
	})
}

// TicketSeq implements Ticket.
func (q *Memory) TicketSeq(n uint64) (Seq, bool) { return Seq(n), true }

// Close implements Queue. A consumer that is open can go on reading what remains
// afterwards.
func (q *Memory) Close(ctx context.Context) error {
	q.mu.Lock()
	if q.closing {
		q.mu.Unlock()
		return nil
	}
	q.closing = true
	q.room.fire()
	q.mu.Unlock()
	q.seal(ctx, q.putLoss)

	cause := q.awaitDrained(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.committed.wakeAll()
	if left := q.accepted() - q.committedSeq(); left > 0 {
		return &RemainingError{Events: uint64(left), Cause: cause}
	}
	return nil
}

// release frees what every consumer is done with.
func (q *Memory) release() {
	low := q.committedSeq()
	for _, c := range q.cursors {
		low = min(low, c.acked)
	}
	if low < q.head {
		return
	}
	q.free(low)
	q.room.fire()
	if q.unrecorded.Count > 0 && q.roomy() {
		q.recordLoss(q.putLoss)
	}
}

// Consumer implements Queue.
func (q *Memory) Consumer(ctx context.Context, name string, o ConsumerOptions) (Consumer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	c, at, err := q.reserve(name, o, q.accepted())
	if err != nil {
		return nil, err
	}
	q.activate(c, at, o.Required)
	q.release()
	return &memoryConsumer{q: q, c: c, wake: c.wake}, nil
}

// memoryConsumer is one opening of a cursor.
type memoryConsumer struct {
	q      *Memory
	c      *cursor
	wake   <-chan struct{}
	closed bool // guarded by core.mu: the cursor may be another consumer's by now
}

// Next implements Consumer.
func (mc *memoryConsumer) Next(ctx context.Context, maxEvents, maxBytes int) (Batch, error) {
	maxEvents, maxBytes = nextLimits(maxEvents, maxBytes)
	return mc.q.awaitNext(ctx, mc.wake, func() (Batch, error) { return mc.take(maxEvents, maxBytes) })
}

func (mc *memoryConsumer) take(maxEvents, maxBytes int) (Batch, error) {
	q, c := mc.q, mc.c
	if mc.closed {
		return Batch{}, ErrClosed
	}
	if err := q.skipLost(c); err != nil {
		return Batch{}, err
	}
	first := c.delivered + 1
	if first >= q.next {
		if q.sealed {
			return Batch{}, ErrClosed
		}
		return Batch{}, nil
	}
	n := min(maxEvents, int(q.next-first))
	b := Batch{First: first, Events: make([]Entry, 0, n)}
	ci, i := q.find(first)
	for size := 0; len(b.Events) < n; i++ {
		if i == len(q.chunks[ci].entries) {
			ci, i = ci+1, 0
		}
		e := q.chunks[ci].entries[i]
		e.At = time.Unix(0, q.chunks[ci].stamps[i])
		size += len(e.ID) + len(e.Payload)
		if size > maxBytes && len(b.Events) > 0 {
			break
		}
		b.Events = append(b.Events, e)
	}
	c.delivered = b.Last()
	return b, nil
}

// Ack implements Consumer.
func (mc *memoryConsumer) Ack(ctx context.Context, upTo Seq) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	mc.q.mu.Lock()
	defer mc.q.mu.Unlock()
	if mc.closed {
		return ErrClosed
	}
	if err := mc.c.checkAck(upTo); err != nil {
		return err
	}
	mc.c.acked = upTo
	mc.q.settle()
	mc.q.release()
	return nil
}

// Close implements Consumer.
func (mc *memoryConsumer) Close() error {
	mc.q.mu.Lock()
	defer mc.q.mu.Unlock()
	if !mc.closed {
		mc.closed = true
		mc.q.detach(mc.c)
	}
	return nil
}

// Acked implements Consumer.
func (mc *memoryConsumer) Acked() Seq {
	mc.q.mu.Lock()
	defer mc.q.mu.Unlock()
	return mc.c.acked
}
