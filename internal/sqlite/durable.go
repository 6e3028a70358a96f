package sqlite

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"github.com/audit-host/audit-host/internal/durable"
)

// # What an opened database shows is on disk
//
// With synchronous=FULL a commit that has returned is on disk, and SQLite lets
// nobody see one before. Two things break that, both when the log is read anew:
//
//   - A process was killed between writing a commit to the log and its sync. The
//     next one finds the commit in the page cache, and a power cut takes it away.
//   - The sync failed. Linux then drops what it could not write from its list and
//     keeps it in the cache: the next sync succeeds, and there is a hole on disk.
//     Commits behind the hole are lost with it, however well they are synced.
//
// So nothing is concluded from a database before rewriteLog has had its log
// written and synced once more: at each open, and so after each failed commit,
// which costs the connection. Until then it is doubtful, and a reader of this
// process says so ([Reader.OnDisk]).
//
// Writing the log back into the database (wal_checkpoint) is not enough, and is
// not done before: it syncs a log in which nothing is dirty, and overwrites pages
// of the database. A power cut then leaves the old log up to the hole, which is
// read first, over pages of a newer state. And it waits for readers, which this
// does not.
//
// A failed sync of the database itself, in a checkpoint, is the same one file
// further: SQLite counts pages as written back before it has synced them, where the
// log could not be copied to its end. So after such a failure the connection is
// given up too, and the log is used only once it was read anew, which sets that
// count to nothing: all of it is written back again.

// trust is what this process knows of a database.
type trust uint8

const (
	unknown  trust = iota // it has not opened it to write
	onDisk                // all that it shows is on disk
	doubtful              // it may show what is not
	anew                  // the same, and the log has to be read anew
)

// trusted is what is known of each database, by name.
var trusted = struct {
	sync.Mutex
	files map[string]trust
}{files: map[string]trust{}}

func trustIn(path string) trust {
	name, _ := sameName(path)
	trusted.Lock()
	defer trusted.Unlock()
	return trusted.files[name]
}

// setTrust notes what is known from now on and returns what was known before. What
// has to be read anew stays so until it is on disk.
func setTrust(path string, now trust) (was trust) {
	name, ok := sameName(path)
	if !ok {
		return unknown
	}
	trusted.Lock()
	defer trusted.Unlock()
	if was = trusted.files[name]; was != anew || now == onDisk {
		trusted.files[name] = now
	}
	return was
}

// sameName is the one name of a file; false if there is no such file.
func sameName(path string) (string, bool) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	return real, err == nil
}

// errIndexHeld is a database whose log can't be read anew: another process's
// connection keeps the shared index of it.
var errIndexHeld = &Error{Code: int(sqlite3.BUSY), Text: "the disk failed while the log was written back, so that all of it has to be written back again, " +
	"and another program that has the database open prevents that: end it"}

// rewriteLog writes every byte of the log that is shown once more, and syncs it. was
// is what was known of the database.
//
// It holds SQLite's lock for writing, so that nobody appends in the meantime;
// readers go on. Each byte is replaced by itself: whenever the power fails, the
// log has what it had, or more of what it shows. What is written is checked by
// SQLite's checksums as it passes, and once more as the disk has it: pages that the
// kernel has dropped since SQLite read them make the log shorter than what is
// shown, and are an error.
func (c *Conn) rewriteLog(was trust) (err error) {
	var shown, back int64 // frames of the log, and those that count as written back
	err = c.Each("PRAGMA wal_checkpoint = NOOP", nil, func(s *Stmt) error {
		shown, back = s.Integer(1), s.Integer(2)
		return nil
	})
	switch {
	case err != nil:
		return err
	case was == anew && back > 0:
		return errIndexHeld
	}
	if err := c.Begin(true); err != nil {
		return err
	}
	if was != onDisk {
		err = drop(c.main, 0, 0) // pages of the database that could not be written once
	}
	if err == nil && shown > 0 {
		err = c.sound(&rewriter{f: c.wal}, shown)
	}
	if err == nil {
		err = c.wal.Sync(vfs.SYNC_FULL)
	}
	if err == nil {
		err = drop(c.wal, 0, 0)
	}
	if err == nil {
		err = c.sound(io.NewSectionReader(c.wal, 0, math.MaxInt64), shown) // what the disk has
	}
	if err != nil {
		err = &Error{Code: int(sqlite3.IOERR_FSYNC), Text: fmt.Sprintf("disk I/O error: the log %s could not be written to disk again: %v", c.walPath(), err)}
	}
	return errors.Join(err, c.Rollback())
}

// sound reads the log and returns an error unless it has the frames that are shown.
func (c *Conn) sound(r io.Reader, shown int64) error {
	found, err := scanWAL(bufio.NewReaderSize(r, rewriteChunk))
	if err == nil && int64(found.frames) < shown {
		err = fmt.Errorf("%d of its %d frames are sound", found.frames, shown)
	}
	return err
}

// drop is durable.Drop for a file that SQLite has open, through the layers before it.
func drop(f vfs.File, off, n int64) error {
	for {
		switch under := f.(type) {
		case interface{ Drop(off, n int64) error }:
			return under.Drop(off, n)
		case interface{ Fd() uintptr }: // an *os.File
			return durable.Drop(under, off, n)
		case vfs.FileUnwrap:
			f = under.Unwrap()
		default:
			return nil
		}
	}
}

// rewriteChunk is how much is written at once, in bytes: a multiple of all page sizes.
const rewriteChunk = 1 << 20

// rewriter reads a file and writes what it has read to the same place.
type rewriter struct {
	f  vfs.File
	at int64
}

func (r *rewriter) Read(p []byte) (int, error) {
	n, err := r.f.ReadAt(p, r.at)
	if n == 0 {
		return 0, err
	}
	if err := drop(r.f, r.at, int64(len(p))); err != nil {
		return 0, err
	}
	if _, err := r.f.WriteAt(p[:n], r.at); err != nil {
		return 0, err
	}
	r.at += int64(n)
	return n, nil
}
