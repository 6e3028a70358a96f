package queue

// A disk queue is an append-only log in segments, with group commit.
//
// # Directory
//
//	LOCK          held (flock) by the one process that has the queue open
//	meta          64 bytes: "AQMETA\x00\x01", queue UUID (16), CRC32C at 60
//	durable       slot file: the last position known to be durable (the mark)
//	oldest        slot file: the first position that is kept
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
// The mark has besides, at 176 and 208: how many events were refused (8), when
// first and last (8 each, Unix ns), and before which position the log must end for
// that to be told by no record yet (8; 0: wherever it ends). Without refusals
// there are zeros.
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
// most the oldest, never one in the middle. Before each the oldest position kept is
// written, synced: a log that begins behind it has lost segments, whoever is behind.
//
// Every mark has the refusals that no durable record tells. While the queue is
// full, and nothing else is written, the mark is written for them, a second after
// the first: a process that is killed takes no more of the count with it than
// that. Before a frame with a record is written the mark says so, synced: the
// record's refusals are to be told only if the log ends before it. So nothing is
// told twice, whether the frame gets to the disk or not; a power cut leaves a
// newer mark or this one, for a slot is in one sector.
//
// After a write or sync that failed nothing more is written to that file: Linux
// may drop the dirty pages and report success next time. All that was not
// durable is failed, and the queue refuses until it has reconciled itself: it
// checks that the directory and all segments are still the ones it made and that
// the log can be read up to its last durable position, gives back what was
// preallocated, writes a new mark file, and goes on in a new segment that begins
// behind that position. So the failed frame, even if it did reach the disk, is cut
// off by the name of the new segment and can't come back as other data under the
// same position.
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
//  4. Refuse if the log ends before the mark, a cursor or DiskOptions.AtLeast, or
//     begins behind the oldest position kept, and a consumer lacks what was before.
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
	LossRecord func(Refusals) (Event, bool)
	// AcceptLoss opens a queue whose oldest segments are missing, which is refused
	// with *LossError otherwise. What they had is given up for good when the queue is
	// closed after it has taken an event, and not before: let that one tell of it.
	AcceptLoss bool

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
// power cut within what the disk's fsync promises. Entry.At is when the first
// event of the same batch was accepted.
type Disk struct {
	core
	o     DiskOptions
	fs    diskFS
	id    [16]byte
	frame int // frames are closed at this size

	// Guarded by core.mu.
	segs        []*segment // those kept, oldest first, never empty; the last is written to
	used        int64      // their bytes
	doomed      []*segment // to be removed, oldest first
	doomedBytes int64
	pending     []*batch // not durable yet, oldest first
	buffered    int64    // their bytes
	hint        int      // how large the last frame was
	tail        []*batch // the newest durable ones, oldest first
	tailBytes   int64
	idle        bool // the committer waits for wake
	noting      bool // note is running

	wake  chan struct{} // capacity 1: something is pending
	note  *time.Timer   // the mark is to be written for the refusals in it
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

	oldest *slotFile  // of OpenDisk, then of the cleaner, then of end
	loss   *LossError // accepted; set by OpenDisk
}

// Watermarks implements Queue. Bytes are those of the segments that are kept,
// and of what is not in one yet.
func (q *Disk) Watermarks() Watermarks {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.watermarks()
	w.Bytes, w.LimitBytes = q.used+q.doomedBytes+q.buffered, q.o.MaxBytes
	if w.Events > 0 {
		w.Oldest = time.Unix(0, q.acceptedAt(max(w.Committed+1, q.head)))
	}
	return w
}

// acceptedAt is about when the event, which is kept, was accepted: never later,
// and earlier by at most placeEvery, or in a segment of an earlier opening up to
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

// Loss is what DiskOptions.AcceptLoss has accepted; nil if nothing is missing.
func (q *Disk) Loss() *LossError { return q.loss }

// diskGrace is how much longer than its context Close waits for a disk that
// does not answer.
const diskGrace = 2 * time.Second

// Close implements Queue. It ends at the latest 2 s after ctx is done. If the
// disk hangs even then, the directory stays locked until it answers, and
// receipts that were waiting fail with ErrClosed.
func (q *Disk) Close(ctx context.Context) error {
	cause, first := q.drain(ctx)
	if !first {
		return nil
	}
	q.mu.Lock()
	for _, con := range slices.Clone(q.open) {
		_ = con.shut() // it was only read from
	}
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
	if err := q.remaining(hung == nil || q.accepted() == q.durable, cause); err != nil {
		return err
	}
	if hung != nil {
		return fmt.Errorf("close queue: %w", hung)
	}
	return nil
}
