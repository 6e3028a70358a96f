package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/audit-host/audit-host/internal/sqlite/sqlitetest"
	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// cutWorld is a database on a disk that fails, in a machine whose power fails.
type cutWorld struct {
	t      *testing.T
	fs     *sqlitetest.FaultFS
	path   string
	f      *File
	limits LogLimits
	read   *Reader // holds the log back; nil if there is none
	next   int64
	acked  map[int64]bool // rows whose commit returned, or that were seen and relied upon

	mu   sync.Mutex
	rand *rand.Rand
	fail atomic.Pointer[string] // the kind of file whose next sync fails
}

func newCutWorld(t *testing.T, seed uint64, limits LogLimits) *cutWorld {
	w := &cutWorld{t: t, limits: limits, path: t.TempDir() + "/cut.db", acked: map[int64]bool{}, rand: rand.New(rand.NewPCG(seed, 1))}
	var name string
	w.fs, name = sqlitetest.NewFaultFS(t)
	w.fs.Sync = func(kind string) error {
		if p := w.fail.Load(); p != nil && *p == kind && w.fail.CompareAndSwap(p, nil) {
			return vfs.SystemError(syscall.EIO, sqlite3.IOERR_FSYNC)
		}
		return nil
	}
	if err := CreateEmpty(w.path); err != nil {
		t.Fatal(err)
	}
	w.f = w.file(name)
	if err := w.look(); err != nil { // from here on the layer knows the file
		t.Fatal(err)
	}
	return w
}

// leftAlone is a log that nobody writes back unless he is told to.
var leftAlone = LogLimits{Begin: 1 << 20, Rest: 1, Most: 1 << 20}

func (w *cutWorld) file(vfs string) *File {
	return &File{Path: w.path, Options: Options{Busy: time.Second, VFS: vfs}, Limits: w.limits,
		SyncDir: w.fs.SyncDir, Opened: makeRows}
}

func makeRows(c *Conn) error {
	return c.Exec("CREATE TABLE IF NOT EXISTS r (n INTEGER PRIMARY KEY, b BLOB NOT NULL, u INTEGER NOT NULL)")
}

func (w *cutWorld) chance(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n) == 0
}

// commit appends a row and changes one that is there. The error is the disk's.
func (w *cutWorld) commit() error {
	n := w.next + 1
	err := w.f.Transact(context.Background(), true, func(c *Conn) error {
		if err := c.Each("INSERT INTO r VALUES (?, ?, 0)", []any{n, rowContent(n)}, ignoreRows); err != nil {
			return err
		}
		return c.Each("UPDATE r SET u = u + 1 WHERE n = ?", []any{1 + n/3}, ignoreRows)
	})
	w.next = n
	if err == nil {
		w.acked[n] = true
	}
	return err
}

func ignoreRows(*Stmt) error { return nil }

func rowContent(n int64) []byte { return bytes.Repeat([]byte{byte(n)}, int(n*7919%6000)) }

// look relies on what it sees, as the remembered head, a receipt or a plugin that
// looks up an id does.
func (w *cutWorld) look() error {
	rows := map[int64]bool{}
	err := w.f.Transact(context.Background(), false, func(c *Conn) error { return seeRows(c, rows) })
	if err == nil {
		w.rely(rows)
	}
	return err
}

// lookBeside is the same through a reader's connection.
func (w *cutWorld) lookBeside() error {
	r, err := OpenReader(context.Background(), w.path)
	if err != nil {
		return err
	}
	rows := map[int64]bool{}
	err = r.Do(context.Background(), func(c *Conn) error { return seeRows(c, rows) })
	if err == nil && r.OnDisk() == nil {
		w.rely(rows)
	}
	return errors.Join(err, r.Close())
}

func (w *cutWorld) rely(rows map[int64]bool) {
	w.t.Helper()
	for n := range w.acked {
		if !rows[n] {
			w.t.Fatalf("row %d is not there any more", n)
		}
	}
	for n := range rows {
		w.acked[n] = true
	}
}

func seeRows(c *Conn, rows map[int64]bool) error {
	err := c.Each("SELECT n, b FROM r", nil, func(s *Stmt) error {
		n := s.Integer(0)
		if !bytes.Equal(s.Bytes(1), rowContent(n)) {
			return fmt.Errorf("row %d has another content", n)
		}
		rows[n] = true
		return nil
	})
	var e *Error
	if errors.As(err, &e) && e.Code == int(sqlite3.ERROR) {
		return nil // no table yet
	}
	return err
}

// hold opens a reader that stays in its state, or ends it.
func (w *cutWorld) hold() {
	if w.read != nil {
		if err := w.read.Close(); err != nil {
			w.t.Error(err)
		}
		w.read = nil
		return
	}
	if r, err := OpenReader(context.Background(), w.path); err == nil {
		w.read = r
	}
}

// kill ends the process: no connection is closed as it should be.
func (w *cutWorld) kill() {
	if w.read != nil {
		w.hold()
	}
	name := w.f.Options.VFS
	if c := w.f.Conn; c != nil {
		w.f.log.close()
		c.broken = true
		if err := c.Close(); err != nil {
			w.t.Error(err)
		}
	}
	path, _ := sameName(w.path)
	trusted.Lock()
	delete(trusted.files, path) // another process knows nothing
	trusted.Unlock()
	w.f = w.file(name)
}

// cut looks at what a power cut would leave now.
func (w *cutWorld) cut() {
	w.t.Helper()
	path := w.fs.AfterPowerCut(w.t, w.path, func() bool { return w.chance(2) })
	f := File{Path: path, Options: Options{Busy: time.Second}}
	rows, sound := map[int64]bool{}, ""
	err := f.Transact(context.Background(), false, func(c *Conn) (err error) {
		if err = seeRows(c, rows); err == nil {
			sound, err = c.Value("PRAGMA integrity_check")
		}
		return err
	})
	if err = errors.Join(err, f.Close()); err != nil || sound != "ok" {
		w.t.Fatalf("after a power cut: %v; integrity check: %s", err, sound)
	}
	for n := range w.acked {
		if !rows[n] {
			w.t.Fatalf("a power cut loses row %d of %d, which was relied upon", n, w.next)
		}
	}
}

// step does something that happens to a database.
func (w *cutWorld) step() {
	w.t.Helper()
	w.mu.Lock()
	what, kind := w.rand.IntN(20), []string{"-wal", ".db"}[w.rand.IntN(2)]
	w.mu.Unlock()
	switch what {
	case 0, 1, 2:
		w.fail.Store(&kind)
	case 3:
		w.hold()
	case 4:
		_ = w.look()
	case 5, 6:
		_ = w.lookBeside()
	case 7:
		w.kill()
	case 8:
		w.kill()
		w.fs.Evict(w.t)
	case 9:
		// The error is the disk's.
		_ = w.f.Close()
	default:
		_ = w.commit()
	}
	if w.chance(4) {
		w.cut()
	}
}

// What was relied upon outlasts every power cut, whatever the disk did before: a
// commit that returned, and what an opened database or a reader shows.
func TestDatabaseOutlastsFailedSyncs(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newCutWorld(t, seed, LogLimits{Begin: 12, Rest: 3, Most: 40, idle: 3 * time.Millisecond})
			for range 60 {
				w.step()
			}
			w.fail.Store(nil)
			if w.read != nil {
				w.hold()
			}
			if err := errors.Join(w.commit(), w.look()); err != nil {
				t.Errorf("the disk is well again: %v", err)
			}
			w.cut()
			if err := w.f.Close(); err != nil {
				t.Error(err)
			}
			w.cut()
		})
	}
}

// Until the log is known to be on disk nothing of it goes into the database: after a
// power cut the old log would be read over newer pages.
func TestDatabaseLogIsNotWrittenBackBeforeItIsOnDisk(t *testing.T) {
	w := newCutWorld(t, 0, leftAlone)
	for range 3 {
		if err := w.commit(); err != nil {
			t.Fatal(err)
		}
	}
	files := func() (list [2][]byte) {
		for i, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(w.path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			list[i] = b
		}
		return list
	}
	wal := "-wal"
	w.fail.Store(&wal)
	if w.commit() == nil {
		t.Fatal("the fault did not happen")
	}
	before := files()
	fails := w.fs.Sync
	for range 3 {
		// Beside it, another connection shows the same.
		w.fs.Sync = func(kind string) error {
			r, err := OpenReader(context.Background(), w.path)
			if err == nil && (!r.Live || r.OnDisk() == nil) {
				t.Error("a reader relies on a log that is not on disk")
			}
			if err == nil {
				err = r.Close()
			}
			return errors.Join(err, fails(kind))
		}
		w.fail.Store(&wal)
		if err := w.look(); err == nil || !strings.Contains(err.Error(), "could not be written to disk again") {
			t.Fatalf("opened on a log that is not on disk: %v", err)
		}
		w.fs.Sync = fails
		if err := w.lookBeside(); err != nil {
			t.Error(err)
		}
		w.cut()
	}
	if after := files(); !bytes.Equal(before[0], after[0]) || !bytes.Equal(before[1], after[1]) {
		t.Error("the database or its log was changed")
	}
	if err := errors.Join(w.look(), w.commit(), w.f.Close()); err != nil {
		t.Error(err)
	}
	w.cut()
}

// Pages that the kernel drops between SQLite's reading of the log and ours make it
// shorter than what is shown.
func TestDatabaseLogThatShrinksUnderItsReader(t *testing.T) {
	w := newCutWorld(t, 0, leftAlone)
	for range 3 {
		if err := w.commit(); err != nil {
			t.Fatal(err)
		}
	}
	wal := "-wal"
	w.fail.Store(&wal)
	if w.commit() == nil {
		t.Fatal("the fault did not happen")
	}
	c, err := Open(context.Background(), w.path, Options{VFS: w.f.Options.VFS, KeepLog: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Protect(c.makeDurable); err != nil {
		t.Fatal(err)
	}
	w.fs.Evict(t)
	err = c.Protect(func() error { return c.rewriteLog(unknown) })
	if err == nil || !strings.Contains(err.Error(), "frames are sound") {
		t.Errorf("%v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(w.look(), w.commit(), w.f.Close()); err != nil {
		t.Error(err)
	}
	w.cut()
}

// A page that was written back and not synced yet, since a reader stood in the way
// of the rest, counts as written back for SQLite. When the sync then fails it is
// written back again, out of a log that is read anew.
func TestDatabaseFailedCheckpoint(t *testing.T) {
	for _, held := range []bool{false, true} {
		w := newCutWorld(t, 0, leftAlone)
		k := w.f.log
		commits := func(n int) {
			t.Helper()
			for range n {
				if err := w.commit(); err != nil {
					t.Fatal(err)
				}
			}
		}
		commits(3)
		w.hold()
		commits(3)
		if k.write(); k.written == 0 || k.written >= k.pages || k.failed.Load() {
			t.Fatalf("%d of %d pages are written back, failed: %t", k.written, k.pages, k.failed.Load())
		}
		w.hold()
		if held {
			w.hold() // another program has it open, but reads the newest state
		}
		db := ".db"
		w.fail.Store(&db)
		if k.write(); !k.failed.Load() {
			t.Fatal("the fault did not happen")
		}
		if held {
			var e *Error
			if err := w.commit(); !errors.As(err, &e) || e.Code != int(sqlite3.BUSY) || !strings.Contains(err.Error(), "end it") {
				t.Errorf("the index of the log is an old one: %v", err)
			}
			w.hold()
		}
		commits(1)
		w.f.log.write()
		commits(1) // begins the log anew
		w.cut()
		if err := w.f.Close(); err != nil {
			t.Error(err)
		}
		w.cut()
	}
}
