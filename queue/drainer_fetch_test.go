package queue_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// The next batch is sealed while the one before is being delivered: the delivery
// of the first does not end before the second is sealed. If they took turns, this
// would be a deadlock, which the bubble reports.
func TestSealingRunsBesideDelivery(t *testing.T) {
	bubble(t, func(t *testing.T) {
		sealed := make(chan struct{})
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].BatchEvents = 1
			o.Sealer = sealer{before: func(e *abi.Event) {
				if e.ID == "second" {
					close(sealed)
				}
			}}
			g.sink.answer = func(_ context.Context, n int, _ *abi.Batch, store func(...int)) abi.Result {
				if n == 1 {
					<-sealed
				}
				store()
				return ok
			}
		})
		g.submit("first", "second")
		g.close()
		same(t, "rows", g.sink.stored(), []string{"first", "second"})
	})
}

// The events of one batch are sealed on several processors: the first one is not
// done before another has begun.
func TestSealingIsParallel(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	bubble(t, func(t *testing.T) {
		var begun atomic.Int64
		all, two := make(chan struct{}), make(chan struct{})
		g, release := held(t, script(), func(o *queue.RecorderOptions) {
			o.Sealer = sealer{before: func(e *abi.Event) {
				switch e.ID {
				case "0":
				case "plug": // those after it are sealed together
					<-all
				default:
					if begun.Add(1) == 2 {
						close(two)
					}
					<-two
				}
			}}
		})
		g.together("plug")
		g.submit(names(1, 100)...)
		close(all)
		release()
		g.close()
		same(t, "rows", g.sink.stored(), append([]string{"plug"}, names(1, 100)...))
		if g.sink.unsealed != 0 {
			t.Errorf("%d events were not sealed", g.sink.unsealed)
		}
	})
}

// At most one batch is sealed ahead, however long the queue: memory is bounded.
func TestAtMostOneBatchIsSealedAhead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var n atomic.Int64
		g, release := held(t, script(), func(o *queue.RecorderOptions) {
			o.Sinks[0].BatchEvents = 10
			o.Sealer = sealer{before: func(*abi.Event) { n.Add(1) }}
		})
		g.submit(names(1, 1000)...)
		synctest.Wait()
		if n.Load() != 11 {
			t.Errorf("%d events are sealed, want the one in delivery and 10", n.Load())
		}
		release()
		g.close()
	})
}

// Each batch has an id of its own, and they rise, also from one process to the
// next; the positions and the queue's id are those of the queue.
func TestBatchIdentity(t *testing.T) {
	bubble(t, func(t *testing.T) {
		last := uint64(0)
		for round := range 2 {
			g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
				o.Sinks[0].BatchEvents = 1
				o.Queue = identified{queue.NewMemory(queue.MemoryOptions{First: 100})}
				g.sink.answer = func(_ context.Context, n int, b *abi.Batch, store func(...int)) abi.Result {
					if b.ID <= last || b.Attempt != 1 || b.Queue != [16]byte{1, 2, 3} || b.Events[0].Seq != uint64(99+n) {
						t.Errorf("round %d: batch %d after %d, %+v", round, b.ID, last, b)
					}
					last = b.ID
					store()
					return ok
				}
			})
			g.submit(names(1, 5)...)
			g.close()
			<-tick()
		}
	})
}

type identified struct{ *queue.Memory }

func (identified) Caps() queue.Caps { return queue.Caps{ID: [16]byte{1, 2, 3}, Dense: true} }

// The drainer reuses its memory: what an event costs on its way is bounded.
func TestAllocationsPerEvent(t *testing.T) {
	const n = 20_000
	g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
		o.Queue = queue.NewMemory(queue.MemoryOptions{MaxEvents: n})
		o.Sinks[0].Sink = quiet{}
	})
	events := make([]abi.Event, n)
	for i := range events {
		events[i] = event(fmt.Sprint(i))
	}
	measure := func(events []abi.Event) float64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, e := range events {
			if _, err := g.r.Submit(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		g.drain()
		runtime.ReadMemStats(&after)
		return float64(after.Mallocs-before.Mallocs) / float64(len(events))
	}
	measure(events[:n/2]) // its buffers are made
	// One is the string of the decoded record; the rest is per batch, and batches
	// are small when the sink is faster than the caller.
	if got := measure(events[n/2:]); got > 4 {
		t.Errorf("%.2f allocations per event", got)
	} else {
		t.Logf("%.2f allocations per event", got)
	}
	g.close()
}

type quiet struct{}

func (quiet) Deliver(context.Context, *abi.Batch) abi.Result { return ok }
func (quiet) Close(context.Context) error                    { return nil }
