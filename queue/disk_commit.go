package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
)

// Pauses between attempts to write again after a failure: doubled from the first
// to the last, and up to a half added at random.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// run is the committer, and joins what it starts.
func (q *Disk) run() {
	defer close(q.done)
	var cleaner sync.WaitGroup
	cleaner.Go(q.removeDoomed)
	for {
		b, ok := q.take()
		if !ok {
			break
		}
		if err := q.write(b); err != nil {
			q.abandon(err)
			if !q.mend() {
				break
			}
		} else if b != nil {
			q.written(b)
		}
	}
	q.note.Stop()
	cleaner.Wait()
	q.end()
}

// take waits for a batch, nil if only the mark is to be written; false if there
// will be nothing any more.
//
// Those whom the last batch woke, or who come together with the one that woke
// this, get the processor first: they make one batch, and share one sync, where
// else two groups would wait for each other in turn. With 8 producers that
// doubled the acknowledgements per second.
func (q *Disk) take() (b *batch, ok bool) {
	for {
		runtime.Gosched()
		q.mu.Lock()
		if len(q.pending) > 0 {
			b = q.pending[0]
			b.taken, b.counted = true, len(b.buf)
			q.mu.Unlock()
			return b, true
		}
		q.idle = true
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-q.note.C:
			return nil, true
		case <-q.stop:
			q.mu.Lock()
			none := len(q.pending) == 0
			q.mu.Unlock()
			if none {
				return nil, false
			}
		}
	}
}

// write makes the batch durable, if there is one, and writes the mark. When it
// returns nil the batch may be acknowledged: its bytes and the name that leads to
// them are on disk.
func (q *Disk) write(b *batch) error {
	if b == nil {
		return q.saveMark(q.durable, 0, false)
	}
	if b.tells {
		if err := q.saveMark(q.durable, 0, true); err != nil {
			return err
		}
	}
	if q.at+int64(len(b.buf))+frameAlign > q.o.SegmentBytes {
		if err := q.rotate(); err != nil {
			return err
		}
	}
	s := q.last
	b.buf = sealFrame(b.buf, q.number, b.first, b.at, b.n, s.salt)
	if _, err := q.active.WriteAt(b.buf, q.at); err != nil {
		return fmt.Errorf("write %s: %w", q.fs.Path(s.file), err)
	}
	if err := q.active.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", q.fs.Path(s.file), err)
	}
	// Were the file gone, all of that would have been for nothing.
	if err := q.fs.Same(s.file, q.active); err != nil {
		return fmt.Errorf("find the segment in use: %w", err)
	}
	return q.saveMark(b.last(), 0, false)
}

// saveMark writes how far the log is durable, and the refusals that no record up
// to there tells. They are to be told only if the log ends before the given
// position, 0 for wherever it ends.
func (q *Disk) saveMark(at, before Seq, sync bool) error {
	slotOf := func(r Refusals, before Seq) refusedSlot {
		if r.Count == 0 {
			return refusedSlot{}
		}
		return refusedSlot{count: r.Count, first: r.First.UnixNano(), last: r.Last.UnixNano(), before: before}
	}
	q.mu.Lock()
	open := q.unrecorded.clone()
	open.merge(q.making)
	q.mark.refused = refusedSlots{slotOf(open, before)}
	if q.toldAt > at {
		q.mark.refused[1] = slotOf(q.told, q.toldAt)
	}
	q.noting = false
	q.mu.Unlock()
	return q.mark.save(at, false, sync)
}

// rotate goes on in a new segment. The rest of the old one is given back; should
// a power cut undo that, there are zeros.
func (q *Disk) rotate() error {
	if err := q.active.Truncate(q.at); err != nil {
		return err
	}
	if err := q.mark.f.Sync(); err != nil {
		return err
	}
	old := q.active
	q.active = nil
	if err := old.Close(); err != nil {
		return err
	}
	return q.addSegment()
}

// written acknowledges the batch.
func (q *Disk) written(b *batch) {
	size := int64(len(b.buf))
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.last
	s.note(place{first: b.first, batch: q.number, off: q.at, at: b.at})
	q.number++
	q.at += size
	s.end = q.at
	q.used += size
	q.durable = b.last()
	q.pending[0] = nil
	q.pending = q.pending[1:]
	q.buffered -= int64(b.counted)
	q.hint = len(b.buf)
	q.tail = append(q.tail, b)
	q.tailBytes += int64(cap(b.buf))
	q.trimTail()
	q.pokeAll()
	close(b.done)
	q.progress.fire()
	q.madeRoom()
}

// abandon fails everything that is not durable. Positions go back to the last
// durable one, so that they stay dense.
func (q *Disk) abandon(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failure = fmt.Errorf("%w: %w", ErrFailed, err)
	q.untell()
	q.failures += uint64(q.next - 1 - q.durable)
	q.next = q.durable + 1
	for _, b := range q.pending {
		b.err = q.failure
		b.buf = nil
		close(b.done)
	}
	q.pending, q.buffered = nil, 0
	q.room.fire()
	q.progress.fire()
}

// mend tries, with pauses, to get the queue to write again, until it does or the
// queue is closed.
func (q *Disk) mend() bool {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		timer := time.NewTimer(pause + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-q.stop:
			timer.Stop()
			return false
		}
		err := q.reconcile()
		q.mu.Lock()
		if err == nil {
			q.failure = nil
			signal(q.clean)
			q.madeRoom()
			q.mu.Unlock()
			return true
		}
		q.failure = fmt.Errorf("%w: %w", ErrFailed, err)
		q.mu.Unlock()
	}
}

// reconcile makes sure that what is on disk is what was acknowledged, and goes
// on behind it in new files.
func (q *Disk) reconcile() error {
	if q.active != nil {
		_ = q.active.Close() // it failed before; nothing depends on it
		q.active = nil
	}
	_ = q.mark.close() // the same
	if err := q.checkPlace(); err != nil {
		return err
	}
	if err := q.checkEnd(); err != nil {
		return err
	}
	if err := q.giveBack(); err != nil {
		return err
	}
	// Only if the log ends here: until the new segment is there, a frame that failed
	// may be found again, with a record that untell took back.
	if err := q.saveMark(q.durable, q.durable+1, true); err != nil {
		return err
	}
	return q.addSegment()
}

// checkPlace checks that the directory and the segments are still there.
func (q *Disk) checkPlace() error {
	id, err := loadMeta(q.fs)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the queue's directory was removed or replaced: put it back, or stop: %w", err)
	}
	if err == nil && id != q.id {
		err = fmt.Errorf("the queue's directory was replaced by another queue: put it back, or stop: %w", ErrDamaged)
	}
	if err != nil {
		return err
	}
	names, err := q.fs.List()
	if err != nil {
		return err
	}
	have := make(map[string]bool, len(names))
	for _, name := range names {
		have[name] = true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.segs {
		if !have[s.file] {
			return fmt.Errorf("segment %s was removed while it was in use: %w", q.fs.Path(s.file), ErrDamaged)
		}
	}
	return nil
}

// checkEnd reads the end of the log up to the last durable position.
func (q *Disk) checkEnd() error {
	q.mu.Lock()
	s := q.last
	r := frameReader{fs: q.fs, seg: s, next: s.places[len(s.places)-1], limit: s.end}
	q.mu.Unlock()
	f, h, err := openSegment(q.fs, q.id, s.file)
	if err != nil {
		return err
	}
	r.f, r.salt = f, h.salt
	for err == nil && r.next.first <= q.durable {
		_, err = r.read()
	}
	return errors.Join(err, f.Close())
}

// giveBack cuts off what was preallocated of the last segment, which nothing more
// is written to: else each failure would cost a segment of disk that nobody counts.
// Whole pages go, and nothing is written: the page in which the log ends stays as
// it is, with what it has of the frame that failed.
func (q *Disk) giveBack() error {
	f, err := q.fs.Open(q.last.file, true)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if keep := (q.last.end + pageSize - 1) / pageSize * pageSize; err == nil && size > keep {
		err = f.Truncate(keep)
	}
	return errors.Join(err, f.Close())
}

// removeDoomed is the cleaner: it removes doomed segments, oldest first, each
// durably before the next, after it was written that they are not kept any more. What can't be removed is tried again later, at the
// latest at the next opening.
func (q *Disk) removeDoomed() {
	retry := time.NewTimer(lastRetry)
	defer retry.Stop()
	for last := false; ; {
		q.mu.Lock()
		var s *segment
		if len(q.doomed) > 0 {
			s = q.doomed[0]
		}
		head := q.head
		q.mu.Unlock()
		if s != nil && q.removeSegment(s, head) == nil {
			q.mu.Lock()
			q.doomed = q.doomed[1:]
			q.doomedBytes -= s.end
			q.madeRoom()
			q.mu.Unlock()
			continue
		}
		if last {
			return
		}
		retry.Stop()
		if s != nil {
			retry.Reset(lastRetry)
		}
		select {
		case <-q.clean:
		case <-retry.C:
		case <-q.stop:
			last = true
		}
	}
}

// removeSegment removes a segment that lies before head, the oldest event kept.
func (q *Disk) removeSegment(s *segment, head Seq) error {
	if q.oldest.f == nil || q.oldest.now.seq < head {
		if err := q.oldest.save(head, false, true); err != nil {
			return err
		}
	}
	if err := q.fs.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return q.fs.SyncDir()
}

// end closes everything once no consumer's operation is under way.
func (q *Disk) end() {
	q.mu.Lock()
	for q.ops > 0 {
		_ = q.await(context.Background()) // which has no end
	}
	q.mu.Unlock()
	var err error
	if q.mark.f != nil {
		err = errors.Join(err, q.mark.f.Sync())
	}
	if q.loss != nil && q.durable > q.opened {
		err = errors.Join(err, q.oldest.save(q.segs[0].first, false, true))
	}
	err = errors.Join(err, q.closeFiles())
	if err != nil {
		q.mu.Lock()
		if q.failure == nil {
			q.failure = fmt.Errorf("%w: %w", ErrFailed, err)
		}
		q.mu.Unlock()
	}
}
