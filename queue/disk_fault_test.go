package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// tinyDisk makes segments so small that a short script needs many.
func tinyDisk() queue.DiskOptions {
	return queue.DiskOptions{SegmentBytes: 8 << 10, MaxBytes: 1 << 20, MaxEvent: 2 << 10, CacheBytes: 4 << 10}
}

// sized is an event whose payload, up to 1,500 bytes, follows from its ID.
func sized(id string) queue.Event {
	h := fnv.New32a()
	h.Write([]byte(id))
	return queue.Event{ID: id, Payload: bytes.Repeat([]byte(id+" "), int(h.Sum32()%1500)/(len(id)+1))}
}

// history is what a script did, and so what must be there afterwards.
type history struct {
	t     *testing.T
	n     int
	order []string        // all that was submitted, in order
	sure  map[string]bool // reported durable
	acked string          // the last one acknowledged for certain
	maybe string          // the last one whose ack failed, so that it may count
}

func newHistory(t *testing.T) *history {
	return &history{t: t, sure: map[string]bool{}}
}

// add submits n events and waits for them. It says whether all are durable.
func (h *history) add(q *queue.Disk, n int) bool {
	h.t.Helper()
	var receipts []queue.Receipt
	var ids []string
	for range n {
		h.n++
		id := fmt.Sprintf("e%04d", h.n)
		r, err := q.Submit(sized(id))
		if err != nil {
			if !errors.Is(err, queue.ErrFailed) {
				h.t.Fatalf("submit %s: %v", id, err)
			}
			return false
		}
		receipts, ids = append(receipts, r), append(ids, id)
		h.order = append(h.order, id)
	}
	ok := true
	for i, r := range receipts {
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Hour)
		err := r.Wait(ctx, queue.Durable)
		cancel()
		switch {
		case err == nil:
			h.sure[ids[i]] = true
		case errors.Is(err, queue.ErrFailed):
			ok = false
		default:
			h.t.Fatalf("wait for %s: %v", ids[i], err)
		}
	}
	w := q.Watermarks()
	if w.Submitted-w.SendFailures != uint64(w.Accepted-w.Opened) {
		h.t.Fatalf("submitted %d - failed %d is not accepted %d - opened %d", w.Submitted, w.SendFailures, w.Accepted, w.Opened)
	}
	return ok
}

// consume takes up to n events that are there, and acknowledges them all.
func (h *history) consume(q *queue.Disk, c queue.Consumer, n int) {
	h.t.Helper()
	for n > 0 && c.Acked() < q.Watermarks().Durable {
		b, err := c.Next(h.t.Context(), n, 0)
		if err != nil {
			if errors.Is(err, queue.ErrDamaged) {
				h.t.Fatalf("next: %v", err)
			}
			return // a failing read
		}
		last := b.Events[len(b.Events)-1].ID
		n -= len(b.Events)
		if err := c.Ack(h.t.Context(), b.Last()); err != nil {
			if !errors.Is(err, queue.ErrFailed) {
				h.t.Fatalf("ack: %v", err)
			}
			h.maybe = last
			return
		}
		h.acked, h.maybe = last, ""
	}
}

// run is the script: several segments, acknowledgements, removal, a consumer
// forgotten. It goes on after errors.
func (h *history) run(q *queue.Disk) {
	ctx := h.t.Context()
	open := func(name string) queue.Consumer {
		c, err := q.Consumer(ctx, name, queue.ConsumerOptions{Required: true})
		if err != nil {
			time.Sleep(time.Minute)
			if c, err = q.Consumer(ctx, name, queue.ConsumerOptions{Required: true}); err != nil {
				h.t.Fatalf("open consumer %s once more: %v", name, err)
			}
		}
		return c
	}
	c, other := open("sink"), open("other")
	for i := range 5 {
		if !h.add(q, 2+i) {
			time.Sleep(time.Minute) // of the bubble; it mends itself meanwhile
		}
		h.consume(q, c, 3)
	}
	if err := other.Close(); err != nil {
		h.t.Logf("close consumer: %v", err)
	}
	if err := q.Forget(ctx, "other"); err != nil {
		time.Sleep(time.Minute)
		if err := q.Forget(ctx, "other"); err != nil {
			h.t.Fatalf("forget once more: %v", err)
		}
	}
	h.consume(q, c, 8)
	synctest.Wait()
	h.add(q, 3)
	if err := c.Close(); err != nil {
		h.t.Logf("close consumer: %v", err)
	}
}

// verify reads what is there behind the acknowledgement: everything durable,
// once, in order, unharmed; of the rest nothing twice and nothing invented.
func (h *history) verify(q *queue.Disk) {
	h.t.Helper()
	c, err := q.Consumer(h.t.Context(), "sink", queue.ConsumerOptions{Required: true})
	if err != nil {
		h.t.Fatalf("open consumer: %v", err)
	}
	var got []string
	at := c.Acked()
	for end := q.Watermarks().Durable; at < end; {
		b, err := c.Next(h.t.Context(), 7, 0)
		if err != nil {
			h.t.Fatalf("read behind %d of %d: %v", at, end, err)
		}
		for _, x := range b.Events {
			if x.Seq != at+1 {
				h.t.Fatalf("position %d follows %d", x.Seq, at)
			}
			at = x.Seq
			if !bytes.Equal(x.Payload, sized(x.ID).Payload) {
				h.t.Fatalf("event %s has another payload", x.ID)
			}
			got = append(got, x.ID)
		}
	}
	if err := c.Close(); err != nil {
		h.t.Fatal(err)
	}
	// Walk through what was submitted; got must be a part of it, in order.
	i := 0
	reached := h.acked == ""
	for _, id := range h.order {
		if i < len(got) && got[i] == id {
			i++
			if !reached {
				h.t.Fatalf("%s comes again, %s was acknowledged", id, h.acked)
			}
		} else if reached && h.sure[id] && (h.maybe == "" || id > h.maybe) {
			h.t.Fatalf("%s was durable and is gone; there are %q", id, got)
		}
		reached = reached || id == h.acked
	}
	if i < len(got) {
		h.t.Fatalf("%s was never submitted, comes twice or out of order; all are %q", got[i], got)
	}
}

// closeNow closes with whatever is left.
func closeNow(t *testing.T, q *queue.Disk) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var left *queue.RemainingError
	if err := q.Close(ctx); err != nil && !errors.As(err, &left) {
		t.Fatalf("close: %v", err)
	}
}

// everyFault calls try with ever later operations, until one script had none of
// that number.
func everyFault(t *testing.T, try func(t *testing.T, n int) (reached bool)) int {
	for n := 1; ; n++ {
		reached := false
		synctest.Test(t, func(t *testing.T) { reached = try(t, n) })
		if t.Failed() {
			t.Fatalf("at operation %d", n)
		}
		if !reached {
			if n < 100 {
				t.Fatalf("the script has %d operations: too few to prove anything", n-1)
			}
			return n - 1
		}
	}
}

// Every operation fails once, in every way: nothing durable is lost, nothing is
// there twice, nothing hangs, and the queue mends itself. Afterwards the power
// is cut, and all of that still holds.
func TestDiskEveryOperationFailsOnce(t *testing.T) {
	for _, x := range []struct {
		name string
		how  how
	}{
		{"EIO before", how{err: syscall.EIO}},
		{"EIO after", how{err: syscall.EIO, after: true}},
		{"ENOSPC", how{err: syscall.ENOSPC}},
		{"short write", how{err: syscall.ENOSPC, short: 61}},
	} {
		t.Run(x.name, func(t *testing.T) {
			n := everyFault(t, func(t *testing.T, n int) bool {
				s, disk := memSite()
				d := newFaultFS(disk)
				s.now = d
				hit := ""
				d.setFault(func(op operation) how {
					if op.n != n {
						return how{}
					}
					hit = op.kind + " " + op.name
					return x.how
				})
				h := newHistory(t)
				q, err := queue.OpenDisk(t.Context(), queue.WithFS(tinyDisk(), d))
				if err != nil {
					if hit == "" || !errors.Is(err, x.how.err) {
						t.Fatalf("open: %v", err)
					}
					if d.open() != 0 {
						t.Fatalf("%s: %d handles are open after a failed opening", hit, d.open())
					}
					d.setFault(nil)
					if q, err = s.open(tinyDisk()); err != nil {
						t.Fatalf("%s: open once more: %v", hit, err)
					}
				}
				h.run(q)
				s.now.setFault(nil)
				time.Sleep(time.Minute)
				if !h.add(q, 2) {
					t.Fatalf("%s: a minute later: %v", hit, q.Watermarks().Failure)
				}
				if t.Failed() {
					return true
				}
				h.verify(q)
				s.crash(q)
				disk.cutPower(uint64(n))
				if q, err = s.open(tinyDisk()); err != nil {
					t.Fatalf("%s: open after a power cut: %v", hit, err)
				}
				h.verify(q)
				closeNow(t, q)
				if s.now.open() != 0 {
					t.Errorf("%s: %d handles are open at the end", hit, s.now.open())
				}
				return hit != ""
			})
			t.Logf("%d operations failed, one at a time", n)
		})
	}
}

// The power is cut at every operation, before and after it took effect, and any
// part of what was not synced is gone: opening never fails, nothing durable is
// lost, nothing is invented.
func TestDiskPowerCutAtEveryOperation(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprint("after=", after), func(t *testing.T) {
			seeds := 8
			if testing.Short() {
				seeds = 2
			}
			for seed := range seeds {
				n := everyFault(t, func(t *testing.T, n int) bool { return cutAt(t, n, after, uint64(seed)) })
				if seed == 0 {
					t.Logf("%d operations, %d cuts at each", n, seeds)
				}
			}
		})
	}
}

func cutAt(t *testing.T, n int, after bool, seed uint64) bool {
	var reached atomic.Bool // the writer and the remover of segments come here
	s, disk := memSite()
	d := newFaultFS(disk)
	s.now = d
	d.setFault(func(op operation) how {
		if op.n < n {
			return how{}
		}
		reached.Store(true)
		if op.n == n && after {
			return how{err: errDead, after: true}
		}
		d.kill()
		return how{err: errDead}
	})
	h := newHistory(t)
	q, err := queue.OpenDisk(t.Context(), queue.WithFS(tinyDisk(), d))
	if err == nil {
		// Nobody retries in a dead process: the script ends with it.
		h.untilDead(q)
		s.crash(q)
	} else if !reached.Load() {
		t.Fatal(err)
	}
	disk.cutPower(seed<<32 | uint64(n))
	for range 2 { // what recovery wrote must be good for another
		if q, err = s.open(tinyDisk()); err != nil {
			t.Fatalf("open after a power cut: %v", err)
		}
		h.verify(q)
		if !h.add(q, 3) {
			t.Fatalf("after a power cut: %v", q.Watermarks().Failure)
		}
		h.verify(q)
		s.crash(q)
		disk.cutPower(seed<<32 | uint64(n) + 1)
	}
	return reached.Load()
}

// untilDead is the script up to the first failure.
func (h *history) untilDead(q *queue.Disk) {
	c, err := q.Consumer(h.t.Context(), "sink", queue.ConsumerOptions{Required: true})
	if err != nil {
		return
	}
	for i := range 5 {
		if !h.add(q, 2+i) {
			return
		}
		if h.consume(q, c, 4); h.maybe != "" {
			return
		}
	}
	synctest.Wait() // the segments that are done with are gone now
	h.add(q, 3)
}
