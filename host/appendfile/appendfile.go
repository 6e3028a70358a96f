// Package appendfile keeps the one append-only file that a plugin can be
// granted. The plugin never sees a path: the host opens the file, and the
// plugin says what is appended to it and when that has to be on disk.
//
// The file is made of lines. A record is one or more whole lines, and every
// record ends with a newline.
//
// Guarantees:
//   - A record is appended whole or not at all, and lies in one file: the file
//     is rotated between records only.
//   - When Sync returns nil, every record whose Append returned nil since the
//     Sync before is on disk, in the file or in a rotated one. If that cannot
//     be, because an fsync failed or the file was taken away, Sync says so with
//     [ErrUnsynced], even when an Append in between has said it too.
//   - No symlink is followed but those that lead to the folder when it is
//     opened; a file or folder that was replaced, and a file that somebody
//     else wrote to or cut, is noticed before the next record is appended.
//   - A crash or a power cut, also in the middle of a rotation, loses nothing
//     that was synced. It may leave the beginning of a record at the end of the
//     file. That is evidence and stays: the next Open ends the line, so that
//     readers find one broken line, and all others whole.
//   - Two processes never write one file: the second gets [ErrLocked].
//
// Not guaranteed: that a record is there once only. After an error or a crash
// the caller appends again what was not synced, and readers know records by
// their id. Nor that a record survives if it was appended and never synced:
// acknowledge nothing before Sync has returned. Whoever may write to the folder
// may also remove what lies in it; this package notices and says so, it does
// not prevent it.
package appendfile

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"
)

// DefaultPattern names rotated files if [Options].Pattern is empty.
const DefaultPattern = "{name}.{seq}"

var (
	// ErrRecord is wrapped when a record is empty or does not end with a
	// newline. Nothing was written.
	ErrRecord = errors.New("a record ends with a newline")
	// ErrReplaced is wrapped when the file or its folder is not what its name
	// stands for any more, or when somebody else wrote to it. Nothing was
	// written; the next call opens what is there then.
	ErrReplaced = errors.New("was changed under this process")
	// ErrUnsynced is wrapped when records that were appended since the last
	// good Sync are not surely on disk. They have to be appended again.
	ErrUnsynced = errors.New("append again what was appended since the last sync")
	// ErrNoSpace is wrapped when the disk or the quota is full. Nothing of the
	// record is left in the file, and the same call may succeed later.
	ErrNoSpace = errors.New("no space is left")
	// ErrLocked is wrapped when another File or process has the file open.
	ErrLocked = errors.New("is open elsewhere: one process at a time writes it")
)

// Options says which file it is and what becomes of it when it has grown.
type Options struct {
	// Path is the file. Its folder exists; the file is created, mode 0600,
	// where there is none. Beside it lies an empty file with the suffix .lock,
	// which stays.
	Path string
	// MaxSize is the size in bytes beyond which the file does not grow: a
	// record that would not fit goes into a new one, and a record that is
	// longer than MaxSize has a file of its own. 0 never rotates.
	MaxSize int64
	// Keep is how many rotated files stay, 0 all. The oldest go first.
	Keep int
	// MaxTotal bounds what the rotated files and a file of MaxSize hold
	// together, in bytes; the oldest rotated files go first. 0 is no bound.
	MaxTotal int64
	// Pattern names rotated files, in the same folder: {name} is the file's
	// own name, {seq} a number of six digits or more that grows from file to
	// file, {time} the time of the rotation in UTC (20060102T150405.000000Z).
	// It holds {seq} or {time}, or both, each once.
	Pattern string
	// Log gets what nobody else is told: a torn line that was ended, a rotated
	// file that was removed or could not be. nil drops it.
	Log *slog.Logger
}

// File is an append-only file. It is used by one goroutine at a time.
type File struct {
	o         Options
	dir, name string
	pattern   *pattern
	mount     func(dir string) (volume, error)
	now       func() time.Time

	v volume // nil until opened, and after the folder was replaced
	h handle // nil until opened, and after a fault
	// info tells the open file from others.
	info fs.FileInfo
	// size is how long the file is when all is well. Up to synced it is covered
	// by the last good Sync, or was there when the file was opened.
	size, synced int64
	// most is how long the file may be after a failed write.
	most int64
	// again is set while the open file has been given up after a fault and is
	// still the one to continue: it is opened again and cut back to size.
	again bool
	// lost is why records are in doubt; the next Sync returns it.
	lost   error
	closed bool
}

// Open opens or creates the file, ends a torn last line, and holds the lock
// until Close. Errors wrap [ErrLocked], [ErrNoSpace] and those of package fs.
func Open(o Options) (*File, error) {
	return open(o, mountDisk)
}

func open(o Options, mount func(string) (volume, error)) (*File, error) {
	path, err := filepath.Abs(o.Path)
	if err != nil || o.Path == "" {
		return nil, fmt.Errorf("open append-only file %q: path: %w", o.Path, errors.Join(err, fs.ErrInvalid))
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Path = path
	f := &File{o: o, dir: filepath.Dir(path), name: filepath.Base(path), mount: mount, now: time.Now}
	if f.pattern, err = f.o.validate(f.name); err != nil {
		return nil, fmt.Errorf("open append-only file %s: %w", path, err)
	}
	if err := f.connect(); err != nil {
		return nil, errors.Join(f.fail("open", err), f.release())
	}
	return f, nil
}

func (o *Options) validate(name string) (*pattern, error) {
	switch {
	case o.MaxSize < 0 || o.Keep < 0 || o.MaxTotal < 0:
		return nil, errors.New("MaxSize, Keep and MaxTotal must not be negative; 0 means no bound")
	case o.MaxSize == 0 && (o.Keep > 0 || o.MaxTotal > 0):
		return nil, errors.New("without MaxSize nothing is rotated, and so Keep and MaxTotal must be 0")
	case o.MaxTotal > 0 && o.MaxTotal < o.MaxSize:
		return nil, fmt.Errorf("MaxTotal (%d) must be at least MaxSize (%d)", o.MaxTotal, o.MaxSize)
	}
	if o.Pattern == "" {
		o.Pattern = DefaultPattern
	}
	return parsePattern(o.Pattern, name)
}

// Append adds a record. After an error nothing of it is in the file, or will
// be when the next call has succeeded, and it may be appended again. Errors
// wrap [ErrRecord], [ErrReplaced], [ErrUnsynced], [ErrNoSpace], [ErrLocked] and
// fs.ErrClosed. That it is on disk is known when [File.Sync] has returned.
func (f *File) Append(p []byte) error {
	if len(p) == 0 || p[len(p)-1] != '\n' {
		return f.fail("append", ErrRecord)
	}
	if err := f.ready(); err != nil {
		return f.fail("append", err)
	}
	if f.o.MaxSize > 0 && f.size > 0 && int64(len(p)) > f.o.MaxSize-f.size {
		if err := f.rotate(); err != nil {
			return f.fail("rotate", err)
		}
	}
	n, err := f.h.Write(p)
	if err == nil && n == len(p) {
		f.size += int64(n)
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%d of %d bytes written", n, len(p))
	}
	// What was written of the record is cut off before anybody is told. If the
	// disk does not allow that either, the file is given up, and cut before it
	// is used again: in this process by connect; and after a crash the next
	// Open ends the torn line.
	f.most = f.size + int64(len(p))
	if e := f.v.Cut(f.name, f.info, f.size); e != nil {
		err = errors.Join(err, fmt.Errorf("cut the part of the record: %w", e))
		f.giveUp()
	}
	return f.fail("append", err)
}

// Sync returns when all records appended so far are on disk. An error that
// wraps [ErrUnsynced] tells that those since the last good Sync have to be
// appended again; whatever the error, doing so is right.
func (f *File) Sync() error {
	var err error
	switch {
	case f.closed:
		err = fs.ErrClosed
	case f.h == nil:
		err = f.connect()
	}
	if err == nil && f.size > f.synced {
		err = f.flush()
	}
	if err == nil {
		// An fsync of a file that nobody can find is worth nothing.
		err = f.check()
	}
	if f.lost != nil {
		err = errors.Join(f.lost, err)
		f.lost = nil
	}
	if err != nil {
		// The caller appends all of it again, so none of it is covered.
		return f.fail("sync", err)
	}
	f.synced = f.size
	return nil
}

// flush is fsync. One that failed is never tried again on the same file and
// believed: Linux reports an error once and forgets the pages that it could not
// write, so that the second fsync would succeed over a hole. The file is given
// up; before it is used again all that was not covered by an earlier good Sync
// is cut off, and the caller, who hears ErrUnsynced, appends it anew.
func (f *File) flush() error {
	if err := f.h.Sync(); err != nil {
		f.doubt(err)
		f.most, f.size = f.size, f.synced
		f.giveUp()
		return fmt.Errorf("%w: %w", ErrUnsynced, err)
	}
	return nil
}

// doubt notes that records since the last good Sync may not be on disk.
func (f *File) doubt(why error) {
	if f.size > f.synced && f.lost == nil {
		f.lost = fmt.Errorf("%w: %w", ErrUnsynced, why)
	}
}

// Close syncs, closes and unlocks the file. Its error is that of [File.Sync],
// with the same meaning. Later calls return fs.ErrClosed.
func (f *File) Close() error {
	if f.closed {
		return f.fail("close", fs.ErrClosed)
	}
	var err error
	if f.h != nil || f.again || f.lost != nil {
		err = f.Sync()
	}
	f.closed = true
	return errors.Join(err, f.release())
}

func (f *File) release() error {
	var err error
	if f.h != nil {
		err = f.h.Close()
		f.h = nil
	}
	if f.v != nil {
		err = errors.Join(err, f.v.Close())
		f.v = nil
	}
	if err != nil {
		return f.fail("close", err)
	}
	return nil
}

// fail says what was done with which file, and marks a full disk.
func (f *File) fail(verb string, err error) error {
	if noSpace(err) {
		return fmt.Errorf("%s %s: %w; free some and try again: %w", verb, f.o.Path, ErrNoSpace, err)
	}
	return fmt.Errorf("%s %s: %w", verb, f.o.Path, err)
}
