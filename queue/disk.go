package queue

// A disk queue is an append-only log in segments, with group commit.
//
// # Directory
//
//	LOCK          held (flock) by the one process that has the queue open
//	meta          64 bytes: "AQMETA\x00\x01", queue UUID (16), CRC32C at 60
//	durable       slot file: the last position known to be durable (the mark)
//	<hash>.cur    slot file of one consumer; <hash> is of its name
//	<first>.seg   segments, named after their first position, 20 digits
//	*.tmp         files being made; removed at opening
//
// Numbers are little-endian. Every CRC is CRC32C (Castagnoli).
//
// A slot file has two slots of 256 bytes, at 0 and 4096: "AQSLOT\x00\x01", UUID
// (16), generation (8), position (8), flags (1, bit 0: required), length of the
// name (1), name (128), zeros, CRC at 252. Writes go to them in turn, so that a
// torn one leaves the other; the valid slot with the higher generation counts.
//
// A segment begins with a header of 512 bytes: "AQSEG\x00\x00\x01", UUID (16),
// first position (8), number of its first batch (8), time of creation (8, Unix
// ns), salt (4), zeros, CRC at 508. Frames follow, one per committed batch, then
// zeros (preallocated where the system can):
//
//	 0  4  magic "AQB1"
//	 4  4  length of the body in bytes
//	 8  8  batch number: one more than that of the frame before
//	16  8  position of the first event: one more than the last of the frame before
//	24  8  when the batch's first event was accepted, Unix ns. It stands for all
//	       events of the batch: they came while one fsync was under way.
//	32  4  number of events
//	36  4  CRC of the body
//	40  4  zero
//	44  4  CRC of bytes 0 to 43
//	48     body: per event uvarint length of ID, uvarint length of payload, ID,
//	       payload; then 1 to 8 bytes of 0x5a up to a multiple of 8
//
// An event's position is that of the frame plus its index, so that records need
// not repeat it. CRCs start from the segment's random salt: a client can't put
// into a payload what looks like a frame. A frame's last byte is never zero.
//
// A segment ends where the next one begins: the position in the next one's name
// rules, and whatever frames lie behind it in the older one were never
// acknowledged.
//
// # Writing
//
// One goroutine, the committer, writes one frame for all that was submitted
// meanwhile, calls fdatasync, then writes the mark without syncing it, and then
// acknowledges. There is never more than one frame on its way. Frame n+1 is
// written only after frame n is durable, hence frame n+1 on disk proves that
// frame n was complete.
//
// A new segment (and any other new file) is written under a temporary name,
// synced, renamed, and the directory is synced; only then is it used. So a file
// that has its final name has a whole header. Segments are removed oldest first,
// and the directory is synced after each, so that a power cut brings back at
// most the oldest, never one in the middle.
//
// After a write or sync that failed nothing more is written to that file: Linux
// may drop the dirty pages and report success next time. All that was not
// durable is failed, and the queue refuses until it has reconciled itself: it
// checks that the directory and all segments are still the ones it made and that
// the log can be read up to its last durable position, writes a new mark file,
// and goes on in a new segment that begins behind that position. So the failed
// frame, even if it did reach the disk, is cut off by the name of the new
// segment and can't come back as other data under the same position.
//
// # Opening
//
//  1. Take LOCK; remove *.tmp; read meta. Without meta the directory must hold
//     no segment and no cursor: meta is made last.
//  2. Read the mark, the headers of all segments and the cursors.
//  3. Scan the last segment. At the first frame that is not right, decide
//     whether it is torn (below) or damaged. Damage is refused with file and
//     offset. Earlier segments are checked when they are read: every read of a
//     frame checks all of it.
//  4. Refuse if the log ends before the mark, a cursor or DiskOptions.AtLeast.
//  5. Cut off a torn frame (truncate, sync). If the last frame lies behind the
//     mark, write its bytes once more before syncing: a process before this one
//     may have seen its sync fail, and then the page in memory is no proof. One
//     frame is enough, as there was never more than one on its way.
//  6. Sync, write and sync the mark, remove segments that every cursor has
//     passed, go on at the end of the last segment.
//
// # Torn or damaged
//
// A torn frame was never acknowledged, a damaged one was; both have a wrong CRC.
// A frame is taken for torn only if all of this holds:
//
//   - it lies behind the mark, every cursor, and AtLeast;
//   - no valid frame header with a higher batch number lies behind it;
//   - it has the shape of a torn one: a write may be cut at any byte, with zeros
//     from there on, or lack any of its 512-byte sectors, which then are zeros
//     still. So its last byte is zero, or the part of it in some sector is all
//     zeros. A flipped bit makes neither.
//
// The mark decides after a crash of the process (it is in the page cache then)
// and after Close. After a power cut it may be as old as this opening, or the
// start of the last segment; then the second and third rule decide, and for the
// frames before the last one the second alone is exact.
//
// # Assumed of the disk
//
// What fsync reported as written stays. A sector of 512 bytes has its old or its
// new content after a power cut, also when the write covered other bytes of it
// again with what they were. A rename is done or not done. Not covered: a disk
// that lies about fsync, and two faults at once: a power cut that loses the mark
// and, besides, the loss of the whole last frames behind it, or the zeroing of a
// sector of the very last one.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"
)

// DiskOptions say where a disk queue lies and bound it. Only Dir is needed.
type DiskOptions struct {
	// Dir is the queue's directory; it is made if it does not exist.
	Dir string
	// MaxBytes bounds all segments together, in bytes; 0 means 4 GiB. Events are
	// refused two segments before that, so that the loss record always has room.
	MaxBytes int64
	// SegmentBytes is the size of a segment; 0 means an eighth of MaxBytes, at
	// most 64 MiB. At least four must fit into MaxBytes.
	SegmentBytes int64
	// MaxBuffered bounds the events in memory that are not durable yet, in
	// bytes; 0 means 16 MiB.
	MaxBuffered int64
	// CacheBytes is how much of the end of the log is kept in memory for
	// consumers that are caught up; 0 means 8 MiB.
	CacheBytes int64
	// MaxEvent is the largest payload in bytes; 0 means 1 MiB, but at most a
	// quarter of a segment.
	MaxEvent int
	// AtLeast is a position the log must reach: the last of this queue that a
	// ledger has. A queue that ends before it is an older copy, and is refused
	// with ErrBehind.
	AtLeast Seq
	// LossRecord makes the event that tells of refused ones; see MemoryOptions.
	LossRecord func(count uint64, first, last time.Time) (Event, bool)

	fs diskFS // of tests
}

// Limits of a disk queue's sizes.
const (
	maxSegment  = 1 << 30
	frameTarget = 1 << 20 // a frame is closed when it has this many bytes
)

// fill checks the options and replaces those not given.
func (o *DiskOptions) fill() error {
	if o.MaxBytes < 0 || o.SegmentBytes < 0 || o.MaxBuffered < 0 || o.CacheBytes < 0 || o.MaxEvent < 0 {
		return errors.New("a bound is negative")
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 4 << 30
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = min(o.MaxBytes/8, 64<<20)
	}
	if o.MaxBuffered == 0 {
		o.MaxBuffered = 16 << 20
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 8 << 20
	}
	if o.MaxEvent == 0 {
		o.MaxEvent = int(min(o.SegmentBytes/4, o.MaxBuffered/2, 1<<20))
	}
	switch {
	case o.SegmentBytes > maxSegment:
		return fmt.Errorf("segments of %d bytes, at most %d are possible", o.SegmentBytes, maxSegment)
	case o.MaxBytes < 4*o.SegmentBytes:
		return fmt.Errorf("%d bytes in all do not hold four segments of %d", o.MaxBytes, o.SegmentBytes)
	case int64(o.MaxEvent) > o.SegmentBytes/4:
		return fmt.Errorf("events of %d bytes need segments of at least %d, which have %d", o.MaxEvent, 4*o.MaxEvent, o.SegmentBytes)
	case o.SegmentBytes < 8<<10:
		return fmt.Errorf("segments of %d bytes, at least 8192 are needed", o.SegmentBytes)
	case int64(o.MaxEvent)+1<<10 > o.MaxBuffered:
		return fmt.Errorf("events of %d bytes need a buffer of more than %d", o.MaxEvent, o.MaxBuffered)
	}
	return nil
}

// Disk is a queue in a directory. It survives the end of its process, and a
// power cut within what the disk's fsync promises.
type Disk struct {
	core
	o     DiskOptions
	fs    diskFS
	id    [16]byte
	frame int // frames are closed at this size

	// Guarded by core.mu.
	durable     Seq        // last position that is durable
	segs        []*segment // those kept, oldest first, never empty; the last is written to
	used        int64      // their bytes
	doomed      []*segment // to be removed, oldest first
	doomedBytes int64
	pending     []*batch // not durable yet, oldest first
	buffered    int64    // their bytes
	hint        int      // how large the last frame was
	tail        []*batch // the newest durable ones, oldest first
	tailBytes   int64
	idle        bool  // the committer waits for wake
	failure     error // wraps ErrFailed; nil if the queue can write
	ops         int   // file operations of consumers under way

	wake  chan struct{} // capacity 1: something is pending
	clean chan struct{} // capacity 1: something is doomed
	stop  chan struct{} // closed by Close: write what is pending, then end
	gone  chan struct{} // closed when Close returns
	done  chan struct{} // closed when all files are

	// Of OpenDisk and then of the committer.
	lock   io.Closer
	last   *segment  // the last of segs; it is never doomed
	active diskFile  // its file; nil if it must not be written to any more
	at     int64     // where its next frame goes
	number uint64    // of the next batch
	mark   *slotFile // durable
}

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
			q.refuse()
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
		q.refuse()
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

// Watermarks implements Queue. Bytes are those of the segments that are kept,
// and of what is not in one yet.
func (q *Disk) Watermarks() Watermarks {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := Watermarks{
		Submitted: q.submitted, SendFailures: q.failures, Opened: q.opened,
		Accepted: q.accepted(), Durable: q.durable, Committed: q.committedSeq(),
		Bytes: q.used + q.doomedBytes + q.buffered, LimitBytes: q.o.MaxBytes,
		Refused: q.refused, Failure: q.failure,
	}
	w.Events = int64(w.Accepted - w.Committed)
	if w.Events > 0 {
		w.Oldest = time.Unix(0, q.acceptedAt(max(w.Committed+1, q.head)))
	}
	return w
}

// acceptedAt is about when the event, which is kept, was accepted: never later,
// and earlier by at most markEvery, or in a segment of an earlier opening up to
// the segment's beginning.
func (q *Disk) acceptedAt(seq Seq) int64 {
	for i := len(q.pending) - 1; i >= 0; i-- {
		if q.pending[i].first <= seq {
			return q.pending[i].at
		}
	}
	return q.segs[q.segmentOf(seq)].place(seq).at
}

// segmentOf is the index of the segment that has seq, which is kept.
func (q *Disk) segmentOf(seq Seq) int {
	return sort.Search(len(q.segs), func(i int) bool { return q.segs[i].first > seq }) - 1
}

// Caps implements Queue.
func (q *Disk) Caps() Caps {
	return Caps{
		ID: q.id, Dense: true, AckDurable: true, MaxEvent: q.o.MaxEvent,
		DurableMeans: "on disk: fdatasync has returned",
	}
}

// Forget removes the cursor of a consumer that will not come back, so that
// nothing waits for it. ErrBusy if it is open.
func (q *Disk) Forget(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.cursors[name]
	switch {
	case q.closed:
		return ErrClosed
	case c == nil:
		return nil
	case c.active:
		return fmt.Errorf("forget consumer %q: %w", name, ErrBusy)
	}
	c.active = true // nobody else may have it meanwhile
	var err error
	q.operation(func() { err = c.store.remove() })
	c.active = false
	if err != nil {
		return fmt.Errorf("forget consumer %q: %w", name, err)
	}
	if err := q.forget(name); err != nil {
		return err
	}
	q.release()
	q.madeRoom()
	return nil
}

// operation runs f, which reads or writes files, without the lock. The files
// stay open until it is done. core.mu is held at entry and at exit.
func (q *Disk) operation(f func()) {
	q.ops++
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		q.ops--
		q.progress.fire()
	}()
	f()
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

// diskGrace is how much longer than its context Close waits for a disk that
// does not answer.
const diskGrace = 2 * time.Second

// Close implements Queue. It ends at the latest 2 s after ctx is done. If the
// disk hangs even then, the directory stays locked until it answers, and
// receipts that were waiting fail with ErrClosed.
func (q *Disk) Close(ctx context.Context) error {
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
	q.closed = true
	q.committed.wakeAll()
	q.pokeAll()
	q.mu.Unlock()
	close(q.stop)

	// A sink that is late must not cost the flush its time, a hanging disk must.
	grace := time.NewTimer(diskGrace)
	defer grace.Stop()
	var hung error
	select {
	case <-q.done:
	case <-grace.C:
		hung = errors.New("the disk does not answer")
	}
	close(q.gone)

	q.mu.Lock()
	defer q.mu.Unlock()
	if hung == nil && q.failure != nil {
		hung = q.failure
	}
	if cause == nil {
		cause = hung
	} else if hung != nil {
		cause = errors.Join(cause, hung)
	}
	left := q.accepted() - q.committedSeq()
	switch {
	case left > 0:
		return &RemainingError{Events: uint64(left), Kept: hung == nil || q.accepted() == q.durable, Cause: cause}
	case hung != nil:
		return fmt.Errorf("close queue: %w", hung)
	}
	return nil
}
