package queue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// What is in hand when the bounds shrink is delivered in parts, in order, once.
func TestRetuneShrinks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var g *rig
		g, release := held(t, func(_ context.Context, n int, b *abi.Batch, store func(...int)) abi.Result {
			if n == 1 {
				// As a sink does whose plugin was exchanged while it was asked to wait.
				if err := g.r.Retune("main", queue.Tuning{BatchEvents: 4, MaxRestarts: 5, Plugin: "other"}); err != nil {
					t.Error(err)
				}
				return abi.Result{Outcome: abi.Busy}
			}
			store()
			return ok
		}, nil)
		g.together(names(1, 20)...)
		release()
		g.drain()
		g.together(names(21, 40)...)
		g.drain()
		for i, c := range g.sink.deliveries() {
			if i > 1 && len(c.ids) > 4 {
				t.Errorf("delivery %d has %d events", i, len(c.ids))
			}
		}
		if first := g.sink.deliveries()[1]; len(first.ids) != 20 {
			t.Errorf("the batch before had %d events", len(first.ids))
		}
		same(t, "stored", g.sink.stored(), names(1, 40))
		g.close()
	})
}

// Bytes bound a batch in hand as well, and more room is used at once.
func TestRetuneBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, release := held(t, func(_ context.Context, n int, _ *abi.Batch, store func(...int)) abi.Result {
			if n == 1 {
				return abi.Result{Outcome: abi.Busy, RetryAfter: time.Second}
			}
			store()
			return ok
		}, func(o *queue.RecorderOptions) { o.Sinks[0].BatchBytes = 10_000 })
		g.together(names(1, 30)...)
		release()
		synctest.Wait()
		if err := g.r.Retune("main", queue.Tuning{BatchBytes: 100}); err != nil {
			t.Fatal(err)
		}
		g.drain()
		for i, c := range g.sink.deliveries()[2:] {
			if size := len(c.ids) * (len("e00001") + len(`{"id":"e00001"}`)); size > 100 {
				t.Errorf("delivery %d has %d bytes", i, size)
			}
		}
		same(t, "stored", g.sink.stored(), names(1, 30))
		g.close()
	})
}

// A sink that asked to be left alone is asked again at once: it may have been
// mended. What it was told by itself leaves the pause as it is.
func TestRetuneEndsAPause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var g *rig
		g = newRig(t, func(rig *rig, _ *queue.RecorderOptions) {
			rig.sink.answer = func(_ context.Context, n int, _ *abi.Batch, store func(...int)) abi.Result {
				if n == 1 {
					if err := g.r.Retune("main", queue.Tuning{}); err != nil {
						t.Error(err)
					}
				}
				if n <= 2 {
					return abi.Result{Outcome: abi.Busy, RetryAfter: 20 * time.Second}
				}
				store()
				return ok
			}
		})
		begin := time.Now()
		g.together("a")
		<-time.After(20*time.Second + time.Millisecond)
		synctest.Wait()
		if n := len(g.sink.deliveries()); n != 2 {
			t.Fatalf("%d deliveries", n)
		}
		if err := g.r.Retune("main", queue.Tuning{}); err != nil {
			t.Fatal(err)
		}
		g.drain()
		if took := time.Since(begin); took > 21*time.Second {
			t.Errorf("it took %v", took)
		}
		g.close()
	})
}

// The restart budget and the digest in dead letters are those in force.
func TestRetuneBudgetAndDigest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].MaxRestarts = 0
			g.sink.answer = func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
				if index(b, "poison") >= 0 {
					return trap("poison")
				}
				store()
				return ok
			}
		})
		g.together("poison")
		if g.main().Parked == "" {
			t.Fatal("not parked")
		}
		if err := g.r.Retune("main", queue.Tuning{MaxRestarts: 4, Plugin: "0ther"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if g.main().Parked == "" {
			t.Error("resumed by itself")
		}
		if err := g.r.Resume("main"); err != nil {
			t.Fatal(err)
		}
		g.drain()
		letters := g.dlq.all()
		if len(letters) != 1 || letters[0].Plugin != "0ther" {
			t.Errorf("%+v", letters)
		}
		if err := g.r.Retune("main", queue.Tuning{BatchEvents: -1}); err == nil || !strings.Contains(err.Error(), "must not be negative") {
			t.Errorf("%v", err)
		}
		if err := g.r.Retune("nobody", queue.Tuning{}); !errors.Is(err, queue.ErrNoSink) {
			t.Errorf("%v", err)
		}
		g.close()
	})
}
