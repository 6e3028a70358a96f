package queue_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// script answers the deliveries one after the other, and OK when it is at its end.
func script(steps ...func(b *abi.Batch, store func(...int)) abi.Result) func(context.Context, int, *abi.Batch, func(...int)) abi.Result {
	return func(_ context.Context, n int, b *abi.Batch, store func(...int)) abi.Result {
		if n <= len(steps) {
			return steps[n-1](b, store)
		}
		store()
		return ok
	}
}

func answer(r abi.Result) func(*abi.Batch, func(...int)) abi.Result {
	return func(*abi.Batch, func(...int)) abi.Result { return r }
}

// describe writes deliveries as "batch.attempt:ids", batches numbered from 1.
func describe(calls []call) string {
	numbers := make(map[uint64]int)
	var out []string
	for _, c := range calls {
		if numbers[c.id] == 0 {
			numbers[c.id] = len(numbers) + 1
		}
		out = append(out, fmt.Sprintf("%d.%d:%s", numbers[c.id], c.attempt, strings.Join(c.ids, ",")))
	}
	return strings.Join(out, " ")
}

// together submits events so that they make one batch.
func (g *rig) together(ids ...string) {
	g.t.Helper()
	g.submit(ids...)
	synctest.Wait()
}

// held makes a rig whose sink gets nothing before release is called, so that what
// is submitted until then goes out in one batch, after the event "0".
func held(t *testing.T, f func(context.Context, int, *abi.Batch, func(...int)) abi.Result, change func(*queue.RecorderOptions)) (g *rig, release func()) {
	t.Helper()
	gate := make(chan struct{})
	g = newRig(t, func(g *rig, o *queue.RecorderOptions) {
		g.sink.answer = func(ctx context.Context, n int, b *abi.Batch, store func(...int)) abi.Result {
			if n == 1 {
				<-gate
				return ok // and counts as stored
			}
			return f(ctx, n-1, b, store)
		}
		if change != nil {
			change(o)
		}
	})
	g.together("0")
	return g, func() { close(gate) }
}

func TestDeliveries(t *testing.T) {
	verdicts := func(codes ...abi.Outcome) abi.Result {
		r := abi.Result{Outcome: abi.Partial}
		for _, c := range codes {
			r.Verdicts = append(r.Verdicts, abi.Verdict{Code: c, Reason: "because"})
		}
		return r
	}
	for _, c := range []struct {
		name       string
		answer     func(context.Context, int, *abi.Batch, func(...int)) abi.Result
		deliveries string // of the batch a, b, c, d
		rows, dead string
		failures   uint64
	}{
		{"OK", script(), "1.1:a,b,c,d", "a b c d", "", 0},
		{"RETRY keeps the batch", script(answer(abi.Result{Outcome: abi.Retry})),
			"1.1:a,b,c,d 1.2:a,b,c,d", "a b c d", "", 4},
		{"BUSY keeps the batch", script(answer(abi.Result{Outcome: abi.Busy}), answer(abi.Result{Outcome: abi.Busy})),
			"1.1:a,b,c,d 1.2:a,b,c,d 1.3:a,b,c,d", "a b c d", "", 8},
		{"PARTIAL", script(func(_ *abi.Batch, store func(...int)) abi.Result {
			store(0)
			return verdicts(abi.OK, abi.Retry, abi.Reject, abi.Retry)
		}), "1.1:a,b,c,d 2.1:b,d", "a b d", "c", 3},
		{"PARTIAL without any progress", script(answer(verdicts(abi.Retry, abi.Retry, abi.Retry, abi.Retry))),
			"1.1:a,b,c,d 1.2:a,b,c,d", "a b c d", "", 4},
		{"PARTIAL that stored all", script(func(_ *abi.Batch, store func(...int)) abi.Result {
			store()
			return verdicts(abi.OK, abi.OK, abi.OK, abi.OK)
		}), "1.1:a,b,c,d", "a b c d", "", 0},
		{"REJECT halves", func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
			if index(b, "c") >= 0 {
				return abi.Result{Outcome: abi.Reject, Detail: "because"}
			}
			store()
			return ok
		}, "1.1:a,b,c,d 2.1:a 3.1:b,c,d 4.1:b 5.1:c,d 6.1:c 7.1:d", "a b d", "c", 4 + 3 + 2 + 1},
		{"one trap", script(answer(trap("once"))), "1.1:a,b,c,d 1.2:a,b,c,d", "a b c d", "", 4},
		{"stored, then a trap", script(func(_ *abi.Batch, store func(...int)) abi.Result {
			store()
			return trap("late")
		}), "1.1:a,b,c,d 1.2:a,b,c,d", "a b c d", "", 4},
		{"a trap between two RETRYs", script(answer(abi.Result{Outcome: abi.Retry}), answer(trap("x")), answer(abi.Result{Outcome: abi.Retry})),
			"1.1:a,b,c,d 1.2:a,b,c,d 1.3:a,b,c,d 1.4:a,b,c,d", "a b c d", "", 12},
		{"one guilty", func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
			if index(b, "b") >= 0 {
				return trap("b")
			}
			store()
			return ok
		}, "1.1:a,b,c,d 1.2:a,b,c,d 2.1:a 3.1:b 3.2:b 4.1:c,d", "a c d", "b", 4 + 4 + 1 + 1},
		{"all guilty but one", func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
			if len(b.Events) > 1 || index(b, "c") < 0 {
				return trap("x")
			}
			store()
			return ok
		}, "1.1:a,b,c,d 1.2:a,b,c,d 2.1:a 2.2:a 3.1:b,c,d 4.1:b 4.2:b 5.1:c,d 6.1:c 7.1:d 7.2:d", "c", "a b d", 4 + 4 + 2 + 3 + 2 + 2 + 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g, release := held(t, c.answer, nil)
				g.together("a", "b", "c", "d")
				release()
				g.close()
				if got := describe(g.sink.deliveries()[1:]); got != c.deliveries {
					t.Errorf("deliveries\n got %s\nwant %s", got, c.deliveries)
				}
				same(t, "rows", g.sink.stored(), strings.Fields(c.rows))
				same(t, "dead letters", g.dlq.ids(), strings.Fields(c.dead))
				if m := g.main(); m.AppendFailures != c.failures || m.Batches != uint64(len(g.sink.deliveries())) || m.State != queue.Stopped {
					t.Errorf("append failures %d, want %d; %+v", m.AppendFailures, c.failures, m)
				}
				if g.sink.unsealed != 0 {
					t.Errorf("%d events were not sealed", g.sink.unsealed)
				}
			})
		})
	}
}

func TestGuestsWishIsBoundedAndGrows(t *testing.T) {
	for _, o := range []abi.Outcome{abi.Retry, abi.Busy} {
		for _, c := range []struct {
			wish time.Duration
			want []time.Duration // nominal; repeated ones may be up to a quarter shorter
		}{
			{0, []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond}},
			{time.Second, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}},
			{time.Hour, []time.Duration{30 * time.Second, 30 * time.Second}},
		} {
			t.Run(fmt.Sprint(o, " ", c.wish), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					var at []time.Time
					g := newRig(t, func(g *rig, ro *queue.RecorderOptions) {
						ro.Sinks[0].MaxRestarts = 0 // waiting costs no budget
						g.sink.answer = func(_ context.Context, n int, _ *abi.Batch, store func(...int)) abi.Result {
							at = append(at, time.Now())
							if n <= len(c.want) {
								return abi.Result{Outcome: o, RetryAfter: c.wish}
							}
							store()
							return ok
						}
					})
					g.submit("one")
					synctest.Wait()
					if s := g.main().State; s != queue.Waiting {
						t.Errorf("state %s", s)
					}
					g.close()
					for i, want := range c.want {
						least := max(want*3/4-1, 10*time.Millisecond)
						if i == 0 {
							least = want
						}
						if got := at[i+1].Sub(at[i]); got < least || got > want {
							t.Errorf("pause %d: %v, want %v to %v", i, got, least, want)
						}
					}
					m := g.main()
					if n := uint64(len(c.want)); o == abi.Retry && (m.Retries != n || m.Busies != 0) || o == abi.Busy && (m.Busies != n || m.Retries != 0) {
						t.Errorf("%+v", m)
					}
				})
			})
		}
	}
}

func TestWhatIsSettledDoesNotWaitForARetry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, release := held(t, script(func(_ *abi.Batch, store func(...int)) abi.Result {
			store(0, 1, 3)
			return abi.Result{Outcome: abi.Partial, Verdicts: []abi.Verdict{{}, {}, {Code: abi.Retry}, {}}}
		}), nil)
		at := make(map[string]time.Time)
		for _, id := range []string{"a", "b", "c", "d"} {
			time.Sleep(time.Second) // of the bubble
			at[id] = time.Now()
			g.together(id)
		}
		release()
		synctest.Wait()
		if got := g.main().Oldest; !got.Equal(at["c"]) {
			t.Errorf("oldest %v, want that of c, %v", got, at["c"])
		}
		if w := g.q.Watermarks(); w.Committed != 3 {
			t.Errorf("committed up to %d, want 3: 0, a and b", w.Committed)
		}
		if m := g.main(); m.Appended != 3 || m.Pending != 2 || m.State != queue.Waiting {
			t.Errorf("%+v", m)
		}
		g.conserved()
		g.close()
		same(t, "rows", g.sink.stored(), []string{"a", "b", "d", "c"})
	})
}

func TestContradictionsAreBadABI(t *testing.T) {
	for name, r := range map[string]abi.Result{
		"PARTIAL without verdicts":  {Outcome: abi.Partial},
		"too few verdicts":          {Outcome: abi.Partial, Verdicts: make([]abi.Verdict, 1)},
		"too many verdicts":         {Outcome: abi.Partial, Verdicts: make([]abi.Verdict, 3)},
		"OK with verdicts":          {Outcome: abi.OK, Verdicts: make([]abi.Verdict, 2)},
		"RETRY with verdicts":       {Outcome: abi.Retry, Verdicts: make([]abi.Verdict, 2)},
		"a verdict that is none":    {Outcome: abi.Partial, Verdicts: []abi.Verdict{{}, {Code: abi.Busy}}},
		"a host's verdict":          {Outcome: abi.Partial, Verdicts: []abi.Verdict{{}, {Code: abi.Trap}}},
		"no outcome of a guest":     {Outcome: 6},
		"the last before the hosts": {Outcome: 0xff},
		"no outcome of the host":    {Outcome: abi.BadABI + 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g, release := held(t, script(answer(r)), nil)
				g.together("a", "b")
				release()
				g.drain()
				m := g.main()
				if m.DrainerPanics != 1 || m.Restarts != 1 || m.Appended != 3 || !strings.HasPrefix(m.LastError, "BAD_ABI: ") {
					t.Errorf("%+v", m)
				}
				g.close()
			})
		})
	}
}

func TestPanickingSinkIsAnOutcome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].BatchEvents = 1
			g.sink.answer = func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
				if b.Events[0].ID == "e00002" {
					panic("the sink panics")
				}
				store()
				return ok
			}
		})
		g.submit(names(1, 3)...)
		g.close()
		same(t, "rows", g.sink.stored(), []string{"e00001", "e00003"})
		l := g.dlq.all()
		if len(l) != 1 || l[0].Outcome != abi.HostPanic || !strings.Contains(l[0].Reason, "the sink panics") || !strings.Contains(l[0].Stderr, "goroutine") || l[0].Attempts != 2 {
			t.Errorf("%+v", l)
		}
		if m := g.main(); m.DrainerPanics != 2 || m.Restarts != 2 {
			t.Errorf("%+v", m)
		}
	})
}

func TestRacesAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].BatchEvents = 1
			g.sink.answer = func(_ context.Context, n int, _ *abi.Batch, store func(...int)) abi.Result {
				store()
				return abi.Result{Races: uint64(n)}
			}
		})
		g.submit(names(1, 3)...)
		g.close()
		if m := g.main(); m.UniqueRaceRetries != 6 {
			t.Errorf("%+v", m)
		}
		if n := strings.Count(g.logs.String(), "level=WARN"); n != 3 {
			t.Errorf("%d warnings", n)
		}
	})
}

func TestAnEventAloneGoesAtOnceAndABacklogTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, release := held(t, script(), func(o *queue.RecorderOptions) { o.Sinks[0].BatchEvents = 64 })
		for _, id := range names(1, 100) { // one at a time, each sealed before the next
			g.together(id)
		}
		release()
		g.drain()
		g.together("alone")
		if got := len(g.sink.deliveries()[len(g.sink.deliveries())-1].ids); got != 1 {
			t.Errorf("the last batch has %d events", got)
		}
		var sizes []int
		for _, c := range g.sink.deliveries() {
			sizes = append(sizes, len(c.ids))
		}
		if want := []int{1, 64, 36, 1}; !slices.Equal(sizes, want) {
			t.Errorf("batches of %d, want %d", sizes, want)
		}
		g.close()
	})
}

func TestBatchBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, release := held(t, script(), func(o *queue.RecorderOptions) { o.Sinks[0].BatchBytes = 1000 })
		for i, size := range []int{300, 300, 300, 5000, 10, 10} {
			e := event(fmt.Sprint(i + 1))
			e.Payload = make([]byte, size)
			if _, err := g.r.Submit(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		release()
		g.close()
		if got, want := describe(g.sink.deliveries()), "1.1:0 2.1:1,2 3.1:3 4.1:4 5.1:5,6"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
