package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/audit-host/audit-host/internal/durable"
)

// OpenDisk opens the queue in a directory, or makes one there. ErrBusy: another
// process has it. ErrDamaged: stored bytes are not those that were written.
// ErrBehind: the log ends before a position that was reached once. *LossError: its
// oldest segments are missing.
func OpenDisk(ctx context.Context, o DiskOptions) (*Disk, error) {
	if err := o.fill(); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", o.Dir, err)
	}
	if o.fs == nil {
		d, err := newOSFS(o.Dir)
		if err != nil {
			return nil, fmt.Errorf("open queue: %w", err)
		}
		o.fs = d
	}
	q := &Disk{
		o: o, fs: o.fs,
		frame: int(min(frameTarget, o.SegmentBytes/4)),
		wake:  make(chan struct{}, 1), clean: make(chan struct{}, 1),
		stop: make(chan struct{}), gone: make(chan struct{}), done: make(chan struct{}),
		note: time.NewTimer(noteAfter),
	}
	q.note.Stop()
	q.setup(q, o.MaxEvent, o.LossRecord)
	lock, err := q.fs.Lock()
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	q.lock = lock
	if err := q.recover(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open queue: %w", err), q.closeFiles())
	}
	go q.run()
	return q, nil
}

// recover is the opening; its steps are at the top of disk.go.
func (q *Disk) recover(ctx context.Context) error {
	names, err := q.fs.List()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, temporarySuffix) {
			if err := q.fs.Remove(name); err != nil {
				return err
			}
		}
	}
	if err := q.readMeta(names); err != nil {
		return err
	}
	if q.mark, err = openSlots(q.fs, q.id, "durable"); err != nil {
		return fmt.Errorf("read how far the log is durable: %w", err)
	}
	q.oldest, err = openSlots(q.fs, q.id, oldestFile)
	if errors.Is(err, fs.ErrNotExist) { // a queue from before there was one
		q.oldest, err = &slotFile{fs: q.fs, id: q.id, file: oldestFile}, nil
	}
	if err != nil {
		return fmt.Errorf("read where the log begins: %w", err)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := q.readFile(name); err != nil {
			return err
		}
	}
	if len(q.segs) == 0 {
		if q.mark.now.seq > 0 {
			return fmt.Errorf("%s: %w: no segment is there, but positions up to %d were made durable", q.fs.Path(""), ErrDamaged, q.mark.now.seq)
		}
		q.next, q.number = 1, 1
		if err := q.addSegment(); err != nil {
			return err
		}
	} else if err := q.recoverLast(ctx); err != nil {
		return err
	}
	return q.settleOpening()
}

// DiskID is Caps.ID of the queue in a directory that is not open: with it a
// ledger is asked for DiskOptions.AtLeast. An error that wraps fs.ErrNotExist:
// no queue is there.
func DiskID(dir string) ([16]byte, error) {
	id, err := loadMeta(osFS{dir})
	if err != nil {
		return id, fmt.Errorf("read the queue's id: %w", err)
	}
	return id, nil
}

// loadMeta reads a queue's UUID.
func loadMeta(d diskFS) ([16]byte, error) {
	f, err := d.Open("meta", false)
	if err != nil {
		return [16]byte{}, err
	}
	b := make([]byte, metaSize)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return [16]byte{}, err
	}
	id, err := decodeMeta(b[:n])
	if err != nil {
		return id, fmt.Errorf("%s: %w", d.Path("meta"), err)
	}
	return id, nil
}

// readMeta reads the queue's UUID, or makes a queue.
func (q *Disk) readMeta(names []string) error {
	var err error
	if q.id, err = loadMeta(q.fs); err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range names {
		if _, ok := parseSegmentFile(name); ok || strings.HasSuffix(name, cursorSuffix) {
			return fmt.Errorf("%s is missing, and %s is there: %w", q.fs.Path("meta"), name, ErrDamaged)
		}
	}
	if _, err := rand.Read(q.id[:]); err != nil {
		return err
	}
	q.id[6], q.id[8] = q.id[6]&0x0f|0x40, q.id[8]&0x3f|0x80 // UUID version 4
	for file, seq := range map[string]Seq{"durable": 0, oldestFile: 1} {
		s := &slotFile{fs: q.fs, id: q.id, file: file}
		if err := errors.Join(s.save(seq, false, true), s.close()); err != nil {
			return err
		}
	}
	// Last: a directory without it holds nothing worth keeping.
	f, err := makeFile(q.fs, "meta", func(f diskFile) error {
		_, err := f.WriteAt(encodeMeta(q.id), 0)
		return err
	})
	if err != nil {
		return err
	}
	return f.Close()
}

// readFile takes one file of the directory into account. Names come sorted.
func (q *Disk) readFile(name string) error {
	if strings.HasSuffix(name, cursorSuffix) {
		s, err := openSlots(q.fs, q.id, name)
		if err != nil {
			return fmt.Errorf("read a consumer's cursor: %w", err)
		}
		c := &cursor{name: s.now.name, required: s.now.required, acked: s.now.seq, file: s}
		q.cursors[c.name] = c
		if cursorFile(c.name) != name {
			return fmt.Errorf("%s: %w: it is the cursor of %q", q.fs.Path(name), ErrDamaged, c.name)
		}
		return nil
	}
	if _, ok := parseSegmentFile(name); !ok {
		return nil
	}
	f, h, err := openSegment(q.fs, q.id, name)
	if err != nil {
		return err
	}
	s := newSegment(h)
	if s.end, err = f.Size(); err != nil {
		return errors.Join(err, f.Close())
	}
	q.segs = append(q.segs, s)
	q.used += s.end
	return f.Close()
}

// recoverLast finds the end of the log in the last segment, and makes sure of
// it.
func (q *Disk) recoverLast(ctx context.Context) error {
	s := q.segs[len(q.segs)-1]
	f, err := q.fs.Open(s.file, true)
	if err != nil {
		return err
	}
	q.last, q.active = s, f
	size := s.end
	r := frameReader{fs: q.fs, f: f, seg: s, salt: s.salt, next: s.places[0], limit: size}
	var last frame
	var bad error
	for bad == nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		fr, err := r.read()
		if err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
		if bad = err; err == nil {
			s.note(place{first: fr.first, batch: fr.batch, off: fr.off, at: fr.at})
			last = fr
		}
	}
	end, known := r.next.first-1, q.mark.now.seq
	t, err := judgeTail(f, s.salt, r.next.off, size, r.next.batch)
	if err != nil {
		return err
	}
	switch {
	case !t.empty && !t.torn:
		return fmt.Errorf("%w: %s", bad, t.why)
	case end < known:
		return fmt.Errorf("%w: it held what was durable, up to position %d", bad, known)
	}
	if err := q.checkReached(end); err != nil {
		return err
	}
	if t.torn {
		if err := f.Truncate(r.next.off); err != nil {
			return err
		}
	}
	if last.body != nil && last.last() > known {
		b := make([]byte, last.size())
		if _, err := f.ReadAt(b, last.off); err != nil {
			return err
		}
		// Its first write may have failed.
		if c, ok := f.(interface{ Fd() uintptr }); ok {
			if err := durable.Drop(c, last.off, last.size()); err != nil {
				return err
			}
		}
		if _, err := f.WriteAt(b, last.off); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Allocate(q.o.SegmentBytes); err != nil {
		return err
	}
	q.used += r.next.off - s.end
	s.end = r.next.off
	q.next, q.number, q.at = r.next.first, r.next.batch, r.next.off
	return nil
}

// checkReached refuses a log that is older than what is known of it.
func (q *Disk) checkReached(end Seq) error {
	for _, c := range q.cursors {
		if c.acked > end {
			return fmt.Errorf("%s: %w: the log ends at %d, but consumer %q has acknowledged %d: "+
				"put the newer copy of the directory back, or start with an empty one", q.fs.Path(""), ErrBehind, end, c.name, c.acked)
		}
	}
	if q.o.AtLeast > end {
		return fmt.Errorf("%s: %w: the log ends at %d, but the ledger has its event %d: "+
			"put the newer copy of the directory back, or start with an empty one", q.fs.Path(""), ErrBehind, end, q.o.AtLeast)
	}
	return nil
}

// LossError says that the oldest segments of a queue are missing. It wraps
// ErrDamaged.
type LossError struct {
	Dir      string
	From, To Seq // the events that are gone and that a consumer still wanted
	// Behind are the consumers that have not acknowledged all of them; none if the
	// queue has no consumer at all.
	Behind []CursorInfo
}

func (e *LossError) Error() string {
	text := fmt.Sprintf("%s: %v: the log begins at position %d and should begin at %d: its oldest segments are missing, with events that", e.Dir, ErrDamaged, e.To+1, e.From)
	if len(e.Behind) == 0 {
		return text + " no consumer has seen"
	}
	for i, c := range e.Behind {
		sep := " and"
		if i == 0 {
			sep = ""
		}
		text += fmt.Sprintf("%s consumer %q has not acknowledged, which has come to %d", sep, c.Name, c.Acked)
	}
	return text
}

func (e *LossError) Unwrap() error { return ErrDamaged }

// checkBegin refuses a log that lacks its oldest segments, if somebody wants what
// they had. Optional consumers count too: to one that was cut loose this says
// nothing, for the oldest position kept goes up before a segment is removed.
func (q *Disk) checkBegin() error {
	e := &LossError{Dir: q.fs.Path(""), From: q.oldest.now.seq, To: q.segs[0].first - 1}
	low, found := Seq(0), false
	for _, c := range q.info() {
		if e.From == 0 && !c.Required {
			continue // it may have been cut loose: who knows where the log began
		}
		if !found || c.Acked < low {
			low, found = c.Acked, true
		}
		if c.Acked < e.To {
			e.Behind = append(e.Behind, c)
		}
	}
	if e.From == 0 && !found {
		return nil
	}
	if e.From = max(e.From, low+1); e.From > e.To {
		return nil
	}
	if q.o.AcceptLoss {
		q.loss = e
		return nil
	}
	return e
}

// settleOpening sets the watermarks once the end of the log is known and safe.
func (q *Disk) settleOpening() error {
	end := q.next - 1
	if err := q.checkReached(end); err != nil {
		return err
	}
	if err := q.checkBegin(); err != nil {
		return err
	}
	for _, r := range q.mark.now.refused {
		if r.count > 0 && (r.before == 0 || end < r.before) {
			q.unrecorded.note(SourceRefusals{Source: SourceUnknown, Count: r.count, First: time.Unix(0, r.first), Last: time.Unix(0, r.last)})
		}
	}
	if err := q.saveMark(end, 0, true); err != nil {
		return err
	}
	if q.oldest.f == nil && !q.o.AcceptLoss {
		if err := q.oldest.save(q.segs[0].first, false, true); err != nil {
			return err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.durable, q.opened = end, end
	q.head = q.segs[0].first
	for _, c := range q.cursors {
		if c.required {
			// Segments go only after the cursor is durable: a required one
			// below the oldest is the older slot of a file whose newer is bad, or what
			// is gone was given up.
			c.acked = max(c.acked, q.head-1)
		}
	}
	q.settle()
	return nil
}

// addSegment makes the segment that the next batch begins, and makes it the one
// that is written to.
func (q *Disk) addSegment() error {
	var salt [4]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return err
	}
	h := segmentHeader{first: q.durable + 1, batch: q.number, created: time.Now().UnixNano(), salt: le.Uint32(salt[:])}
	s := newSegment(h)
	f, err := makeFile(q.fs, s.file, func(f diskFile) error {
		if err := f.Allocate(q.o.SegmentBytes); err != nil {
			return err
		}
		_, err := f.WriteAt(h.encode(q.id), 0)
		return err
	})
	if err != nil {
		return err
	}
	q.last, q.active, q.at = s, f, s.end
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.segs); n > 0 && q.segs[n-1].first == s.first {
		q.used -= q.segs[n-1].end // it had nothing, and is replaced
		q.segs = q.segs[:n-1]
	}
	q.segs = append(q.segs, s)
	q.used += s.end
	return nil
}

// closeFiles closes everything and gives the directory free.
func (q *Disk) closeFiles() error {
	var errs []error
	if q.active != nil {
		errs = append(errs, q.active.Close())
		q.active = nil
	}
	for _, s := range []*slotFile{q.mark, q.oldest} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	for _, c := range q.cursors {
		if c.file != nil {
			errs = append(errs, c.file.close())
		}
	}
	return errors.Join(append(errs, q.lock.Close())...)
}
