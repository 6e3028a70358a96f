package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/appendfile"
)

// A sink that was prepared holds nothing that another one needs; stopped it has
// given up everything, and it can be started again.
func TestPreparedBesideAnother(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "lines")
	wasm := guestModule{manifest: `{"name":"x","version":"1","capabilities":["append"]}`}.bytes()
	o := Options{Name: "x", Append: &appendfile.Options{Path: path}}
	first, err := Open(ctx, wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Prepare(ctx, wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(first.Close(context.Background()), second.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	if r := second.Deliver(ctx, batchOf(1, "x")); r.Outcome != abi.HostPanic {
		t.Errorf("delivered before the start: %v %q", r.Outcome, r.Detail)
	}
	if r := first.Deliver(ctx, batchOf(1, "x")); r.Outcome != abi.OK {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	on, off := first, second
	for range 3 {
		if err := on.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if r := on.Deliver(ctx, batchOf(1, "x")); r.Outcome != abi.HostPanic || !strings.Contains(r.Detail, "Stop") {
			t.Errorf("delivered after the stop: %v %q", r.Outcome, r.Detail)
		}
		if r, err := off.Start(ctx); err != nil || r.Outcome != abi.OK {
			t.Fatalf("%v, %v", r.Outcome, err)
		}
		// The file is locked by whoever has it: this one could open it.
		if off.grants.append.f == nil || on.grants.append != nil {
			t.Error("the file did not change hands")
		}
		if r := off.Deliver(ctx, batchOf(3, "x")); r.Outcome != abi.OK {
			t.Errorf("%v %q", r.Outcome, r.Detail)
		}
		if r, err := off.Start(ctx); err != nil || r.Outcome != abi.OK {
			t.Errorf("started twice: %v, %v", r, err)
		}
		on, off = off, on
	}
	if n := first.Counts().Outcomes[abi.OK]; n < 3 {
		t.Errorf("its counts are gone: %d", n)
	}
}

// What Start fails with leaves nothing open, and it may be tried again.
func TestStartFails(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "missing")
	s, err := Prepare(ctx, guestModule{manifest: `{"name":"x","version":"1","capabilities":["append"]}`}.bytes(),
		Options{Name: "x", Append: &appendfile.Options{Path: filepath.Join(dir, "lines")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(ctx); err == nil || !strings.Contains(err.Error(), "sink x: grant append") {
		t.Errorf("%v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Start(ctx); err != nil || r.Outcome != abi.OK {
		t.Errorf("%v, %v", r, err)
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, err := s.Start(ctx); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("%v", err)
	}

	var bad *ConfigError
	s, err = Prepare(ctx, guestModule{open: cat(i64c(int64(uint64(abi.BadConfig)<<32)), opReturn)}.bytes(), Options{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(ctx); !errors.As(err, &bad) || s.inst != nil {
		t.Errorf("%v", err)
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	// A guest that traps when it is opened is told apart, and opened again.
	s, err = Prepare(ctx, guestModule{open: opUnreachable}.bytes(), Options{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Start(ctx); err != nil || r.Outcome != abi.Trap {
		t.Errorf("%v, %v", r, err)
	}
	if r := s.Deliver(ctx, batchOf(1, "x")); r.Outcome != abi.Busy {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

// The kv store that a plugin finds is the one that the plugin before it left,
// however long it was prepared.
func TestTheStoreChangesHands(t *testing.T) {
	ctx := t.Context()
	wasm, o := buildKVGuest(t), kvOptions(filepath.Join(t.TempDir(), "kv.db"))
	o.Cache = sharedCache(t)
	first := openGuest(t, wasm, o)
	second, err := Prepare(ctx, wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := second.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	seq := uint64(0)
	batch := func(events int) *abi.Batch {
		b := &abi.Batch{ID: seq + 1, Attempt: 1, Queue: [16]byte{1}}
		for range events {
			seq++
			b.Events = append(b.Events, abi.Event{ID: "id", AgentID: "a", Seq: seq, Payload: []byte("{}")})
		}
		return b
	}
	for _, s := range []*Sink{first, second, first, second} {
		if r, err := s.Start(ctx); err != nil || r.Outcome != abi.OK {
			t.Fatalf("%v, %v", r, err)
		}
		last := batch(3)
		for range 2 { // what comes again is known, by whichever plugin
			if r := s.Deliver(ctx, last); r.Outcome != abi.OK {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
		}
		if v, _ := s.grants.kv.get("count/a"); string(v) != fmt.Sprint(seq) {
			t.Errorf("it counts %q of %d", v, seq)
		}
		if err := s.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// Between two lives a plugin may get other files behind the same capabilities.
func TestGrantAnew(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	wasm := guestModule{manifest: `{"name":"x","version":"1","capabilities":["append"]}`}.bytes()
	at := func(name string) Options {
		return Options{Name: "x", Append: &appendfile.Options{Path: filepath.Join(dir, name)}}
	}
	s, err := Prepare(ctx, wasm, at("missing/lines"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Grant(Options{Name: "x"}); err == nil || !strings.Contains(err.Error(), "other capabilities") {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"a", "b"} {
		if err := s.Grant(at(name)); err != nil {
			t.Fatal(err)
		}
		if n := len(s.Counts().Outcomes); n != 0 {
			t.Errorf("%d outcomes", n)
		}
		if r, err := s.Start(ctx); err != nil || r.Outcome != abi.OK {
			t.Fatalf("%v, %v", r, err)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
		if err := s.Grant(at("c")); err == nil || !strings.Contains(err.Error(), "started") {
			t.Errorf("%v", err)
		}
		if err := s.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Grant(at("a")); err == nil {
		t.Error("granted after the end")
	}
}
