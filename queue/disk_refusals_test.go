package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// counts is a loss record whose ID has the count.
func counts(told *[]queue.Refusals) func(queue.Refusals) (queue.Event, bool) {
	return func(r queue.Refusals) (queue.Event, bool) {
		*told = append(*told, r)
		return queue.Event{ID: fmt.Sprint("loss-", r.Count)}, true
	}
}

// refuse fills the queue and has it refuse n events more.
func refuse(t *testing.T, q *queue.Disk, n int) (refused uint64) {
	t.Helper()
	for i := 0; n > 0; i++ {
		ev := sized(fmt.Sprint("e", i))
		ev.Source = "http"
		_, err := q.Submit(ev)
		switch {
		case err == nil:
			continue
		case !errors.Is(err, queue.ErrFull):
			t.Fatal(err)
		}
		refused++
		synctest.Wait() // what is in memory gets to the disk
		if q.Watermarks().Durable == q.Watermarks().Accepted {
			n--
		}
	}
	return refused
}

// ackAll acknowledges what there is and returns the IDs of loss records.
func ackAll(t *testing.T, q *queue.Disk, c queue.Consumer) (losses []string) {
	t.Helper()
	for c.Acked() < q.Watermarks().Durable {
		b, err := c.Next(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			if len(e.ID) > 5 && e.ID[:5] == "loss-" {
				losses = append(losses, e.ID)
			}
		}
		if err := c.Ack(t.Context(), b.Last()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	}
	return losses
}

// A process is killed while its queue is full. The next one knows how many events
// were refused and when, tells it once there is room, and no third one tells it
// again.
func TestDiskRefusalsOutliveTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := memSite()
		var told []queue.Refusals
		o := tinyDisk()
		o.LossRecord = counts(&told)
		q := mustOpen(t, s, o)
		mustConsumer(t, q, "sink")
		before := time.Now()
		refused := refuse(t, q, 5)
		writes := s.now.counted("write")
		time.Sleep(time.Hour)
		if n := s.now.counted("write") - writes; n != 1 {
			t.Errorf("%d writes for the refusals in an hour, want one", n)
		}
		refused += refuse(t, q, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		refuse(t, q, 1) // too late for the mark
		s.crash(q)

		q = mustOpen(t, s, o)
		w := q.Watermarks()
		if r := w.Unrecorded; w.Refused.Count != 0 || r.Count != refused || len(r.Sources) != 1 || r.Sources[0].Source != queue.SourceUnknown ||
			r.First.Before(before) || r.Last.Sub(r.First) < time.Hour || r.Last.Sub(r.First) > time.Hour+time.Minute {
			t.Errorf("after the kill %+v is to be told, want %d", r, refused)
		}
		s.crash(q) // and once more before anything is told
		q = mustOpen(t, s, o)
		c := mustConsumer(t, q, "sink")
		want := fmt.Sprint("loss-", refused)
		losses := ackAll(t, q, c)
		if len(losses) != 1 || losses[0] != want || q.Watermarks().Unrecorded.Count != 0 {
			t.Errorf("told %v, want [%s]; still to be told %d", losses, want, q.Watermarks().Unrecorded.Count)
		}
		s.crash(q)
		q = mustOpen(t, s, o)
		if losses := ackAll(t, q, mustConsumer(t, q, "sink")); len(losses) != 0 {
			t.Errorf("%v is told a second time", losses)
		}
		closeNow(t, q)
	})
}

// toldOnce has refusals counted and then told, with a fault at the n-th file
// operation from the first refusal on: with fails of 0 the process is killed before
// it, else the operation takes effect and says that it failed, and the kill comes
// so many operations later. A seed other than 0 cuts the power besides. It says
// whether all of the count was told, and whether the fault came too late.
func toldOnce(t *testing.T, n, fails int, seed uint64) (all, done bool) {
	s, disk := memSite()
	var asked []queue.Refusals
	o := tinyDisk()
	o.MaxBytes = 48 << 10
	o.LossRecord = counts(&asked)
	q := mustOpen(t, s, o)
	c := mustConsumer(t, q, "sink")
	refused := refuse(t, q, 3)
	time.Sleep(2 * time.Second)
	synctest.Wait()
	from := s.now.counted("all")
	s.now.setFault(func(op operation) how {
		switch {
		case op.n == from+n+fails:
			s.now.kill()
		case op.n == from+n:
			return how{err: syscall.EIO, after: true}
		}
		return how{}
	})
	records := map[queue.Seq]string{}
	readLosses(t.Context(), q, c, records)
	if fails > 0 {
		time.Sleep(time.Minute) // it mends itself, or is killed meanwhile
		readLosses(t.Context(), q, c, records)
	}
	done = s.now.counted("all") < from+n
	s.crash(q)
	if seed > 0 {
		disk.cutPower(seed)
	}
	q = mustOpen(t, s, o)
	readLosses(t.Context(), q, mustConsumer(t, q, "sink"), records)
	closeNow(t, q)
	sum := uint64(0)
	for _, id := range records {
		var k uint64
		if _, err := fmt.Sscanf(id, "loss-%d", &k); err != nil {
			t.Fatal(err)
		}
		sum += k
	}
	if len(records) > 1 || sum > refused || seed == 0 && sum != refused {
		t.Errorf("operation %d, kill %d later, seed %d: told %v, want %d once", n, fails, seed, records, refused)
	}
	return sum == refused, done
}

// A kill takes nothing of the count of refusals, wherever their record was on its
// way, also where a write failed before and got to the disk all the same. A power
// cut may take some or all of it. Nothing has anything told twice.
func TestDiskRefusalsToldOnce(t *testing.T) {
	told := map[bool]int{}
	type variant struct {
		fails int
		seed  uint64
	}
	variants := []variant{{0, 0}, {0, 1}, {0, 2}, {0, 3}, {4, 1}, {8, 2}, {100, 0}}
	for fails := 1; fails <= 40; fails++ { // up to where the queue has mended itself
		variants = append(variants, variant{fails, 0})
	}
	for _, x := range variants {
		for n, done := 1, false; !done && !t.Failed(); n++ {
			synctest.Test(t, func(t *testing.T) {
				var all bool
				all, done = toldOnce(t, n, x.fails, x.seed)
				told[all]++
			})
		}
	}
	t.Logf("told %d times, less of it after a power cut %d times", told[true], told[false])
	if told[true] < 300 {
		t.Errorf("told %d times only: the test kills nothing on the way", told[true])
	}
}

// readLosses acknowledges what there is, as far as it can, and notes the loss
// records.
func readLosses(ctx context.Context, q *queue.Disk, c queue.Consumer, records map[queue.Seq]string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // all of it may be handed out
	defer cancel()
	for synctest.Wait(); c.Acked() < q.Watermarks().Durable; synctest.Wait() {
		b, err := c.Next(ctx, 8, 0)
		if err != nil {
			return
		}
		for _, e := range b.Events {
			if strings.HasPrefix(e.ID, "loss-") {
				records[e.Seq] = e.ID
			}
		}
		if c.Ack(ctx, b.Last()) != nil {
			return
		}
	}
}

// The frame with the loss record fails: another one tells the same.
func TestDiskLossRecordThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := memSite()
		var told []queue.Refusals
		o := tinyDisk()
		var failed atomic.Bool
		o.LossRecord = func(r queue.Refusals) (queue.Event, bool) {
			if len(told) == 0 {
				s.now.setFault(func(op operation) how {
					if op.kind == "sync" && strings.Contains(op.name, ".seg") && failed.CompareAndSwap(false, true) {
						return how{err: syscall.EIO}
					}
					return how{}
				})
			}
			return counts(&told)(r)
		}
		q := mustOpen(t, s, o)
		c := mustConsumer(t, q, "sink")
		refused := refuse(t, q, 3)
		losses := ackAll(t, q, c)
		if !failed.Load() || len(losses) != 0 || q.Watermarks().Failure == nil {
			t.Fatalf("failed %v, told %v, failure %v; the test wants the first record's frame to fail", failed.Load(), losses, q.Watermarks().Failure)
		}
		if n := q.Watermarks().Unrecorded.Count; n != refused {
			t.Errorf("%d refusals are to be told once more, want %d", n, refused)
		}
		time.Sleep(time.Minute) // it mends itself
		if losses = ackAll(t, q, c); len(losses) != 1 || losses[0] != fmt.Sprint("loss-", refused) || len(told) != 2 {
			t.Errorf("told %v with %d records, want %d refusals once with the second", losses, len(told), refused)
		}
		closeNow(t, q)
	})
}

// The mark can't be written for a refusal: the queue makes another one, and has
// the count all the same.
func TestDiskRefusalsWhenTheMarkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := memSite()
		q := mustOpen(t, s, tinyDisk())
		mustConsumer(t, q, "sink")
		refused := refuse(t, q, 3)
		failed := false
		s.now.setFault(func(op operation) how {
			if op.kind == "write" && strings.HasPrefix(op.name, "durable") && !failed {
				failed = true
				return how{err: syscall.EIO, short: 100}
			}
			return how{}
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if w := q.Watermarks(); !failed || w.Failure != nil || w.Unrecorded.Count != refused {
			t.Errorf("failed %v, failure %v, %d to be told; want it mended, and %d", failed, w.Failure, w.Unrecorded.Count, refused)
		}
		s.crash(q)
		q = mustOpen(t, s, tinyDisk())
		if n := q.Watermarks().Unrecorded.Count; n != refused {
			t.Errorf("after the kill %d are to be told, want %d", n, refused)
		}
		closeNow(t, q)
	})
}
