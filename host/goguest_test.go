package host

import (
	"context"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
)

// buildGoGuest compiles testdata/goguest once for all tests.
var buildGoGuest = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "goguest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := osexec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/goguest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return manifest.Append(wasm, []byte(`{"name": "goguest", "version": "1", "idempotent": true}`))
})

func goGuest(t testing.TB) []byte {
	t.Helper()
	wasm, err := buildGoGuest()
	if err != nil {
		t.Fatalf("build testdata/goguest: %v", err)
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
