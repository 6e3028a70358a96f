package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

var errKilled = errors.New("killed")

// world is what outlives a killed process: the queue, the sink's rows, the dead
// letters. A process is a drainer; it is killed at the n-th commit point, before
// or after the thing is done, and does nothing afterwards.
type world struct {
	q    *hooked
	sink *sink
	dlq  *letters

	mu    sync.Mutex
	n     int // commit points passed
	at    int // the one to be killed at; 0 for none
	kill  context.CancelFunc
	dead  bool
	where string
}

// point is a commit point: what do does is durable when it returns.
func (w *world) point(name string, do func()) error {
	for _, when := range []string{"before ", "after "} {
		w.mu.Lock()
		if w.n++; w.n == w.at {
			w.dead, w.where = true, when+name
			w.kill()
		}
		dead := w.dead
		w.mu.Unlock()
		if dead {
			return errKilled
		}
		if when == "before " {
			do()
		}
	}
	return nil
}

// newWorld has 12 events: one that traps, one that is rejected, one that is
// retried once, one that can't be read, and one whose batch is answered BUSY once.
func newWorld(t *testing.T) *world {
	w := &world{q: &hooked{Memory: queue.NewMemory(queue.MemoryOptions{})}, sink: &sink{}, dlq: &letters{}}
	retried, busy := false, false
	w.sink.answer = func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
		var r abi.Result
		if err := w.point("storing", func() { r = w.deliver(b, store, &retried, &busy) }); err != nil {
			return trap("the process is gone")
		}
		return r
	}
	w.dlq.put = func(_ int, _ []abi.DeadLetter, store func()) error { return w.point("a dead letter", store) }
	w.q.ack = func(_ queue.Seq, do func() error) error {
		var err error
		return errors.Join(w.point("an acknowledgement", func() { err = do() }), err)
	}
	w.q.next = func(do func() (queue.Batch, error)) (b queue.Batch, err error) {
		if b, err = do(); err != nil {
			return b, err
		}
		return b, w.point("handing out", func() {})
	}
	for _, id := range names(1, 12) {
		e := event(id)
		rec := abi.AppendRecord(nil, &e)
		if id == "e00008" {
			rec = []byte("garbage")
		}
		if _, err := w.q.Submit(queue.Event{ID: id, Payload: rec}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

var worldsDead = []string{"e00003", "e00006", "e00008"}

func (w *world) deliver(b *abi.Batch, store func(...int), retried, busy *bool) abi.Result {
	if index(b, "e00003") >= 0 {
		return trap("poison")
	}
	if index(b, "e00011") >= 0 && !*busy {
		*busy = true
		return abi.Result{Outcome: abi.Busy}
	}
	r := abi.Result{Outcome: abi.Partial}
	for i := range b.Events {
		code := abi.OK
		switch id := b.Events[i].ID; {
		case id == "e00006":
			code = abi.Reject
		case id == "e00009" && !*retried:
			*retried, code = true, abi.Retry
		default:
			store(i)
		}
		r.Verdicts = append(r.Verdicts, abi.Verdict{Code: code})
	}
	return r
}

// live runs a process until the queue is empty, or until it is killed at the n-th
// commit point. It says whether it was killed.
func (w *world) live(t *testing.T, n int) (killed bool) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	w.mu.Lock()
	w.n, w.at, w.kill, w.dead = 0, n, kill, false
	w.mu.Unlock()
	d, err := queue.NewDrainer(t.Context(), w.q, queue.DrainerOptions{
		SinkOptions: queue.SinkOptions{Name: "main", Sink: w.sink, Required: true, BatchEvents: 5, MaxRestarts: 5},
		Sealer:      sealer{}, DeadLetters: w.dlq,
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		for d.Metrics().Pending > 0 && ctx.Err() == nil {
			<-tick()
		}
		kill()
	})
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
	if m := d.Metrics(); m.Lost != 0 {
		t.Errorf("lost %d: %+v", m.Lost, m)
	}
	return w.dead
}

// check checks that every event has one final outcome.
func (w *world) check(t *testing.T, how string) {
	t.Helper()
	rows, dead := w.sink.stored(), w.dlq.ids()
	slices.Sort(rows)
	slices.Sort(dead)
	if !slices.Equal(dead, worldsDead) || !slices.Equal(rows, without(names(1, 12), worldsDead...)) {
		t.Errorf("killed %s: rows %q, dead letters %q", how, rows, dead)
	}
	if m := w.q.Watermarks(); m.Committed != 12 {
		t.Errorf("killed %s: committed up to %d", how, m.Committed)
	}
}

// Killed at each commit point, before and after, and started again.
func TestB27_CrashAtEveryCommitPoint(t *testing.T) {
	where := make(map[string]bool)
	for n := 1; ; n++ {
		killed := false
		bubble(t, func(t *testing.T) {
			w := newWorld(t)
			if killed = w.live(t, n); killed {
				where[w.where] = true
				w.live(t, 0)
			}
			w.check(t, fmt.Sprint(w.where, ", point ", n))
		})
		if !killed {
			if n < 40 {
				t.Errorf("only %d commit points were reached", n-1)
			}
			break
		}
	}
	if len(where) != 8 {
		t.Errorf("killed at %d kinds of points: %v", len(where), where)
	}
}

// Killed again and again, at random points.
func TestB27_CrashesInARow(t *testing.T) {
	for seed := range uint64(200) {
		bubble(t, func(t *testing.T) {
			w, rnd, lives := newWorld(t), rand.New(rand.NewPCG(seed, 1)), 1
			for w.live(t, 1+rnd.IntN(30)) && lives < 1000 {
				lives++
			}
			w.check(t, fmt.Sprintf("%d times, seed %d", lives-1, seed))
		})
	}
}
