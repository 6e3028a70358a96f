package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/meter"
	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/plugins/bundled"
)

// What metering costs the bundled sqlite sink from end to end: the guest and
// SQLite, which is WebAssembly as well, both unmetered, both metered, and both
// with wazero's own interruption instead. SQLite's module belongs to the
// process, so each variant is a process of its own, running
// BenchmarkSinkVariant; package meter has the same for single workloads.

const variantKey = "AUDIT_HOST_BENCH_VARIANT"

var variants = [...]string{"unmetered", "metered", "ctxdone"}

var perEvent = regexp.MustCompile(`([0-9.]+) ns/event`)

// BenchmarkSinkMetering shows the quotients.
func BenchmarkSinkMetering(b *testing.B) {
	times := map[string][]float64{}
	dir := b.TempDir()
	for b.Loop() {
		for range 3 { // in turns: the machine is not the same all the time
			for _, v := range variants {
				cmd := osexec.Command(os.Args[0], "-test.run", "^$", "-test.bench", "^BenchmarkSinkVariant$", "-test.benchtime", "300x")
				cmd.Env = append(os.Environ(), variantKey+"="+v, "AUDIT_HOST_BENCH_CACHE="+filepath.Join(dir, v))
				out, err := cmd.CombinedOutput()
				found := perEvent.FindSubmatch(out)
				if err != nil || found == nil {
					b.Fatalf("%s: %v\n%s", v, err, out)
				}
				ns, err := strconv.ParseFloat(string(found[1]), 64)
				if err != nil {
					b.Fatal(err)
				}
				times[v] = append(times[v], ns)
			}
		}
	}
	best := map[string]float64{}
	for v, list := range times {
		best[v] = slices.Min(list)
	}
	b.ReportMetric(best["unmetered"], "unmetered-ns/event")
	b.ReportMetric(best["metered"]/best["unmetered"], "x-metered")
	b.ReportMetric(best["ctxdone"]/best["unmetered"], "x-ctxdone")
	b.ReportMetric(0, "ns/op") // of all together, says nothing
}

// BenchmarkSinkVariant delivers batches of 256 events to the bundled sqlite
// sink, synchronous=FULL, in the variant that the environment names.
func BenchmarkSinkVariant(b *testing.B) {
	variant := os.Getenv(variantKey)
	if variant == "" {
		variant = "metered"
	}
	wasm, err := bundled.Read("sink-sqlite")
	if err != nil {
		b.Fatal(err)
	}
	dir := os.Getenv("AUDIT_HOST_BENCH_CACHE")
	if dir == "" {
		dir = filepath.Join(cacheDir(), "cache")
	}
	cache, err := OpenCache(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := cache.Close(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	path := filepath.Join(b.TempDir(), "ledger.db")
	o := Options{Name: "ledger", Cache: cache, SQL: &SQLGrant{Database: path}}
	if variant != "metered" {
		startVariant(b, cache, variant == "ctxdone")
	}
	if err := ledger.Create(path); err != nil {
		b.Fatal(err)
	}
	s := openVariant(b, wasm, o, variant)
	const size = 256
	seq := uint64(0)
	var took []time.Duration
	for b.Loop() {
		batch := &abi.Batch{ID: seq + 1, Attempt: 1, Queue: [16]byte{1}, Events: make([]abi.Event, size)}
		for i := range batch.Events {
			seq++
			e := abi.Event{ID: fmt.Sprintf("%036d", seq), Seq: seq, AgentID: "agent:alice", EventType: "governance.refusal",
				Timestamp: "2026-01-01T00:00:00+00:00", AttestLevel: "unsigned", Payload: bytes.Repeat([]byte("x"), 400)}
			binary.LittleEndian.PutUint64(e.Digest[:], seq)
			batch.Events[i] = e
		}
		begin := time.Now()
		if r := s.Deliver(context.Background(), batch); r.Outcome != abi.OK {
			b.Fatalf("%v %q", r.Outcome, r.Detail)
		}
		took = append(took, time.Since(begin))
	}
	// The lowest twentieth: what else the machine does, and the disk, makes a
	// batch longer and never shorter.
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/20])/size, "ns/event")
}

// startVariant starts SQLite without metering, in place of StartSQLite.
func startVariant(b *testing.B, cache *Cache, interruptible bool) {
	own, err := cache.store.attach()
	if err != nil {
		b.Fatal(err)
	}
	if err := sqlite.StartAs(func(cfg wazero.RuntimeConfig) wazero.RuntimeConfig {
		return cfg.WithCompilationCache(own).WithCloseOnContextDone(interruptible)
	}, func(module []byte) ([]byte, error) { return idleMeter(b, module), nil }); err != nil {
		b.Fatal(err)
	}
}

// openVariant is Open, but for what the variant says.
func openVariant(b *testing.B, wasm []byte, o Options, variant string) *Sink {
	if variant == "metered" {
		return openGuest(b, wasm, o)
	}
	ctx := context.Background()
	o.setDefaults()
	m, err := readModule(wasm, meter.Options{})
	if err != nil {
		b.Fatal(err)
	}
	s := &Sink{o: o, turn: make(chan struct{}, 1), manifest: m.manifest, digest: m.digest, pages: pagesOf(o.Memory)}
	s.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithMemoryLimitPages(s.pages).
		WithCoreFeatures(api.CoreFeaturesV2).WithCompilationCache(o.Cache.cache).WithCloseOnContextDone(variant == "ctxdone"))
	if s.compiled, err = s.runtime.CompileModule(ctx, idleMeter(b, wasm)); err != nil {
		b.Fatal(err)
	}
	if err := s.exportAudit(ctx); err != nil {
		b.Fatal(err)
	}
	if err := s.exportWASI(ctx); err != nil {
		b.Fatal(err)
	}
	if r, err := s.Start(ctx); err != nil || r.Outcome != abi.OK {
		b.Fatalf("%v %q %v", r.Outcome, r.Detail, err)
	}
	b.Cleanup(func() {
		if err := s.Close(ctx); err != nil {
			b.Error(err)
		}
	})
	return s
}

// idleMeter gives a module the globals of the meter and nothing that uses
// them, so that the host runs it as it is. The module must import no global.
func idleMeter(b *testing.B, wasm []byte) []byte {
	names := [...]string{"fuel", "meter", "stop", "cause"}
	first := uint64(0)
	out := append([]byte(nil), wasm[:8]...)
	for at := 8; at < len(wasm); {
		id := wasm[at]
		size, n := binary.Uvarint(wasm[at+1:])
		body := wasm[at+1+n : at+1+n+int(size)]
		at += 1 + n + int(size)
		if id != 6 && id != 7 {
			out = append(out, sec(id, body)...)
			continue
		}
		count, n := binary.Uvarint(body)
		if first == 0 {
			first = count // globals come before exports
		}
		body = append(leb(count+uint64(len(names))), body[n:]...)
		for i, name := range names {
			if id == 6 {
				body = append(body, cat(op(0x7e, 1), i64c(math.MaxInt64>>1), op(0x0b))...)
			} else {
				body = append(body, cat(str(meter.Reserved+name), op(3), leb(first+uint64(i)))...)
			}
		}
		out = append(out, sec(id, body)...)
	}
	if first == 0 {
		b.Fatal("the module has no globals")
	}
	return out
}
