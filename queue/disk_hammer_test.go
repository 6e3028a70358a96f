package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// Producers, required consumers whose Next and Ack run at once and who come and
// go, an optional one that falls behind, a disk that fails now and then: every
// event that was durable is acknowledged by every required consumer, in order,
// and the bound holds.
func TestDiskHammer(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hammer(t, seed) })
		})
	}
}

var errNowAndThen = errors.New("now and then")

func hammer(t *testing.T, seed uint64) {
	s, _ := memSite()
	o := tinyDisk()
	o.MaxBytes = 64 << 10
	q := mustOpen(t, s, o)
	for _, name := range []string{"one", "two"} { // known before the first event
		if err := mustConsumer(t, q, name).Close(); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 5))
	chance := func(n int) bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n) == 0
	}
	s.now.setFault(func(op operation) how {
		if op.kind != "open" && op.kind != "read" && chance(300) {
			return how{err: errNowAndThen}
		}
		return how{}
	})

	sure := map[string]bool{}
	var producing, consuming sync.WaitGroup
	for p := range 4 {
		producing.Go(func() {
			for i := range 300 {
				id := fmt.Sprintf("p%d-%04d", p, i)
				r, err := q.SubmitBlocking(context.Background(), sized(id))
				if err == nil {
					err = r.Wait(context.Background(), queue.Durable)
				}
				if errors.Is(err, queue.ErrFailed) {
					time.Sleep(10 * time.Second)
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				mu.Lock()
				sure[id] = true
				mu.Unlock()
			}
		})
	}
	seen := map[string]map[string]bool{"one": {}, "two": {}}
	for name, got := range seen {
		consuming.Go(func() {
			at := queue.Seq(0)
			for {
				c, err := q.Consumer(context.Background(), name, queue.ConsumerOptions{Required: true})
				if errors.Is(err, queue.ErrClosed) {
					return
				}
				if err != nil {
					time.Sleep(time.Second)
					continue
				}
				if c.Acked() < at {
					t.Errorf("%s: the cursor is at %d, was at %d", name, c.Acked(), at)
				}
				at = c.Acked()
				if err := takeTurn(c, got, chance); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				at = max(at, c.Acked())
				_ = c.Close() // may fail on purpose
			}
		})
	}
	consuming.Go(func() {
		for {
			c, err := q.Consumer(context.Background(), "lazy", queue.ConsumerOptions{})
			if errors.Is(err, queue.ErrClosed) {
				return
			}
			if err == nil {
				b, err := c.Next(context.Background(), 1, 0)
				if errors.Is(err, queue.ErrDamaged) {
					t.Error(err)
				}
				if err == nil {
					_ = c.Ack(context.Background(), b.Last()) // may fail on purpose
				}
				_ = c.Close()
			}
			time.Sleep(time.Second)
		}
	})
	producing.Wait()
	s.now.setFault(nil)
	time.Sleep(time.Hour)
	w := q.Watermarks()
	if w.Submitted-w.SendFailures != uint64(w.Accepted-w.Opened) || w.Bytes > w.LimitBytes {
		t.Errorf("%+v", w)
	}
	if w.Committed != w.Accepted {
		t.Errorf("an hour later %d of %d are committed", w.Committed, w.Accepted)
	}
	closeNow(t, q)
	consuming.Wait()
	if len(sure) == 0 || w.SendFailures == 0 {
		t.Fatalf("%d durable, %d failed: this proves nothing", len(sure), w.SendFailures)
	}
	for name, got := range seen {
		for id := range sure {
			if !got[id] {
				t.Errorf("%s was durable, and %s never got it", id, name)
			}
		}
		if len(got) != int(w.Accepted) {
			t.Errorf("%s got %d events, %d were accepted", name, len(got), w.Accepted)
		}
	}
	if n := s.now.open(); n != 0 {
		t.Errorf("%d handles are open", n)
	}
}

// takeTurn reads with one goroutine and acknowledges with another, for a while.
// Only what is acknowledged counts as got.
func takeTurn(c queue.Consumer, got map[string]bool, chance func(int) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	batches := make(chan queue.Batch, 4)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		for b := range batches {
			if failed != nil {
				continue
			}
			if err := c.Ack(ctx, b.Last()); err != nil {
				failed = err
				cancel()
				continue
			}
			for _, x := range b.Events {
				got[x.ID] = true
			}
		}
	})
	next := queue.Seq(0)
	var err error
	for err == nil && !chance(20) {
		var b queue.Batch
		if b, err = c.Next(ctx, 5, 0); err == nil {
			if next != 0 && b.First != next {
				err = fmt.Errorf("%d comes, want %d", b.First, next)
			}
			next = b.Last() + 1
			batches <- b
		}
	}
	if chance(3) {
		_ = c.Close() // while the acknowledgement is under way
	}
	close(batches)
	wg.Wait()
	if failed != nil && !errors.Is(failed, queue.ErrFailed) && !errors.Is(failed, queue.ErrClosed) && ctx.Err() == nil {
		return failed
	}
	if err == nil || errors.Is(err, errNowAndThen) || errors.Is(err, queue.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
