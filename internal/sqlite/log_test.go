package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// logFile is a new database with small bounds of its log. Its rows have 700 bytes,
// about what an event has in a ledger.
type logFile struct {
	*File
	t *testing.T
	n int64
}

func newLogFile(t *testing.T) *logFile {
	t.Helper()
	f := &File{Path: filepath.Join(t.TempDir(), "log.db"), Create: true, Options: Options{Busy: time.Second},
		Limits: LogLimits{Begin: 100, Rest: 20, Most: 400}, Opened: makeRows}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return &logFile{f, t, 0}
}

// add commits five rows.
func (f *logFile) add() {
	f.t.Helper()
	err := f.Transact(context.Background(), true, func(c *Conn) error {
		for range 5 {
			f.n++
			if err := c.Each("INSERT INTO r VALUES (?, ?, 0)", []any{f.n, bytes.Repeat([]byte{byte(f.n)}, 700)}, ignoreRows); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// rowsIn counts the rows of a database and checks it and their contents.
func rowsIn(path string) (n int64, err error) {
	r, err := OpenReader(context.Background(), path)
	if err != nil {
		return 0, err
	}
	err = r.Do(context.Background(), func(c *Conn) error {
		if sound, err := c.Value("PRAGMA integrity_check"); err != nil || sound != "ok" {
			return fmt.Errorf("%s, %w", sound, err)
		}
		return c.Each("SELECT n, b FROM r ORDER BY n", nil, func(s *Stmt) error {
			if n++; s.Integer(0) != n || !bytes.Equal(s.Bytes(1), bytes.Repeat([]byte{byte(n)}, 700)) {
				return fmt.Errorf("row %d is %d", n, s.Integer(0))
			}
			return nil
		})
	})
	return n, errors.Join(err, r.Close())
}

func (f *logFile) expect(path string) {
	f.t.Helper()
	if n, err := rowsIn(path); err != nil || n != f.n {
		f.t.Errorf("%d rows of %d, %v", n, f.n, err)
	}
}

// awaitAnswer waits for the second connection's answer, without taking it.
func awaitAnswer(t *testing.T, k *logBackWriter) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(k.told) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the second connection does not answer")
		}
	}
}

func TestLogIsWrittenBackBesideTheWriter(t *testing.T) {
	f := newLogFile(t)
	asked, rounds := 0, 0
	for rounds < 3 {
		before := 0
		if f.log != nil {
			before = f.log.pages
		}
		f.add()
		k := f.log
		if k.pages < before {
			rounds++
		}
		if k.asking {
			// While it works the writer goes on, and does the rest.
			asked++
			f.add()
			if k.asking {
				awaitAnswer(t, k)
			}
		}
		if k.pages > k.limits.Begin+50 {
			t.Fatalf("the log has %d pages, of which %d are written back", k.pages, k.written)
		}
	}
	if asked < rounds || f.log.alone {
		t.Errorf("the log was begun anew %d times, the second connection was asked %d times; alone: %t", rounds, asked, f.log.alone)
	}
	// One that is left where it is does not stand in the way of the end.
	for f.log.pages < f.log.limits.Begin {
		f.add()
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if files, err := filepath.Glob(f.Path + "*"); err != nil || len(files) != 1 {
		t.Errorf("files left: %q, %v", files, err)
	}
	f.expect(f.Path)
}

// A reader keeps the log from being begun anew. The second connection is asked now
// and then, and not at every commit; when the reader has gone, all is made up for.
func TestLogBesideAReader(t *testing.T) {
	f := newLogFile(t)
	f.add()
	r, err := OpenReader(context.Background(), f.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	asked := 0
	for f.log.pages < f.log.limits.Most+100 {
		f.add()
		if f.log.asking {
			asked++
			awaitAnswer(t, f.log)
		}
	}
	if most := f.log.limits.Most/(f.log.limits.Begin/4) + 1; asked == 0 || asked > most {
		t.Errorf("asked %d times, at most %d are due", asked, most)
	}
	if err := r.Rest(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first one writes it back
		f.add()
	}
	if f.log.pages > 50 {
		t.Errorf("the log has %d pages", f.log.pages)
	}
}

// Without a second connection the writer writes back as soon as it is due; and it
// waits for one that falls far behind.
func TestLogWithoutASecondConnection(t *testing.T) {
	f := newLogFile(t)
	f.add()
	k := f.log
	k.alone = true
	for range 60 {
		f.add()
		if k.pages > k.limits.Begin+50 {
			t.Fatalf("the log has %d pages", k.pages)
		}
	}

	k.alone, k.asking, k.pages = false, true, k.limits.Most
	k.told <- k.limits.Begin
	k.committed()
	if k.asking || len(k.told) != 0 || k.alone {
		t.Errorf("%+v", k)
	}
	k.asking, k.pages = true, k.limits.Most
	k.told <- -1
	k.committed()
	if !k.alone {
		t.Error("that there is no second connection is not noticed")
	}
	// What is told of a log that is no more counts for nothing.
	k.alone, k.asking, k.stale, k.written = false, true, true, 7
	k.answered(100)
	if k.written != 7 || k.stale || k.asking {
		t.Errorf("%+v", k)
	}
}

// When nothing is committed any more the log is written back, so that a copy of
// the file alone has all rows.
func TestLogIsWrittenBackAtIdle(t *testing.T) {
	f := newLogFile(t)
	f.Limits.idle = 5 * time.Millisecond
	for range 3 {
		f.add()
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			// One that is taken while it is written to is not whole.
			alone := filepath.Join(t.TempDir(), "alone.db")
			copyOf(t, alone, f.Path)
			n, err := rowsIn(alone)
			if err == nil && n == f.n {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the file alone has %d rows of %d, %v", n, f.n, err)
			}
		}
	}
}

// The second connection never touches files that are not the writer's.
func TestLogOfAnotherFile(t *testing.T) {
	for i, suffix := range []string{"", "-wal", "-shm"} {
		f := newLogFile(t)
		f.add()
		if c := f.log.open(); c == nil {
			t.Fatal("no second connection")
		} else if err := c.Close(); err != nil {
			t.Error(err)
		}
		name := f.Path + suffix
		if err := os.Rename(name, name+".away"); err != nil {
			t.Fatal(err)
		}
		copyOf(t, name, name+".away")
		if c := f.log.open(); c != nil {
			t.Errorf("file %d: opened beside a writer of another one", i)
			_ = c.Close()
		}
		if err := os.Rename(name+".away", name); err != nil {
			t.Fatal(err)
		}
		f.add()
		f.expect(f.Path)
	}
}

func copyOf(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
