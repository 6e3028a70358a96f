package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// call is one delivery that a sink got.
type call struct {
	id      uint64
	attempt uint32
	ids     []string
}

// sink is a sink in Go: idempotent on the event's ID, as every sink must be.
type sink struct {
	// answer, if set, decides what a delivery does. store stores the events with
	// these indices, all of them if none is named. n counts deliveries from 1.
	answer func(ctx context.Context, n int, b *abi.Batch, store func(at ...int)) abi.Result
	onEnd  func(ctx context.Context) error

	mu       sync.Mutex
	rows     []string // IDs, in the order stored
	has      map[string]bool
	calls    []call
	unsealed int
	closed   int
	events   []abi.Event // those stored, as they came
}

func (s *sink) Deliver(ctx context.Context, b *abi.Batch) abi.Result {
	s.mu.Lock()
	c := call{id: b.ID, attempt: b.Attempt}
	for i := range b.Events {
		c.ids = append(c.ids, b.Events[i].ID)
		if !sealed(&b.Events[i]) {
			s.unsealed++
		}
	}
	s.calls = append(s.calls, c)
	n, answer := len(s.calls), s.answer
	s.mu.Unlock()
	store := func(at ...int) { s.store(b, at) }
	if answer == nil {
		store()
		return abi.Result{Outcome: abi.OK}
	}
	return answer(ctx, n, b, store)
}

// mend has the sink store everything from now on.
func (s *sink) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = nil
}

func (s *sink) store(b *abi.Batch, at []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.has == nil {
		s.has = make(map[string]bool)
	}
	if len(at) == 0 {
		for i := range b.Events {
			at = append(at, i)
		}
	}
	for _, i := range at {
		if e := b.Events[i]; !s.has[e.ID] {
			s.has[e.ID] = true
			s.rows = append(s.rows, e.ID)
			e.Payload = bytes.Clone(e.Payload)
			s.events = append(s.events, e)
		}
	}
}

func (s *sink) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed++
	s.mu.Unlock()
	if s.onEnd != nil {
		return s.onEnd(ctx)
	}
	return nil
}

// stored returns the IDs stored so far.
func (s *sink) stored() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rows)
}

func (s *sink) deliveries() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

var ok = abi.Result{Outcome: abi.OK}

func trap(text string) abi.Result {
	return abi.Result{Outcome: abi.Trap, Detail: text, Stderr: "panic: " + text}
}

// index tells where in the batch the event of that ID is, -1 if nowhere.
func index(b *abi.Batch, id string) int {
	return slices.IndexFunc(b.Events, func(e abi.Event) bool { return e.ID == id })
}

// sealer marks events as sealed.
type sealer struct {
	before func(*abi.Event) // if set, called first
}

func (s sealer) Seal(events ...*abi.Event) {
	for _, e := range events {
		if s.before != nil {
			s.before(e)
		}
		copy(e.Digest[:], e.ID)
	}
}

func sealed(e *abi.Event) bool {
	var want [abi.HashSize]byte
	copy(want[:], e.ID)
	return e.Digest == want
}

// letters keeps dead letters, idempotent on sink and ID.
type letters struct {
	put func(n int, l []abi.DeadLetter, store func()) error // if set; n counts from 1

	mu   sync.Mutex
	n    int
	kept []abi.DeadLetter
}

func (d *letters) Put(_ context.Context, l []abi.DeadLetter) error {
	d.mu.Lock()
	d.n++
	n := d.n
	d.mu.Unlock()
	store := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, x := range l {
			if !slices.ContainsFunc(d.kept, func(k abi.DeadLetter) bool { return k.Sink == x.Sink && k.Event.ID == x.Event.ID }) {
				d.kept = append(d.kept, x)
			}
		}
	}
	if d.put != nil {
		return d.put(n, l, store)
	}
	store()
	return nil
}

func (d *letters) all() []abi.DeadLetter {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.kept)
}

func (d *letters) ids() []string {
	var out []string
	for _, l := range d.all() {
		out = append(out, l.Event.ID)
	}
	return out
}

// logs keeps what is logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// rig is a recorder with doubles around it.
type rig struct {
	t    *testing.T
	q    queue.Queue
	sink *sink
	dlq  *letters
	logs *logs
	r    *queue.Recorder
}

// newRig makes a recorder with one required sink, "main", over a memory queue.
// change may set what it likes, and add sinks.
func newRig(t *testing.T, change func(g *rig, o *queue.RecorderOptions)) *rig {
	t.Helper()
	g := &rig{t: t, sink: &sink{}, dlq: &letters{}, logs: &logs{}}
	o := queue.RecorderOptions{
		Queue:       queue.NewMemory(queue.MemoryOptions{}),
		Sinks:       []queue.SinkOptions{{Name: "main", Sink: g.sink, Plugin: "d1ge57", Required: true, MaxRestarts: 5}},
		Sealer:      sealer{},
		DeadLetters: g.dlq,
		Check:       func(abi.Event) error { return nil },
		Log:         slog.New(slog.NewTextHandler(g.logs, nil)),
	}
	if change != nil {
		change(g, &o)
	}
	g.q = o.Queue
	var err error
	if g.r, err = queue.NewRecorder(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return g
}

func event(id string) abi.Event {
	return abi.Event{
		ID: id, AgentID: "agent:alice", EventType: "governance.refusal", Timestamp: "2026-01-01T00:00:00+00:00",
		Payload: fmt.Appendf(nil, `{"id":%q}`, id),
	}
}

func names(from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf("e%05d", i))
	}
	return out
}

func (g *rig) submit(ids ...string) {
	g.t.Helper()
	for _, id := range ids {
		if _, err := g.r.Submit(g.t.Context(), event(id)); err != nil {
			g.t.Fatalf("submit %s: %v", id, err)
		}
	}
}

func (g *rig) drain() queue.Report {
	g.t.Helper()
	rep, err := g.r.DrainPending(g.t.Context())
	if err != nil {
		g.t.Fatalf("drain: %v", err)
	}
	return rep
}

func (g *rig) close() queue.Report {
	g.t.Helper()
	rep, err := g.r.Close(g.t.Context())
	if err != nil {
		g.t.Fatalf("close: %v", err)
	}
	g.conserved()
	return rep
}

// closeNow closes with whatever is left.
func (g *rig) closeNow() {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	cancel()
	var left *queue.RemainingError
	if _, err := g.r.Close(ctx); err != nil && !errors.As(err, &left) {
		g.t.Fatalf("close: %v", err)
	}
	g.conserved()
}

// main returns the numbers of the first sink.
func (g *rig) main() queue.SinkMetrics { return g.r.Metrics().Sinks[0] }

// conserved checks the equation of the metrics.
func (g *rig) conserved() { g.t.Helper(); conserved(g.t, g.r.Metrics()) }

func conserved(t *testing.T, m queue.Metrics) {
	t.Helper()
	for _, s := range m.Sinks {
		in := int64(m.Submitted + s.Recovered)
		out := int64(m.SendFailures+s.Pending+s.Appended+s.DLQLanded+s.Skipped) + s.Lost
		if in != out || s.Lost != 0 {
			t.Errorf("sink %s: submitted %d + recovered %d is not failed %d + pending %d + appended %d + dead %d + skipped %d + lost %d",
				s.Name, m.Submitted, s.Recovered, m.SendFailures, s.Pending, s.Appended, s.DLQLanded, s.Skipped, s.Lost)
		}
	}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %d %.300q, want %d %.300q", what, len(got), got, len(want), want)
	}
}

// bubble runs a test in a bubble, which ends only when every goroutine has.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// tick is done after a millisecond of the bubble.
func tick() <-chan time.Time { return time.After(time.Millisecond) }
