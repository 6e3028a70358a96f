package queue_test

import (
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
// again, not even from a mark that a power cut has left behind.
func TestDiskRefusalsOutliveTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, disk := memSite()
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
		stale := disk.files()["durable"]

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

		files := disk.files()
		files["durable"] = stale
		disk.setFiles(files)
		q = mustOpen(t, s, o)
		if n := q.Watermarks().Unrecorded.Count; n != 0 {
			t.Errorf("%d refusals are to be told a second time", n)
		}
		closeNow(t, q)
	})
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
