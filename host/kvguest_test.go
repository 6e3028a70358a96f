package host

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// buildKVGuest compiles testdata/kvguest.
func buildKVGuest(t testing.TB) []byte {
	t.Helper()
	wasm, err := wasmtest.BuildGo("testdata/kvguest", "-trimpath", "-ldflags=-s -w")
	if err == nil {
		wasm, err = manifest.Append(wasm, []byte(`{"name": "kvguest", "version": "1", "capabilities": ["kv"], "idempotent": true}`))
	}
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// TestKVFromGo: the SDK's wrappers in WebAssembly, over many batches.
func TestKVFromGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	o := kvOptions(path)
	o.Cache = sharedCache(t)
	s := openGuest(t, buildKVGuest(t), o)
	const batches, events = 200, 16
	for i := range batches {
		b := &abi.Batch{ID: uint64(i), Attempt: 1, Queue: [16]byte{1}}
		for k := range events {
			b.Events = append(b.Events, abi.Event{ID: "id", AgentID: fmt.Sprint("agent-", k%4), Seq: uint64(i*events + k + 1),
				Payload: fmt.Appendf(nil, `{"n":"%s %d"}`, strings.Repeat("x", 300), i*events+k)})
		}
		if r := s.Deliver(context.Background(), b); r.Outcome != abi.OK {
			t.Fatalf("batch %d: %v %q %s", i, r.Outcome, r.Detail, r.Stderr)
		}
		if i == batches/2 {
			s.discard() // another instance goes on where this one was
		}
	}
	for k := range 4 {
		if v, _ := s.grants.kv.get(fmt.Sprint("count/agent-", k)); string(v) != fmt.Sprint(batches*events/4) {
			t.Errorf("agent %d: %q", k, v)
		}
	}
	if n := len(s.grants.kv.values); n != 8 {
		t.Errorf("%d keys", n)
	}
	if fmt.Sprint(s.grants.kv.covered) != fmt.Sprintf("[{1 %d}]", batches*events) {
		t.Errorf("covered %v", s.grants.kv.covered)
	}
}

// BenchmarkKVCommit is what a batch costs that changes one key.
func BenchmarkKVCommit(b *testing.B) {
	k := newKVStore(KVGrant{Path: filepath.Join(b.TempDir(), "kv.db")}, nil)
	if err := k.load(context.Background()); err != nil {
		b.Fatal(err)
	}
	n := uint64(0)
	for b.Loop() {
		n++
		k.set("k", []byte(fmt.Sprint(n)))
		if err := k.commit(context.Background(), positions(1, n), nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := k.file.Close(); err != nil {
		b.Fatal(err)
	}
}
