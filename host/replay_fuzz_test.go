package host

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// FuzzReplay: a bundle may come from anywhere. Whatever it says, it is refused
// or replayed; the host neither panics nor runs on.
func FuzzReplay(f *testing.F) {
	g := guestModule{
		manifest: `{"name":"x","version":"1","capabilities":["now","random","sql"]}`,
		imports:  [][]byte{imported("audit", "now", typNow), imported("audit", "random", typTwo), imported("audit", "sql", typSQL)},
		deliver: cat(i32c(64), callf(0), op(0x37, 3, 0), i32c(72), i32c(16), callf(1),
			i32c(144), i32c(0), i32c(0), i32c(0), i32c(160), i32c(64), callf(2), op(0x37, 3, 0), when(1, opUnreachable)),
	}
	crashes := openCrashes(f, CrashOptions{})
	s := openGuest(f, g.bytes(), Options{Now: true, Random: true, Crashes: crashes,
		SQL: &SQLGrant{Database: filepath.Join(f.TempDir(), "x.db"), Create: true}})
	for _, n := range []int{3, 1} {
		s.Deliver(context.Background(), batchOf(n, "x"))
	}
	seed, err := os.ReadFile(bundles(f, crashes)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"version":1,"life":[{"export":"audit_open"}],"export":"audit_open"}`))
	wasm := g.bytes()
	digest := s.Digest()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "bundle.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := ReadBundle(path)
		if err != nil {
			return
		}
		// What else it says must not matter; the module is known.
		b.Plugin.Digest = digest
		b.Limits.Memory = min(b.Limits.Memory, 1<<20)
		begin := time.Now()
		r, err := Replay(context.Background(), b, wasm, ReplayOptions{})
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
		if err == nil && r.Same && r.Outcome.String() != b.Outcome {
			t.Errorf("%+v of %+v", r, b)
		}
		if err == nil && r.Outcome == abi.HostPanic && r.Diverged == "" && b.Ending == nil {
			t.Errorf("%+v of %+v", r, b)
		}
	})
}
