package queue_test

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// The disk is full: new segments can't be made. Nothing is lost, and when there
// is space again, events are taken again.
func TestDiskNoSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, disk := memSite()
		q := mustOpen(t, s, tinyDisk())
		c := mustConsumer(t, q, "sink")
		s.now.setFault(func(op operation) how {
			if op.kind == "allocate" {
				return how{err: syscall.ENOSPC}
			}
			return how{}
		})
		var want []string
		for i := 0; ; i++ {
			id := fmt.Sprint("e", i)
			if _, err := queue.SubmitWait(t.Context(), q, sized(id), queue.Durable); err != nil {
				if !errors.Is(err, queue.ErrFailed) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("%s: %v", id, err)
				}
				break
			}
			want = append(want, id)
		}
		time.Sleep(time.Hour)
		if err := q.Watermarks().Failure; !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("failure is %v", err)
		}
		// What could not be made holds no space: the ledger may need it.
		names, err := disk.List()
		if err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".tmp") }) {
			t.Errorf("files %q, %v", names, err)
		}
		s.now.setFault(nil)
		time.Sleep(time.Minute)
		mustDurable(t, q, "after")
		want = append(want, "after")
		var got []string
		for len(got) < len(want) {
			b, err := c.Next(t.Context(), 3, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range b.Events {
				got = append(got, x.ID)
			}
			if err := c.Ack(t.Context(), b.Last()); err != nil {
				t.Fatal(err)
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := q.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A segment that can't be removed is not forgotten: the bound holds, and it goes
// when it can.
func TestDiskSegmentThatCannotBeRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, disk := memSite()
		o := tinyDisk()
		o.MaxBytes = 64 << 10
		q := mustOpen(t, s, o)
		c := mustConsumer(t, q, "sink")
		s.now.setFault(func(op operation) how {
			if op.kind == "remove" {
				return how{err: syscall.EPERM}
			}
			return how{}
		})
		segments := func() (n int64) {
			for name, data := range disk.files() {
				if strings.HasSuffix(name, ".seg") {
					n += int64(len(data))
				}
			}
			return n
		}
		full := false
		for i := 0; i < 1000 && !full; i++ {
			_, err := q.Submit(sized(fmt.Sprint("e", i)))
			if full = errors.Is(err, queue.ErrFull); err != nil && !full {
				t.Fatal(err)
			}
			if full {
				break
			}
			b, err := c.Next(t.Context(), 10, 0)
			if err == nil {
				err = c.Ack(t.Context(), b.Last())
			}
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := segments(); n > o.MaxBytes {
				t.Fatalf("%d bytes on disk, the bound is %d", n, o.MaxBytes)
			}
		}
		if !full {
			t.Fatal("never full")
		}
		s.now.setFault(nil)
		time.Sleep(time.Minute)
		mustDurable(t, q, "after")
		if n := segments(); n > 3*o.SegmentBytes {
			t.Errorf("%d bytes on disk, all was acknowledged", n)
		}
		closeNow(t, q)
	})
}

// Each failed sync costs a segment, and what was preallocated of it is given back:
// what is on disk is what is counted, the segment that is written to, and less than
// a page for each other one.
func TestDiskFailuresTakeNoSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, disk := memSite()
		o := queue.DiskOptions{SegmentBytes: 128 << 10, MaxBytes: 1 << 20}
		q := mustOpen(t, s, o)
		c := mustConsumer(t, q, "sink")
		const failures = 30
		var want []string
		for i := range failures {
			want = append(want, fmt.Sprint("e", i))
			mustDurable(t, q, want[i])
			heal := s.now.failSync()
			if err := mustSubmit(t, q, "fails").Wait(t.Context(), queue.Durable); !errors.Is(err, queue.ErrFailed) {
				t.Fatalf("wait: %v", err)
			}
			heal()
			time.Sleep(time.Minute)
		}
		segments, onDisk := int64(0), int64(0)
		for name, data := range disk.files() {
			if strings.HasSuffix(name, ".seg") {
				segments++
				onDisk += int64(len(data))
			}
		}
		if counted := q.Watermarks().Bytes; segments != failures+1 || onDisk > counted+o.SegmentBytes+segments*4096 {
			t.Errorf("%d segments with %d bytes on disk, %d are counted, of at most %d", segments, onDisk, counted, o.MaxBytes)
		}
		var got []string
		for len(got) < len(want) {
			b, err := c.Next(t.Context(), 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range b.Events {
				got = append(got, x.ID)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		closeNow(t, q)
	})
}

// A million events that nobody takes cost memory only up to the budgets.
func TestDiskMillionPending(t *testing.T) {
	events := 1_000_000
	if testing.Short() {
		events = 200_000
	}
	debug.FreeOSMemory()
	before := resident()
	q, err := queue.OpenDisk(t.Context(), queue.DiskOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	mustConsumer(t, q, "parked")
	ev := queue.Event{ID: benchID, Payload: payload400}
	peak := before
	var last queue.Receipt
	for i := range events {
		if last, err = q.SubmitBlocking(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
		if i%50_000 == 0 {
			peak = max(peak, resident())
		}
	}
	if err := last.Wait(t.Context(), queue.Durable); err != nil {
		t.Fatal(err)
	}
	peak = max(peak, resident())
	w := q.Watermarks()
	t.Logf("%d events pending: %d MiB resident more than before, %d MiB on disk", w.Events, (peak-before)>>20, w.Bytes>>20)
	if w.Events != int64(events) || peak-before > 100<<20 {
		t.Errorf("%d events pending, %d bytes resident more than before", w.Events, peak-before)
	}
	closeNow(t, q)
}

// A consumer that is far behind reads files: of the end of the log only so much
// is in memory for it that it changes over when it has caught up, without a file
// being read from there on.
func TestDiskTailInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := memSite()
		const cache = 64 << 10
		q := mustOpen(t, s, queue.DiskOptions{CacheBytes: cache})
		c := mustConsumer(t, q, "sink")
		ev := queue.Event{ID: "e", Payload: make([]byte, 1<<10)}
		most := int64(0)
		for range 300 {
			if _, err := queue.SubmitWait(t.Context(), q, ev, queue.Durable); err != nil {
				t.Fatal(err)
			}
			most = max(most, queue.TailBytes(q))
		}
		if n := queue.TailBytes(q); most <= cache/2 || most > cache || n == 0 || n > cache/8 {
			t.Errorf("%d bytes of the end are in memory, %d at most; want up to %d for one that keeps up and %d for one that is behind", n, most, cache, cache/8)
		}
		for c.Acked() < q.Watermarks().Durable {
			b, err := c.Next(t.Context(), 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Ack(t.Context(), b.Last()); err != nil {
				t.Fatal(err)
			}
		}
		if n := queue.TailBytes(q); n != 0 {
			t.Errorf("%d bytes are in memory, which nobody wants", n)
		}
		reads := s.now.counted("read")
		for range 10 {
			if _, err := queue.SubmitWait(t.Context(), q, ev, queue.Durable); err != nil {
				t.Fatal(err)
			}
			if b, err := c.Next(t.Context(), 0, 0); err != nil || len(b.Events) != 1 {
				t.Fatalf("%d events, %v", len(b.Events), err)
			}
		}
		if n := s.now.counted("read") - reads; n != 0 {
			t.Errorf("a consumer that keeps up has read files %d times", n)
		}
		closeNow(t, q)
	})
}

// resident is the memory that the Go runtime has from the system, in bytes. It is
// all that the queue takes: nothing is mapped. VmRSS says the same, but counts
// the race detector's shadow of it too.
func resident() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}

// Segments that only an optional consumer wanted were removed, and the power cut
// takes back any part of that: it is told what it missed, or gets what is there,
// but finds no hole.
func TestDiskPowerCutWhileRemoving(t *testing.T) {
	lagged := 0
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			s, disk := memSite()
			o := tinyDisk()
			o.MaxBytes = 48 << 10
			q := mustOpen(t, s, o)
			c := mustConsumer(t, q, "sink")
			lazy, err := q.Consumer(t.Context(), "lazy", queue.ConsumerOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 120 {
				mustDurable(t, q, fmt.Sprint("e", i))
				if b, err := c.Next(t.Context(), 1, 0); err != nil || c.Ack(t.Context(), b.Last()) != nil {
					t.Fatal(err)
				}
			}
			n := s.now.counted("remove")
			for i := 0; s.now.counted("remove") < n+3; i++ { // at the bound: the next ones go
				if _, err := q.SubmitBlocking(t.Context(), sized(fmt.Sprint("f", i))); err != nil {
					t.Fatal(err)
				}
				if b, err := c.Next(t.Context(), 1, 0); err != nil || c.Ack(t.Context(), b.Last()) != nil {
					t.Fatal(err)
				}
			}
			if err := lazy.Close(); err != nil {
				t.Fatal(err)
			}
			s.crash(q)
			disk.cutPower(seed)
			q = mustOpen(t, s, o)
			lazy, err = q.Consumer(t.Context(), "lazy", queue.ConsumerOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for at, end := queue.Seq(0), q.Watermarks().Durable; at < end; {
				b, err := lazy.Next(t.Context(), 0, 0)
				var lag queue.ErrLagged
				switch {
				case errors.As(err, &lag) && lag.From == at+1:
					lagged++
					at = lag.To
				case err != nil:
					t.Fatalf("seed %d: behind %d: %v", seed, at, err)
				case b.First != at+1:
					t.Fatalf("seed %d: %d follows %d", seed, b.First, at)
				default:
					at = b.Last()
				}
			}
			closeNow(t, q)
		})
	}
	if lagged == 0 {
		t.Error("nothing was ever removed: this proves nothing")
	}
}
