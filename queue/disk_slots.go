package queue

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

const (
	oldestFile      = "oldest"
	cursorSuffix    = ".cur"
	temporarySuffix = ".tmp"
)

// cursorFile is the file of a consumer. Names may have any bytes, hence a hash;
// the name itself is in the file.
func cursorFile(name string) string {
	h := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%x%s", h[:16], cursorSuffix)
}

// slotFile is one number that survives a torn write. One goroutine at a time
// uses it.
type slotFile struct {
	fs   diskFS
	id   [16]byte
	file string
	now  slot // as last written
	// refused goes into the slot with the next save.
	refused refusedSlots
	f       diskFile // nil: not made yet, or not to be written to any more
}

// openSlots opens an existing one and reads the slot that counts.
func openSlots(d diskFS, id [16]byte, name string) (*slotFile, error) {
	f, err := d.Open(name, true)
	if err != nil {
		return nil, err
	}
	s := &slotFile{fs: d, id: id, file: name, f: f}
	found := false
	for i := range int64(2) {
		b := make([]byte, slotSize)
		if _, err := f.ReadAt(b, i*slotDistance); err != nil && !errors.Is(err, io.EOF) {
			return nil, errors.Join(fmt.Errorf("read %s: %w", d.Path(name), err), f.Close())
		}
		if v, ok := decodeSlot(b, id); ok && (!found || v.gen > s.now.gen) {
			s.now, found = v, true
		}
	}
	if !found {
		return nil, errors.Join(fmt.Errorf("%s: %w: neither of its two slots is right", d.Path(name), ErrDamaged), f.Close())
	}
	return s, nil
}

// save writes a position, durably if sync is set. After an error the file is not
// written to any more: the next save makes a new one.
func (s *slotFile) save(seq Seq, required, sync bool) error {
	next := s.now
	next.gen, next.seq, next.required, next.refused = s.now.gen+1, seq, required, s.refused
	if s.f == nil {
		f, err := makeFile(s.fs, s.file, func(f diskFile) error {
			if err := f.Allocate(2 * slotDistance); err != nil {
				return err
			}
			return s.put(f, next)
		})
		if err != nil {
			return err
		}
		s.f, s.now = f, next
		return nil
	}
	err := s.put(s.f, next)
	if err == nil && sync {
		err = s.f.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", s.fs.Path(s.file), err), s.close())
	}
	s.now = next
	return nil
}

func (s *slotFile) put(f diskFile, v slot) error {
	_, err := f.WriteAt(v.encode(s.id), int64(v.gen%2)*slotDistance)
	return err
}

// close ends writing to the file.
func (s *slotFile) close() error {
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	return err
}

// remove deletes the file, durably.
func (s *slotFile) remove() error {
	if err := s.close(); err != nil {
		return err
	}
	if err := s.fs.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.fs.SyncDir()
}

// keep implements store.
func (q *Disk) keep(c *cursor, at Seq, required bool) (err error) {
	if c.file == nil {
		c.file = &slotFile{fs: q.fs, id: q.id, file: cursorFile(c.name), now: slot{name: c.name}}
	}
	if s := c.file; s.f == nil || s.now.seq != at || s.now.required != required {
		q.operation(func() { err = s.save(at, required, true) })
	}
	return err
}

// drop implements store.
func (q *Disk) drop(c *cursor) (err error) {
	if c.file != nil {
		q.operation(func() { err = c.file.remove() })
	}
	return err
}

// makeFile makes or replaces a file such that its name never leads to anything
// but what fill wrote, whenever the power is cut: the content is durable before
// the rename, and the name before makeFile returns.
func makeFile(d diskFS, name string, fill func(diskFile) error) (diskFile, error) {
	temporary := name + temporarySuffix
	f, err := d.Create(temporary)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", d.Path(temporary), err)
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = d.Rename(temporary, name)
	}
	if err == nil {
		err = d.SyncDir()
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("make %s: %w", d.Path(name), err), f.Close())
		// On a full disk it may hold what there was left, which the ledger needs so
		// that the queue gets shorter. Failing that, the next attempt uses it again.
		_ = d.Remove(temporary)
		return nil, err
	}
	return f, nil
}
