package queue_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/audit-host/audit-host/queue"
)

// filled is a queue of several segments as a dead process left it, with a consumer
// that has taken the first so many events.
func filled(t *testing.T, s *diskSite, name string, required bool, acked queue.Seq) {
	t.Helper()
	q := mustOpen(t, s, tinyDisk())
	c, err := q.Consumer(t.Context(), name, queue.ConsumerOptions{Required: required})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		mustDurable(t, q, fmt.Sprint("e", i))
	}
	for c.Acked() < acked {
		b, err := c.Next(t.Context(), int(acked-c.Acked()), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ack(t.Context(), b.Last()); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait() // what is to be removed is gone
	s.crash(q)
}

// dropOldest takes the oldest segment away and returns where the log now begins.
func dropOldest(t *testing.T, disk *memDisk) (first queue.Seq) {
	t.Helper()
	files := disk.files()
	var segments []string
	for i := queue.Seq(1); i <= 60; i++ {
		if name := fmt.Sprintf("%020d.seg", i); files[name] != nil {
			segments = append(segments, name)
		}
	}
	if len(segments) < 3 {
		t.Fatalf("segments %q: too few to prove anything", segments)
	}
	delete(files, segments[0])
	disk.setFiles(files)
	fmt.Sscanf(segments[1], "%d", &first)
	return first
}

// The oldest segment is missing at a start: refused, with both positions, for
// whomever it was kept, until the loss is accepted. Nothing is refused if nobody
// wanted it.
func TestDiskOldestSegmentMissing(t *testing.T) {
	const nobody = ""
	for name, x := range map[string]struct {
		consumer string
		required bool
		acked    queue.Seq
		before   bool // a queue from before the oldest position was kept
		opens    bool
	}{
		"required consumer":                   {consumer: "ledger", required: true},
		"required consumer within":            {consumer: "ledger", required: true, acked: 3},
		"optional consumer":                   {consumer: "lazy"},
		"no consumer":                         {consumer: nobody},
		"required consumer, as it was before": {consumer: "ledger", required: true, before: true},
		// It may have been cut loose.
		"optional consumer, as it was before": {consumer: "lazy", before: true, opens: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, disk := memSite()
				filled(t, s, "ledger", x.required, x.acked)
				if x.consumer != "ledger" {
					q := mustOpen(t, s, tinyDisk())
					if err := q.Forget(t.Context(), "ledger"); err != nil {
						t.Fatal(err)
					}
					if x.consumer != nobody {
						if _, err := q.Consumer(t.Context(), x.consumer, queue.ConsumerOptions{}); err != nil {
							t.Fatal(err)
						}
					}
					s.crash(q)
				}
				first := dropOldest(t, disk)
				if x.before {
					files := disk.files()
					delete(files, "oldest")
					disk.setFiles(files)
				}
				for range 2 { // being refused changes nothing
					q, err := s.open(tinyDisk())
					if err == nil {
						s.crash(q)
					}
					if x.opens {
						if err != nil {
							t.Fatal(err)
						}
						return
					}
					var loss *queue.LossError
					if !errors.As(err, &loss) || !errors.Is(err, queue.ErrDamaged) || loss.From != x.acked+1 || loss.To != first-1 {
						t.Fatalf("open: %v, want the loss of %d to %d", err, x.acked+1, first-1)
					}
					for _, word := range []string{
						fmt.Sprintf("begins at position %d", first), fmt.Sprintf("should begin at %d", x.acked+1),
						map[bool]string{true: "no consumer has seen", false: fmt.Sprintf("%q has not acknowledged, which has come to %d", x.consumer, x.acked)}[x.consumer == nobody],
					} {
						if !strings.Contains(err.Error(), word) {
							t.Errorf("open: %v, want %q", err, word)
						}
					}
				}
				o := tinyDisk()
				o.AcceptLoss = true
				closeNow(t, mustOpen(t, s, o))
				q := mustOpen(t, s, o)
				mustDurable(t, q, "told")
				s.crash(q)
				if q, err := s.open(tinyDisk()); err == nil {
					s.crash(q)
					t.Fatal("a loss was accepted by a process that died, or that told nobody")
				}
				q = mustOpen(t, s, o)
				mustDurable(t, q, "told again")
				closeNow(t, q)
				q = mustOpen(t, s, tinyDisk())
				c, err := q.Consumer(t.Context(), "ledger", queue.ConsumerOptions{Required: true})
				if err != nil {
					t.Fatal(err)
				}
				if b, err := c.Next(t.Context(), 1, 0); err != nil || b.First != first {
					t.Errorf("then: %v, %v, want %d", b, err, first)
				}
				closeNow(t, q)
			})
		})
	}
}

// What nobody wanted any more may be missing: a removal that was under way, or
// somebody who helped.
func TestDiskOldestSegmentDoneWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, disk := memSite()
		filled(t, s, "ledger", true, 0)
		q := mustOpen(t, s, tinyDisk())
		s.now.setFault(func(op operation) how {
			if op.kind == "remove" {
				return how{err: syscall.EPERM}
			}
			return how{}
		})
		for c := mustConsumer(t, q, "ledger"); c.Acked() < 60; {
			b, err := c.Next(t.Context(), 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Ack(t.Context(), b.Last()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		s.crash(q)
		if first := dropOldest(t, disk); first < 2 {
			t.Fatalf("the log begins at %d", first)
		}
		closeNow(t, mustOpen(t, s, tinyDisk()))
	})
}

// One that was cut loose and is made required in a process that dies at once is
// no loss: it is told what it missed.
func TestDiskCutLooseThenRequired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := memSite()
		o := tinyDisk()
		o.MaxBytes = 48 << 10
		q := mustOpen(t, s, o)
		main := mustConsumer(t, q, "main")
		if _, err := q.Consumer(t.Context(), "lazy", queue.ConsumerOptions{}); err != nil {
			t.Fatal(err)
		}
		for i := range 120 {
			if _, err := q.SubmitBlocking(t.Context(), sized(fmt.Sprint("e", i))); err != nil {
				t.Fatal(err)
			}
			if b, err := main.Next(t.Context(), 0, 0); err != nil || main.Ack(t.Context(), b.Last()) != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		s.crash(q)
		q = mustOpen(t, s, o)
		mustConsumer(t, q, "lazy")
		s.crash(q)
		q = mustOpen(t, s, o)
		lazy := mustConsumer(t, q, "lazy")
		if _, err := lazy.Next(t.Context(), 0, 0); err != nil {
			var lag queue.ErrLagged
			if !errors.As(err, &lag) {
				t.Errorf("next: %v", err)
			}
		}
		closeNow(t, q)
	})
}
