package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// refused makes letters of events.
func refused(ids ...string) []abi.DeadLetter {
	var out []abi.DeadLetter
	for i, id := range ids {
		e := event(id)
		e.Seq = uint64(1000 + i) // of a queue that may be gone
		out = append(out, abi.DeadLetter{Event: e, Sink: "main", Outcome: abi.Reject, Attempts: 1})
	}
	return out
}

// fates writes results as "S" (stored), "R" (refused), "-" (not now).
func fates(results []queue.Replayed) string {
	var b strings.Builder
	for _, r := range results {
		b.WriteByte("-SR"[r.Fate])
	}
	return b.String()
}

func (g *rig) replay(letters []abi.DeadLetter) []queue.Replayed {
	g.t.Helper()
	out, err := g.r.Replay(g.t.Context(), "main", letters)
	if err != nil {
		g.t.Fatalf("replay: %v", err)
	}
	return out
}

// A letter goes to the sink that refused it and to no other, sealed, as a
// repetition without a position, and does not count in the equation.
func TestReplayGoesToOneSink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		other := &sink{}
		g := newRig(t, func(_ *rig, o *queue.RecorderOptions) {
			o.Sinks = append(o.Sinks, queue.SinkOptions{Name: "other", Sink: other})
			o.Sinks[0].BatchEvents = 2
		})
		var seen []abi.Batch
		g.sink.answer = func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
			seen = append(seen, *b)
			store()
			return ok
		}
		letters := refused("a", "b", "c")
		letters[2].Attempts = 7
		out := g.replay(letters)
		if fates(out) != "SSS" || out[0].Plugin != "d1ge57" || out[0].Attempts != 1 || out[0].Reason != "" {
			t.Errorf("%+v", out)
		}
		same(t, "rows", g.sink.stored(), []string{"a", "b", "c"})
		if other.deliveries() != nil || g.sink.unsealed != 0 {
			t.Errorf("the other sink got %v, %d were not sealed", other.deliveries(), g.sink.unsealed)
		}
		for i, want := range []uint32{2, 8} {
			if b := seen[i]; b.Attempt != want || b.Queue != [16]byte{} || b.Events[0].Seq != 0 {
				t.Errorf("batch %d: %+v", i, b)
			}
		}
		if letters[0].Event.Seq != 1000 {
			t.Error("the letters were changed")
		}
		m := g.main()
		if m.Replayed != 3 || m.ReplayRefused != 0 || m.Appended != 0 || m.AppendFailures != 0 || m.DLQLanded != 0 || m.Batches != 2 {
			t.Errorf("%+v", m)
		}
		// Again: the sink knows them.
		if out := g.replay(letters); fates(out) != "SSS" {
			t.Errorf("again: %+v", out)
		}
		same(t, "rows", g.sink.stored(), []string{"a", "b", "c"})
		g.close()
	})
}

func TestReplayOutcomes(t *testing.T) {
	verdict := func(code abi.Outcome) abi.Verdict { return abi.Verdict{Code: code, Reason: "because"} }
	for _, c := range []struct {
		name       string
		answer     func(context.Context, int, *abi.Batch, func(...int)) abi.Result
		fates      string
		deliveries int
		check      func(r []queue.Replayed) bool
	}{
		{"verdicts", func(_ context.Context, _ int, _ *abi.Batch, store func(...int)) abi.Result {
			store(0)
			return abi.Result{Outcome: abi.Partial, Verdicts: []abi.Verdict{verdict(abi.OK), verdict(abi.Retry), verdict(abi.Reject), verdict(abi.Reject)}}
		}, "S-RR", 1, func(r []queue.Replayed) bool {
			return r[1].Outcome == abi.Retry && r[2].Outcome == abi.Reject && r[2].Reason == "because" && r[0].Outcome == abi.OK
		}},
		{"a whole REJECT is halved", func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
			if index(b, "c") >= 0 {
				return abi.Result{Outcome: abi.Reject, Detail: "not c"}
			}
			store()
			return ok
		}, "SSRS", 5, func(r []queue.Replayed) bool {
			return r[2].Attempts == 3 && r[2].Reason == "not c" && r[0].Attempts == 2
		}},
		{"poison is found", poisoned("b"), "SRSS", 5, func(r []queue.Replayed) bool {
			return r[1].Outcome == abi.Trap && r[1].Reason == "poison b" && r[1].Stderr == "panic: poison b"
		}},
		{"RETRY is not waited for", script(answer(abi.Result{Outcome: abi.Retry, Detail: "later"})), "----", 1,
			func(r []queue.Replayed) bool { return r[3].Outcome == abi.Retry && r[3].Reason == "later" }},
		{"BUSY is not waited for", script(answer(trap("x")), answer(abi.Result{Outcome: abi.Busy, Detail: "locked"})), "----", 2,
			func(r []queue.Replayed) bool { return r[0].Outcome == abi.Busy && r[3].Fate == queue.ReplayNotNow }},
		{"BAD_CONFIG", script(answer(abi.Result{Outcome: abi.BadConfig, Detail: "no"})), "----", 1, nil},
		{"a panic of the sink", script(func(*abi.Batch, func(...int)) abi.Result { panic("boom") }), "SSSS", 3, nil},
		{"stored, then trapped", script(func(_ *abi.Batch, store func(...int)) abi.Result {
			store()
			return trap("after")
		}), "SSSS", 3, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
					g.sink.answer = c.answer
					o.Sinks[0].MaxRestarts = 0 // a replay spends nothing of it
				})
				out := g.replay(refused("a", "b", "c", "d"))
				if got := fates(out); got != c.fates || len(g.sink.deliveries()) != c.deliveries || c.check != nil && !c.check(out) {
					t.Errorf("%s after %s: %+v", got, describe(g.sink.deliveries()), out)
				}
				g.sink.mend()
				g.submit("e")
				g.drain()
				if m := g.main(); m.Parked != "" || m.Appended != 1 || m.DLQLanded != 0 || g.dlq.n != 0 {
					t.Errorf("afterwards: %+v, %d letters", m, g.dlq.n)
				}
				g.close()
			})
		})
	}
}

// A sink that ends at everything is not restarted for every letter.
func TestReplayGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, _ *queue.RecorderOptions) {
			g.sink.answer = func(context.Context, int, *abi.Batch, func(...int)) abi.Result { return trap("always") }
		})
		out := g.replay(refused(names(1, 200)...))
		if got := fates(out); strings.Count(got, "R") != 5 || strings.Count(got, "-") != 195 {
			t.Errorf("%s", got)
		}
		if n := len(g.sink.deliveries()); n > 20 {
			t.Errorf("%d deliveries", n)
		}
		// Those behind were a part of the first delivery; what is said of them is
		// that it is not known.
		if r := out[199]; r.Fate != queue.ReplayNotNow || r.Attempts != 1 {
			t.Errorf("%+v", r)
		}
		g.closeNow()
	})
}

// What may not be recorded does not reach the sink, and what could not be decoded
// is decoded again.
func TestReplayRevives(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(_ *rig, o *queue.RecorderOptions) {
			o.Check = func(e abi.Event) error {
				if e.ID == "forged" {
					return errors.New("an allowed action")
				}
				return nil
			}
		})
		good := event("good")
		letters := append(refused("forged", "a"),
			abi.DeadLetter{Event: abi.Event{ID: "good"}, Raw: abi.AppendRecord(nil, &good)},
			abi.DeadLetter{Event: abi.Event{ID: "bad"}, Raw: []byte("garbage")})
		out := g.replay(letters)
		if fates(out) != "RSSR" || !strings.Contains(out[0].Reason, "an allowed action") || !strings.Contains(out[3].Reason, "malformed event record") {
			t.Errorf("%+v", out)
		}
		same(t, "rows", g.sink.stored(), []string{"a", "good"})
		if m := g.main(); m.Replayed != 2 || m.ReplayRefused != 2 {
			t.Errorf("%+v", m)
		}
		if out := g.replay(nil); len(out) != 0 {
			t.Errorf("%+v", out)
		}
		g.close()
	})
}

// Replays and batches take turns.
func TestReplayBetweenBatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, release := held(t, func(_ context.Context, _ int, _ *abi.Batch, store func(...int)) abi.Result {
			store()
			return ok
		}, func(o *queue.RecorderOptions) { o.Sinks[0].BatchEvents = 2 })
		g.together("a", "b")
		results := make(chan string, 2)
		for _, id := range []string{"x", "y"} {
			go func() { results <- fates(g.replay(refused(id))) }()
			synctest.Wait()
		}
		g.together("c", "d")
		release()
		for range 2 {
			if got := <-results; got != "S" {
				t.Errorf("%s", got)
			}
		}
		g.drain()
		same(t, "rows", g.sink.stored(), []string{"x", "a", "b", "y", "c", "d"})
		g.close()
	})
}

func TestReplayIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			g.sink.answer = script(answer(trap("1")))
			o.Sinks[0].MaxRestarts = 0
		})
		if _, err := g.r.Replay(t.Context(), "mian", refused("x")); !errors.Is(err, queue.ErrNoSink) {
			t.Errorf("no such sink: %v", err)
		}
		g.submit("one")
		synctest.Wait()
		out, err := g.r.Replay(t.Context(), "main", refused("x"))
		if !errors.Is(err, queue.ErrParked) || fates(out) != "-" {
			t.Errorf("parked: %+v, %v", out, err)
		}
		if err := g.r.Resume("main"); err != nil {
			t.Error(err)
		}
		g.drain()
		same(t, "rows", g.sink.stored(), []string{"one"})
		g.close()
		if _, err := g.r.Replay(t.Context(), "main", refused("x")); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

// Whoever waits for the drainer is told when that can't come to anything.
func TestReplayWaiting(t *testing.T) {
	for _, how := range []string{"given up", "parked", "closed"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				gate := make(chan struct{})
				g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
					o.Sinks[0].MaxRestarts = 0
					g.sink.answer = func(ctx context.Context, _ int, _ *abi.Batch, store func(...int)) abi.Result {
						select {
						case <-gate:
						case <-ctx.Done():
							return abi.Result{Outcome: abi.Deadline}
						}
						if how == "parked" {
							return trap("it")
						}
						store()
						return ok
					}
				})
				g.together("one")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error)
				go func() {
					out, err := g.r.Replay(ctx, "main", refused("x"))
					if fates(out) != "-" {
						t.Errorf("%+v", out)
					}
					ended <- err
				}()
				synctest.Wait()
				var want error
				switch how {
				case "given up":
					cancel()
					want = context.Canceled
				case "parked":
					close(gate)
					want = queue.ErrParked
				case "closed":
					g.closeNow()
					want = queue.ErrClosed
				}
				if err := <-ended; !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
				if how == "given up" {
					close(gate)
					g.drain()
					synctest.Wait()
					same(t, "rows", g.sink.stored(), []string{"one"}) // x was taken back
				}
				g.closeNow()
			})
		})
	}
}

// An operator marks a letter when it has read that the sink stored it. Killed at
// any point of a replay, and replaying again, every letter is stored once and
// marked, but for the one that is still refused.
func TestReplayCrashAtEveryPoint(t *testing.T) {
	for n := 1; ; n++ {
		killed := false
		bubble(t, func(t *testing.T) {
			s, marked := &sink{}, map[string]bool{}
			for life := range 2 {
				ctx, kill := context.WithCancel(t.Context())
				points, dead := 0, false
				point := func(do func()) bool {
					for _, before := range []bool{true, false} {
						if points++; life == 0 && points == n {
							dead, killed = true, true
							kill()
						}
						if dead {
							return false
						}
						if before {
							do()
						}
					}
					return true
				}
				s.answer = func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
					r := abi.Result{Outcome: abi.Partial}
					if !point(func() {
						for i := range b.Events {
							code := abi.Reject
							if b.Events[i].ID != "e00003" {
								code = abi.OK
								store(i)
							}
							r.Verdicts = append(r.Verdicts, abi.Verdict{Code: code})
						}
					}) {
						return trap("the process is gone")
					}
					return r
				}
				g := newRig(t, func(_ *rig, o *queue.RecorderOptions) { o.Sinks[0].Sink, o.Sinks[0].BatchEvents = s, 2 })
				var open []string
				for _, id := range names(1, 6) {
					if !marked[id] {
						open = append(open, id)
					}
				}
				for len(open) > 0 && ctx.Err() == nil {
					k := min(2, len(open))
					out, err := g.r.Replay(ctx, "main", refused(open[:k]...))
					if err != nil {
						break
					}
					for i, r := range out {
						if r.Fate == queue.ReplayStored && !point(func() { marked[open[i]] = true }) {
							break
						}
					}
					open = open[k:]
				}
				kill()
				g.closeNow()
			}
			if len(marked) != 5 || marked["e00003"] {
				t.Errorf("point %d: marked %v", n, marked)
			}
			same(t, fmt.Sprint("rows, point ", n), s.stored(), without(names(1, 6), "e00003"))
		})
		if !killed {
			if n < 15 {
				t.Errorf("only %d points", n-1)
			}
			break
		}
	}
}

// About what the pending events take is known from those that were handed out.
func TestPendingBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, release := held(t, script(), func(o *queue.RecorderOptions) { o.Sinks[0].BatchEvents = 4 })
		if m := g.main(); m.PendingBytes == 0 || m.Pending != 1 {
			t.Errorf("%+v", m)
		}
		g.submit(names(1, 100)...)
		e := event("e00001")
		each := uint64(len(e.ID) + len(abi.AppendRecord(nil, &e)))
		if m := g.main(); m.Pending != 101 || m.PendingBytes < 101*(each-10) || m.PendingBytes > 101*each {
			t.Errorf("%d events of %d bytes: %+v", m.Pending, each, m)
		}
		release()
		g.drain()
		if m := g.main(); m.PendingBytes != 0 {
			t.Errorf("%+v", m)
		}
		g.close()
	})
}
