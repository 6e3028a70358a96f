package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

func mustOpen(t *testing.T, s *diskSite, o queue.DiskOptions) *queue.Disk {
	t.Helper()
	q, err := s.open(o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func mustConsumer(t *testing.T, q queue.Queue, name string) queue.Consumer {
	t.Helper()
	c, err := q.Consumer(t.Context(), name, queue.ConsumerOptions{Required: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustDurable(t *testing.T, q *queue.Disk, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := queue.SubmitWait(t.Context(), q, sized(id), queue.Durable); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
}

// The operations of one batch are exactly these: write the frame, sync it, look
// whether its name still leads to it, write the mark; of one acknowledgement:
// write and sync a slot. All who wait for one batch share one sync.
func TestDiskOperationsPerBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := memSite()
		q := mustOpen(t, s, queue.DiskOptions{})
		c := mustConsumer(t, q, "sink")
		synctest.Wait()
		count := func() map[string]int {
			out := map[string]int{}
			for _, kind := range []string{"all", "write", "sync", "same"} {
				out[kind] = s.now.counted(kind)
			}
			return out
		}
		expect := func(what string, before map[string]int, want map[string]int) {
			t.Helper()
			for kind, n := range count() {
				if n-before[kind] != want[kind] {
					t.Errorf("%s: %d operations %q, want %d", what, n-before[kind], kind, want[kind])
				}
			}
		}
		before := count()
		mustDurable(t, q, "one")
		expect("one event", before, map[string]int{"all": 4, "write": 2, "sync": 1, "same": 1})

		release := s.now.stall()
		mustSubmit(t, q, "first")
		synctest.Wait() // its sync hangs; the others gather
		before = count()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { mustDurable(t, q, fmt.Sprint("e", i)) })
		}
		synctest.Wait()
		release()
		wg.Wait()
		expect("100 waiting events", before, map[string]int{"all": 6, "write": 3, "sync": 1, "same": 2})

		b, err := c.Next(t.Context(), 200, 0)
		if err != nil || len(b.Events) != 102 {
			t.Fatalf("%d events, %v", len(b.Events), err)
		}
		before = count()
		if err := c.Ack(t.Context(), b.Last()); err != nil {
			t.Fatal(err)
		}
		expect("ack", before, map[string]int{"all": 2, "write": 1, "sync": 1})
		before = count()
		if err := c.Ack(t.Context(), b.Last()); err != nil {
			t.Fatal(err)
		}
		expect("the same ack", before, nil)
		closeNow(t, q)
	})
}

func mustSubmit(t *testing.T, q *queue.Disk, id string) queue.Receipt {
	t.Helper()
	r, err := q.Submit(sized(id))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Submit allocates nothing per event, and neither does Next: only frames,
// batches and chunks are.
func TestDiskAllocations(t *testing.T) {
	s, _ := memSite()
	q := mustOpen(t, s, queue.DiskOptions{MaxBuffered: 64 << 20})
	defer closeNow(t, q)
	release := s.now.stall()
	mustSubmit(t, q, "in flight")
	ev := queue.Event{ID: benchID, Payload: payload400}
	const events = 20_000
	got := testing.AllocsPerRun(1, func() {
		for range events {
			if _, err := q.Submit(ev); err != nil {
				t.Fatal(err)
			}
		}
	})
	// A frame of a MiB holds some 2,300 events.
	if got > events/100 {
		t.Errorf("submit: %v allocations for %d events, want at most %d", got, events, events/100)
	}
	release()
	mustDurable(t, q, "last")
	c := mustConsumer(t, q, "sink")
	got = testing.AllocsPerRun(1, func() {
		for n := 0; n < events; {
			b, err := c.Next(t.Context(), 250, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			n += len(b.Events)
		}
	})
	// One slice per batch of 250, and from the files a chunk and a frame's worth.
	if got > events/50 {
		t.Errorf("next: %v allocations for %d events, want at most %d", got, events, events/50)
	}
}

// What failed to sync is never written or synced again in its file: the queue
// goes on in another one.
func TestDiskFailedSyncIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := memSite()
		q := mustOpen(t, s, tinyDisk())
		mustDurable(t, q, "a", "b")
		var failed string
		var later []string
		s.now.setFault(func(op operation) how {
			switch {
			case op.kind == "sync" && failed == "" && strings.HasSuffix(op.name, ".seg.tmp"):
				failed = op.name
				return how{err: syscall.EIO}
			case failed != "" && (op.kind == "sync" || op.kind == "write" || op.kind == "truncate" || op.kind == "allocate"):
				later = append(later, op.name)
			}
			return how{}
		})
		r := mustSubmit(t, q, "c")
		if err := r.Wait(t.Context(), queue.Durable); !errors.Is(err, queue.ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("wait: %v", err)
		}
		time.Sleep(time.Minute)
		mustDurable(t, q, "d")
		// The handle of the first segment still has its temporary name here.
		if failed == "" || len(later) == 0 {
			t.Fatalf("failed in %q, then wrote %q", failed, later)
		}
		for _, name := range later {
			if name == failed {
				t.Errorf("%s was written to again: %q", failed, later)
			}
		}
		closeNow(t, q)
	})
}

// If what was durable is not there any more when the queue wants to go on, it
// does not go on.
func TestDiskDamageFoundWhenReconciling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, disk := memSite()
		q := mustOpen(t, s, tinyDisk())
		mustDurable(t, q, "a", "b")
		heal := s.now.failSync()
		if err := mustSubmit(t, q, "c").Wait(t.Context(), queue.Durable); !errors.Is(err, queue.ErrFailed) {
			t.Fatalf("wait: %v", err)
		}
		disk.mu.Lock()
		for name, n := range disk.names {
			if strings.HasSuffix(name, ".seg") {
				n.data[512+50] ^= 1
			}
		}
		disk.mu.Unlock()
		heal()
		time.Sleep(time.Hour)
		err := q.Watermarks().Failure
		if !errors.Is(err, queue.ErrDamaged) || !errors.Is(err, queue.ErrFailed) || !strings.Contains(err.Error(), "offset 512") {
			t.Errorf("failure is %v", err)
		}
		closeNow(t, q)
	})
}

// A process saw its sync fail and died; the frame is in the page cache, and the
// kernel thinks it is on disk. The next process, which finds it and hands it
// out, must not believe that.
func TestDiskFrameThatOnlyLooksStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, disk := memSite()
		q := mustOpen(t, s, tinyDisk())
		c := mustConsumer(t, q, "sink")
		mustDurable(t, q, "a")
		s.now.failSync()
		if err := mustSubmit(t, q, "b").Wait(t.Context(), queue.Durable); !errors.Is(err, queue.ErrFailed) {
			t.Fatalf("wait: %v", err)
		}
		s.crash(q)
		if err := c.Close(); err != nil {
			t.Logf("close consumer: %v", err)
		}
		q = mustOpen(t, s, tinyDisk())
		c = mustConsumer(t, q, "sink")
		b, err := c.Next(t.Context(), 10, 0)
		if err != nil || len(b.Events) != 2 || b.Events[1].ID != "b" {
			t.Fatalf("after the crash: %v, %v", b.Events, err)
		}
		if err := c.Ack(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		s.crash(q)
		disk.cutPower(4) // drops everything that was not synced
		q = mustOpen(t, s, tinyDisk())
		c = mustConsumer(t, q, "sink")
		if b, err = c.Next(t.Context(), 10, 0); err != nil || b.Events[0].ID != "b" {
			t.Fatalf("after a power cut: %v, %v", b.Events, err)
		}
		closeNow(t, q)
	})
}

// A log that ends before a cursor, or before the ledger, is an older copy: it is
// refused, with both numbers and what to do.
func TestDiskBehind(t *testing.T) {
	s, disk := memSite()
	q := mustOpen(t, s, tinyDisk())
	mustConsumer(t, q, "sink")
	mustDurable(t, q, "a", "b")
	closeNow(t, q)
	older := disk.files()
	q = mustOpen(t, s, tinyDisk())
	c := mustConsumer(t, q, "sink")
	mustDurable(t, q, "c", "d", "e")
	if b, err := c.Next(t.Context(), 10, 0); err != nil || len(b.Events) != 5 {
		t.Fatalf("%d events, %v", len(b.Events), err)
	}
	if err := c.Ack(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	closeNow(t, q)
	newer := disk.files()

	expect := func(what string, files map[string][]byte, o queue.DiskOptions, words ...string) {
		t.Helper()
		disk.setFiles(files)
		q, err := s.open(o)
		if err == nil {
			closeNow(t, q)
		}
		if (err == nil) != (len(words) == 0) {
			t.Fatalf("%s: %v", what, err)
		}
		for _, word := range words {
			if !errors.Is(err, queue.ErrBehind) || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v, want ErrBehind and %q", what, err, word)
			}
		}
	}
	mixed := map[string][]byte{}
	for name, data := range older {
		mixed[name] = data
		if strings.HasSuffix(name, ".cur") {
			mixed[name] = newer[name]
		}
	}
	expect("newer cursor", mixed, tinyDisk(), "ends at 2", `"sink" has acknowledged 4`, "put the newer copy")
	o := tinyDisk()
	o.AtLeast = 2
	expect("ledger at the end", older, o)
	o.AtLeast = 3
	expect("ledger ahead", older, o, "ends at 2", "event 3", "put the newer copy")
	o.AtLeast = 5
	expect("ledger at the end of the newer", newer, o)
}

// The directory or the segment in use is taken away under the running process:
// it notices before it acknowledges, says so, and goes on when it is put back.
func TestDiskTakenAway(t *testing.T) {
	for _, x := range []struct {
		name string
		away func(t *testing.T, dir, segment string) (back func() error)
		want string
	}{
		{"directory moved", func(t *testing.T, dir, _ string) func() error {
			if err := os.Rename(dir, dir+"-away"); err != nil {
				t.Fatal(err)
			}
			return func() error { return os.Rename(dir+"-away", dir) }
		}, "directory was removed or replaced"},
		{"directory replaced", func(t *testing.T, dir, _ string) func() error {
			err := errors.Join(os.Rename(dir, dir+"-away"), os.Mkdir(dir, 0o700))
			other, err2 := queue.OpenDisk(t.Context(), queue.DiskOptions{Dir: dir})
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			closeNow(t, other)
			return func() error { return errors.Join(os.RemoveAll(dir), os.Rename(dir+"-away", dir)) }
		}, "replaced by another queue"},
		{"segment removed", func(t *testing.T, _, segment string) func() error {
			if err := os.Rename(segment, segment+"-away"); err != nil {
				t.Fatal(err)
			}
			return func() error { return os.Rename(segment+"-away", segment) }
		}, "was removed while it was in use"},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "queue")
			synctest.Test(t, func(t *testing.T) {
				q, err := queue.OpenDisk(t.Context(), queue.DiskOptions{Dir: dir})
				if err != nil {
					t.Fatal(err)
				}
				c := mustConsumer(t, q, "sink")
				mustDurable(t, q, "a")
				segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
				if err != nil || len(segments) != 1 {
					t.Fatalf("segments %q, %v", segments, err)
				}
				back := x.away(t, dir, segments[0])
				err = mustSubmit(t, q, "b").Wait(t.Context(), queue.Durable)
				if !errors.Is(err, queue.ErrFailed) {
					t.Errorf("wait: %v, want ErrFailed", err)
				}
				time.Sleep(time.Minute)
				if err := q.Watermarks().Failure; err == nil || !strings.Contains(err.Error(), x.want) {
					t.Errorf("failure is %v, want %q", err, x.want)
				}
				if err := back(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				mustDurable(t, q, "c")
				b, err := c.Next(t.Context(), 10, 0)
				for err == nil && len(b.Events) < 2 {
					var more queue.Batch
					more, err = c.Next(t.Context(), 10, 0)
					b.Events = append(b.Events, more.Events...)
				}
				if err != nil || b.Events[0].ID != "a" || b.Events[1].ID != "c" {
					t.Errorf("%v, %v", b.Events, err)
				}
				closeNow(t, q)
			})
		})
	}
}

// Positions belong to a queue, which has one name for its whole life.
func TestDiskIdentity(t *testing.T) {
	dir := t.TempDir()
	if _, err := queue.DiskID(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("id of no queue: %v", err)
	}
	var ids [][16]byte
	for range 2 {
		q, err := queue.OpenDisk(t.Context(), queue.DiskOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, q.Caps().ID)
		if _, err := queue.OpenDisk(t.Context(), queue.DiskOptions{Dir: dir}); !errors.Is(err, queue.ErrBusy) || !strings.Contains(err.Error(), dir) {
			t.Errorf("second opening: %v, want ErrBusy with the directory", err)
		}
		closeNow(t, q)
		id, err := queue.DiskID(dir)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for _, id := range ids[1:] {
		if id != ids[0] {
			t.Errorf("ids %x", ids)
		}
	}
	if ids[0] == [16]byte{} {
		t.Errorf("ids %x", ids)
	}
	s, _ := memSite()
	q := mustOpen(t, s, tinyDisk())
	defer closeNow(t, q)
	if q.Caps().ID == ids[0] {
		t.Error("two queues have one id")
	}
}

// A disk that hangs holds up Close only for a while, and whoever waits is told.
func TestDiskCloseWhileTheDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := memSite()
		q := mustOpen(t, s, tinyDisk())
		release := s.now.stall()
		r := mustSubmit(t, q, "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := q.Close(ctx)
		if d := time.Since(start); err == nil || d > 4*time.Second {
			t.Errorf("close took %v: %v", d, err)
		}
		if err := r.Wait(t.Context(), queue.Durable); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("wait: %v, want ErrClosed", err)
		}
		if s.now.open() == 0 {
			t.Error("the files are closed under the sync")
		}
		release()
		synctest.Wait()
		if n := s.now.open(); n != 0 {
			t.Errorf("%d handles are open after the disk answered", n)
		}
	})
}

// Options that can't work are refused when the queue is opened, and say why.
func TestDiskOptions(t *testing.T) {
	for _, x := range []struct {
		o    queue.DiskOptions
		want string // of the error; empty: it opens
		max  int    // Caps.MaxEvent
	}{
		{queue.DiskOptions{}, "", 1 << 20},
		{queue.DiskOptions{MaxBytes: 1 << 20}, "", 32 << 10},
		{queue.DiskOptions{MaxBytes: -1}, "negative", 0},
		{queue.DiskOptions{MaxBytes: 1 << 20, MaxEvent: 64 << 10}, "need segments of at least", 0},
		{queue.DiskOptions{MaxBytes: 1 << 20, SegmentBytes: 512 << 10}, "do not hold four segments", 0},
		{queue.DiskOptions{MaxBytes: 40 << 10}, "at least 8192", 0},
		{queue.DiskOptions{MaxBytes: 1 << 40, SegmentBytes: 2 << 30}, "at most", 0},
		{queue.DiskOptions{MaxBuffered: 1 << 10, MaxEvent: 1 << 10}, "need a buffer", 0},
	} {
		s, _ := memSite()
		q, err := s.open(x.o)
		switch {
		case err == nil:
			if x.want != "" || q.Caps().MaxEvent != x.max {
				t.Errorf("%+v: opened with events of up to %d, want %q, %d", x.o, q.Caps().MaxEvent, x.want, x.max)
			}
			closeNow(t, q)
		case x.want == "" || !strings.Contains(err.Error(), x.want):
			t.Errorf("%+v: %v, want %q", x.o, err, x.want)
		}
	}
	if _, err := queue.OpenDisk(t.Context(), queue.DiskOptions{}); err == nil {
		t.Error("opened without a directory")
	}
}
