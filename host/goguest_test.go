package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// buildGoGuest compiles testdata/goguest once for all tests.
var buildGoGuest = sync.OnceValues(func() ([]byte, error) {
	wasm, err := wasmtest.BuildGo("testdata/goguest", "-trimpath", "-ldflags=-s -w")
	if err != nil {
		return nil, err
	}
	return manifest.Append(wasm, []byte(`{"name": "goguest", "version": "1", "idempotent": true}`))
})

func goGuest(t testing.TB) []byte {
	t.Helper()
	wasm, err := buildGoGuest()
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// sharedCache is the folder that the tests of this process share: compiling
// the Go guest takes a second each time otherwise.
func sharedCache(t testing.TB) *Cache {
	t.Helper()
	c, err := OpenCache(filepath.Join(cacheDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// openGuest opens a sink that is closed when the test ends.
func openGuest(t testing.TB, wasm []byte, o Options) *Sink {
	t.Helper()
	if o.Name == "" {
		o.Name = "test"
	}
	s, err := Open(context.Background(), wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// batchOf makes a batch of n events with this payload.
func batchOf(n int, payload string) *abi.Batch {
	b := &abi.Batch{ID: 1, Attempt: 1}
	for i := range n {
		b.Events = append(b.Events, abi.Event{ID: "id", AgentID: "agent", EventType: "governance.refusal",
			Timestamp: "2026-11-24T00:00:00+00:00", Payload: []byte(payload), Seq: uint64(i + 1), AttestLevel: abi.AttestUnsigned})
	}
	return b
}

func TestGoGuest(t *testing.T) {
	wasm := goGuest(t)
	for _, c := range []struct {
		do     string
		want   abi.Outcome
		detail string // in Detail
		stderr string // in Stderr
	}{
		{"panic", abi.Trap, "nil pointer dereference", "goroutine"},
		{"message", abi.Trap, "panic: a message of the guest", "with a second line"},
		{"eat", abi.Memory, "raise memory_limit", "out of memory"},
		{"exit", abi.Exit, "proc_exit(7)", ""},
		{"spin", abi.Deadline, "raise deadline", ""},
		{"sleep", abi.Deadline, "raise deadline", ""},
		{"look", abi.Retry, "args  env  random ", ""},
	} {
		t.Run(c.do, func(t *testing.T) {
			s := openGuest(t, wasm, Options{Cache: sharedCache(t), Deadline: 300 * time.Millisecond})
			begin := time.Now()
			r := s.Deliver(context.Background(), batchOf(2, c.do))
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			if r.Outcome != c.want || !strings.Contains(r.Detail, c.detail) || !strings.Contains(r.Stderr, c.stderr) {
				t.Fatalf("%v %q, want %v with %q; stderr %q", r.Outcome, r.Detail, c.want, c.detail, r.Stderr)
			}
			if c.do == "look" && (strings.Contains(r.Detail, "FILES") || !strings.Contains(r.Detail, "year 1970")) {
				t.Errorf("the guest sees too much: %s", r.Detail)
			}
			if r := s.Deliver(context.Background(), batchOf(3, "store")); r.Outcome != abi.OK {
				t.Errorf("next batch: %v %q", r.Outcome, r.Detail)
			}
		})
	}
}

// TestReason: the number that goes with an outcome is in the result, one of a later
// version is OTHER, and none goes with what was stored.
func TestReason(t *testing.T) {
	s := openGuest(t, goGuest(t), Options{Cache: sharedCache(t)})
	for _, o := range []abi.Outcome{abi.Retry, abi.Reject, abi.Busy} {
		for why, want := range map[int]abi.Reason{0: 0, 1: abi.ReasonLocked, 10: abi.ReasonSchema, len(abi.Reasons()): abi.ReasonOther, 1<<16 - 1: abi.ReasonOther} {
			r := s.Deliver(t.Context(), batchOf(2, fmt.Sprint("answer ", uint32(o), why, 3)))
			if r.Outcome != o || r.Reason != want || r.Detail != "in other words" {
				t.Errorf("%s with the reason %d: %+v", o, why, r)
			}
		}
	}
	for _, answer := range []string{"answer 0 1 2", "answer 0 65535 2", "answer 1 2 2"} {
		if r := s.Deliver(t.Context(), batchOf(2, answer)); r.Outcome != abi.BadABI || r.Rule != "R27" {
			t.Errorf("%s: %+v", answer, r)
		}
	}
	for answer, rule := range map[string]string{"answer 0 0 1": "R5", "answer 1 0 1": "R6", "answer 5 0 0": "R7", "answer 6 0 0": "R7", "answer 256 0 0": "R7", "answer 65535 0 0": "R7"} {
		if r := s.Deliver(t.Context(), batchOf(2, answer)); r.Outcome != abi.BadABI || r.Rule != rule {
			t.Errorf("%s: %+v", answer, r)
		}
	}
}

// A Go guest finishes its garbage collections only because the SDK yields at
// the end of every export: without that it would reach its cap here.
func TestGoGuestMemoryStaysFlat(t *testing.T) {
	s := openGuest(t, goGuest(t), Options{Cache: sharedCache(t)})
	b := batchOf(16, "garbage "+strings.Repeat("x", 400))
	deliver := func(n int) uint32 {
		t.Helper()
		for i := range n {
			if r := s.Deliver(context.Background(), b); r.Outcome != abi.OK {
				t.Fatalf("batch %d: %v %q", i, r.Outcome, r.Detail)
			}
		}
		return s.inst.mod.Memory().Size()
	}
	// 128 KB of garbage a batch: 1.3 GB in all.
	warm, end := deliver(500), deliver(9_500)
	t.Logf("%d bytes after 500 batches, %d after 10,000", warm, end)
	if end > warm+1<<20 || end > 24<<20 {
		t.Errorf("memory grew from %d to %d bytes", warm, end)
	}
}

func TestGoGuestVerdicts(t *testing.T) {
	s := openGuest(t, goGuest(t), Options{Cache: sharedCache(t)})
	for range 2 {
		r := s.Deliver(context.Background(), batchOf(10, "verdicts"))
		if r.Outcome != abi.Partial || len(r.Verdicts) != 10 {
			t.Fatalf("%v %q, %d verdicts", r.Outcome, r.Detail, len(r.Verdicts))
		}
		for i, v := range r.Verdicts {
			want := abi.Verdict{}
			if i%3 == 0 {
				want = abi.Verdict{Code: abi.Reject, Reason: "every third"}
			}
			if v != want {
				t.Errorf("event %d: %v", i, v)
			}
		}
	}
}

func TestGoGuestOpens(t *testing.T) {
	_, err := Open(context.Background(), goGuest(t), Options{Cache: sharedCache(t), Config: []byte(`"refuse"`)})
	var config *ConfigError
	if !errors.As(err, &config) || config.Detail != "this configuration says refuse" {
		t.Errorf("%v", err)
	}
	s := openGuest(t, goGuest(t), Options{Cache: sharedCache(t), Config: []byte(`"trap"`)})
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Busy || !strings.Contains(r.Detail, "no instance: TRAP in audit_open: panic: audit_open panics") ||
		!strings.Contains(r.Stderr, "goroutine") {
		t.Errorf("%v %q %q", r.Outcome, r.Detail, r.Stderr)
	}
}

// With the grants the clock is the real one and randomness differs.
func TestGoGuestGrants(t *testing.T) {
	look := func(o Options) string {
		o.Cache = sharedCache(t)
		r := openGuest(t, goGuest(t), o).Deliver(context.Background(), batchOf(1, "look"))
		if r.Outcome != abi.Retry {
			t.Fatalf("%v %q", r.Outcome, r.Detail)
		}
		return r.Detail
	}
	if a, b := look(Options{}), look(Options{}); a != b || !strings.Contains(a, "year 1970") {
		t.Errorf("without grants: %q and %q", a, b)
	}
	a, b := look(Options{Now: true, Random: true}), look(Options{Now: true, Random: true})
	if a == b || strings.Contains(a, "year 1970") {
		t.Errorf("with grants: %q and %q", a, b)
	}
}

// A trap and a fresh, ready instance of a Go guest: milliseconds.
func TestGoGuestIsBackQuickly(t *testing.T) {
	s := openGuest(t, goGuest(t), Options{Cache: sharedCache(t)})
	best := time.Hour
	for range 10 {
		begin := time.Now()
		if r := s.Deliver(context.Background(), batchOf(1, "panic")); r.Outcome != abi.Trap {
			t.Fatalf("%v %q", r.Outcome, r.Detail)
		}
		if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK {
			t.Fatalf("%v %q", r.Outcome, r.Detail)
		}
		best = min(best, time.Since(begin))
	}
	t.Logf("trap, fresh instance, batch delivered: %v at best", best)
	if best > 100*time.Millisecond {
		t.Errorf("%v", best)
	}
}
