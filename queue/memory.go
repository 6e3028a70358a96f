package queue

import (
	"context"
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
	q.setup(q, o.MaxEvent, o.LossRecord)
	q.next, q.head = o.First, o.First
	q.durable, q.opened, q.committed.at = o.First-1, o.First-1, o.First-1
	return q
}

func cost(ev Event) int64 { return int64(len(ev.ID) + len(ev.Payload) + Overhead) }

func (q *Memory) fits(n int64) bool {
	return q.count < q.o.MaxEvents && q.bytes+n <= q.o.MaxBytes
}

// roomy implements store.
func (q *Memory) roomy() bool {
	return q.o.MaxEvents-q.count >= max(1, q.o.MaxEvents/8) && q.o.MaxBytes-q.bytes >= q.o.MaxBytes/8
}

// makeRoom frees, if it must, what only optional consumers still want.
func (q *Memory) makeRoom(n int64) error {
	if n > q.o.MaxBytes {
		return ErrTooLarge
	}
	for c := q.committedSeq(); !q.fits(n); {
		if q.head > c {
			return ErrFull
		}
		q.free(q.head)
	}
	return nil
}

// put implements store.
func (q *Memory) put(ev Event, force bool) (Receipt, error) {
	if n := cost(ev); !force && !q.fits(n) {
		if err := q.makeRoom(n); err != nil {
			return Receipt{}, err
		}
	}
	if n := len(q.chunks); n == 0 || len(q.chunks[n-1].entries) == chunkEvents {
		q.chunks = append(q.chunks, &chunk{
			entries: make([]Entry, 0, chunkEvents),
			stamps:  make([]int64, 0, chunkEvents),
		})
	}
	c := q.chunks[len(q.chunks)-1]
	c.entries = append(c.entries, Entry{Seq: q.next, ID: ev.ID, Payload: q.copyIn(ev.Payload)})
	c.stamps = append(c.stamps, time.Now().UnixNano())
	q.count++
	q.bytes += cost(ev)
	q.durable = q.next
	q.pokeAll()
	return Receipt{t: q, n: uint64(q.next)}, nil
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

// free implements store.
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
	w := q.watermarks()
	w.LimitEvents, w.Bytes, w.LimitBytes = int64(q.o.MaxEvents), q.bytes, q.o.MaxBytes
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

// WaitTicket implements Ticket.
func (q *Memory) WaitTicket(ctx context.Context, n uint64, l Level) error {
	if l < Committed {
		return nil
	}
	return q.awaitCommitted(ctx, Seq(n))
}

// TicketSeq implements Ticket.
func (q *Memory) TicketSeq(n uint64) (Seq, bool) { return Seq(n), true }

// Close implements Queue. A consumer that is open can go on reading what remains
// afterwards.
func (q *Memory) Close(ctx context.Context) error {
	cause, first := q.drain(ctx)
	if !first {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.remaining(false, cause)
}

// keep implements store: cursors end with the process.
func (q *Memory) keep(*cursor, Seq, bool) error { return nil }

// drop implements store.
func (q *Memory) drop(*cursor) error { return nil }

func (q *Memory) reader(con *consumer) reader { return memoryReader{q, con.c} }

// memoryReader reads for one consumer.
type memoryReader struct {
	q *Memory
	c *cursor
}

// read implements reader.
func (r memoryReader) read(maxEvents, maxBytes int) (Batch, error) {
	q, first := r.q, r.c.delivered+1
	if first >= q.next {
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
	r.c.delivered = b.Last()
	return b, nil
}

// close implements reader.
func (memoryReader) close() error { return nil }
