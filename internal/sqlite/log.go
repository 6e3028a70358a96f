package sqlite

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// How long the log may be, in pages of 4 KiB. A commit only appends to it; what
// it holds is written back into the database by a second connection, on a
// goroutine of its own, while the writer goes on. That one never catches up with
// a writer who never pauses, and the log can be begun anew only when nothing of it
// is missing in the database: so the writer writes back the last few pages itself.
const (
	logBegin = 10_000 // from here on the second connection writes back: 40 MB
	logRest  = 1_000  // so few the writer does itself, in some milliseconds
	LogMost  = 40_000 // from here on the writer writes back all of it: 160 MB
	// A log of which nothing was committed for so long, up to twice, is written
	// back by the second connection: a copy of the database alone then has all.
	logIdle = time.Second
)

// LogLimits are the constants above, smaller in tests. An idle of 0 is never.
type LogLimits struct {
	Begin, Rest, Most int
	idle              time.Duration
}

// logBackWriter keeps the log of one open connection short. It belongs to the
// connection's goroutine, but for run.
//
// # Why a crash is no harm
//
// Both connections checkpoint in SQLite's mode PASSIVE. That copies pages of
// committed transactions only, which were synced with the log before, syncs the
// database, and only then marks them as written, under a lock that only one of the
// two can have. A writer begins the log anew when all of it is marked. A crash in
// between leaves pages in the database that the log has too, and is read first.
// What a commit syncs is the log, as before: no acknowledgement depends on this.
type logBackWriter struct {
	limits LogLimits
	writer *Conn
	files  [3]os.FileInfo // the writer's database, log and shared memory

	ask  chan struct{}
	told chan int // pages that are in the database; -1: it can't be done
	done sync.WaitGroup
	one  sync.Mutex // held by the one that writes back
	// commits counts them, for run to see that there are none.
	commits atomic.Uint64

	pages   int  // of the log, at the last commit
	asked   int  // how many it had when the second connection was asked; 0: not since it was begun
	asking  bool // the answer is not there yet
	stale   bool // the log was begun anew since it was asked
	written int  // of the log are in the database, as far as it is known
	alone   bool // there is no second connection
	// failed tells that the disk failed while the log was written back: see
	// durable.go. The connection is given up before anything else is done.
	failed atomic.Bool
}

// KeepLog begins to keep the connection's log short. It is called protected, when
// the log is open.
func (c *Conn) keepLog(limits LogLimits) *logBackWriter {
	if limits == (LogLimits{}) {
		limits = LogLimits{logBegin, logRest, LogMost, logIdle}
	}
	k := &logBackWriter{limits: limits, writer: c, ask: make(chan struct{}, 1), told: make(chan int, 1), files: c.logFiles()}
	// Instead of SQLite's own, which would checkpoint here.
	c.DB.WALHook(func(_ *sqlite3.Conn, _ string, pages int) error {
		if pages < k.pages { // begun anew
			k.asked, k.written, k.stale = 0, 0, k.asking
		}
		k.pages = pages
		return nil
	})
	k.done.Go(k.run)
	return k
}

// logFiles are the files of the database, its log and its shared memory; nil for
// what is not known.
func (c *Conn) logFiles() (list [3]os.FileInfo) {
	infos := c.infos()
	copy(list[:], infos[:])
	wal := c.walPath()
	// Without it no second connection is used.
	list[2], _ = os.Stat(wal[:len(wal)-len("-wal")] + "-shm")
	return list
}

// committed is called, protected, after each commit. What goes wrong in it can be
// repeated at the next one and is none of the commit's business, which stands.
func (k *logBackWriter) committed() {
	k.commits.Add(1)
	if k.asking {
		select {
		case n := <-k.told:
			k.answered(n)
		default:
		}
	}
	switch rest := k.pages - k.written; {
	case k.pages < k.limits.Begin:
	case k.pages >= k.limits.Most && k.asking:
		// The disk is slower than the writer, who therefore waits.
		k.answered(<-k.told)
		k.write()
	case k.pages >= k.limits.Most, k.alone, rest <= k.limits.Rest && !k.asking:
		k.write()
	case !k.asking && k.pages-k.asked >= k.limits.Begin/4:
		k.asking, k.asked = true, k.pages
		k.ask <- struct{}{}
	}
}

func (k *logBackWriter) answered(written int) {
	switch {
	case written < 0:
		k.alone = true
	case !k.stale:
		k.written = written
	}
	k.asking, k.stale = false, false
}

// write has the writer itself write back. If a reader stands in the way, this does
// little and costs little.
func (k *logBackWriter) write() {
	if !k.one.TryLock() {
		return // the other one is at it
	}
	defer k.one.Unlock()
	if written, err := k.back(k.writer); err == nil {
		k.written = written
	}
}

// back has c write back what it can; one is held. When the disk has failed once nothing is
// written back any more, by neither of the two: SQLite would go on behind what is
// missing on disk.
func (k *logBackWriter) back(c *Conn) (written int, err error) {
	if k.failed.Load() {
		return 0, errDiskFailed
	}
	err = c.Protect(func() (err error) {
		written, err = c.writeBack()
		return err
	})
	if e := (*Error)(nil); errors.As(err, &e) && e.Code&0xff == int(sqlite3.IOERR) {
		k.failed.Store(true)
	}
	return written, err
}

var errDiskFailed = errors.New("the disk has failed while the log was written back")

// run writes the log back whenever it is asked to, and when nothing is committed
// any more, until close. Its connection is opened when it is needed, and closed
// when all is quiet: an engine has megabytes.
func (k *logBackWriter) run() {
	var c *Conn
	leave := func() {
		if c != nil {
			// It wrote nothing that anybody was promised.
			_ = c.Close()
			c = nil
		}
	}
	defer leave()
	write := func() int {
		written := -1
		if c == nil {
			c = k.open()
		}
		if c != nil {
			k.one.Lock()
			n, err := k.back(c)
			k.one.Unlock()
			if written = n; err != nil && c.broken {
				written = -1
			}
		}
		return written
	}
	var tick <-chan time.Time
	if k.limits.idle > 0 {
		ticker := time.NewTicker(k.limits.idle)
		defer ticker.Stop()
		tick = ticker.C
	}
	var seen, done uint64 // commits, at the last tick and when the log was last written back at idle
	for {
		select {
		case _, ok := <-k.ask:
			if !ok {
				return
			}
			k.told <- write()
		case <-tick:
			// One that can't be done is none of anybody's business: the next commit, or
			// the end, has it done again.
			if n := k.commits.Load(); n != seen {
				seen = n
			} else if n != done {
				done = n
				write()
				leave()
			}
		}
	}
}

// open opens the second connection; nil if there can be none. Its files must be
// the writer's: if one was replaced, the log would be written into another
// database, or without the writer's locks.
func (k *logBackWriter) open() *Conn {
	c, err := Open(context.Background(), k.writer.Path, Options{Busy: time.Millisecond, KeepLog: true, VFS: k.writer.vfs})
	if err != nil {
		return nil
	}
	err = c.Protect(func() error {
		if err := c.Exec("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON; PRAGMA wal_autocheckpoint = 0"); err != nil {
			return err
		}
		return c.keepWAL()
	})
	for i, mine := range c.logFiles() {
		if mine == nil || k.files[i] == nil || !os.SameFile(mine, k.files[i]) {
			err = errors.Join(err, errors.New("another file"))
		}
	}
	if err != nil {
		_ = c.Close()
		return nil
	}
	return c
}

// close ends run. The writer's connection is still open.
func (k *logBackWriter) close() {
	close(k.ask)
	k.done.Wait()
	if k.asking {
		k.answered(<-k.told)
	}
}

// writeBack writes what it can of the log into the database, without waiting for
// anybody, and returns how many of its pages are there.
func (c *Conn) writeBack() (int, error) {
	_, written, err := c.DB.WALCheckpoint("main", sqlite3.CHECKPOINT_PASSIVE)
	return written, asError(err)
}
