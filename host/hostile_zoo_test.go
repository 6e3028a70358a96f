package host

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// The zoo under testdata/zoo: hostile guests in WebAssembly's text format, and
// beside each the bytes it assembles to, in hex. The bytes are what is tested;
// the text is for people, and for TestZooIsAssembled. The manifest is appended
// here, as the text format can't say it.
const zooFolder = "testdata/zoo"

var update = flag.Bool("update", false, "write the bytes of the zoo anew, with wat2wasm")

// zooGuest reads a guest and gives it a manifest.
func zooGuest(t testing.TB, name, text string) []byte {
	t.Helper()
	lines, err := os.ReadFile(filepath.Join(zooFolder, name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	wasm, err := hex.DecodeString(strings.Join(strings.Fields(string(lines)), ""))
	if err != nil {
		t.Fatalf("%s.hex: %v", name, err)
	}
	// Not by the manifest's own means, which refuse what is hostile in it.
	return append(wasm, sec(0, cat(str(manifest.Section), []byte(text)))...)
}

// zooCase is a guest that is loaded and then misbehaves on a batch.
type zooCase struct {
	name   string
	events int // of the batch that it treats badly
	fuel   int64
	want   abi.Outcome
	detail string
}

const zooFuel = 500_000

var zoo = []zooCase{
	{"tight-loop", 1, zooFuel, abi.Fuel, "raise fuel"},
	{"recursion", 1, zooFuel, abi.Fuel, "raise fuel"},
	{"mutual-recursion", 1, 0, abi.Trap, "raise stack"},
	{"memory-grow", 1, 0, abi.Trap, "memory_limit"},
	{"memory-fill", 1, 10_000_000, abi.Fuel, "raise fuel"},
	{"log-lines", 1, 0, abi.OK, ""},
	{"verdict-pointer", 1, 0, abi.Trap, "outside the guest's memory"},
	{"verdict-length", 1, 0, abi.Trap, "outside the guest's memory"},
	{"verdict-index", 1, 0, abi.BadABI, "verdict for event 1 of a batch of 1"},
	{"re-entry", 1, 0, abi.Trap, "raise stack"},
	{"half-rejected", 2, 0, abi.BadABI, "OK with 1 verdicts"},
	{"inbox-wraps", 1, 0, abi.BadABI, "audit_reserve"},
	{"panic-with-event", 1, 0, abi.Trap, "panic: "},
}

// zooRefused are the guests that are not loaded, with the reason.
func zooRefused(t testing.TB) map[string]struct {
	wasm []byte
	want string
} {
	plain := zooGuest(t, "tight-loop", plainManifest)
	plain = plain[:len(plain)-len(sec(0, cat(str(manifest.Section), []byte(plainManifest))))]
	return map[string]struct {
		wasm []byte
		want string
	}{
		"start-spins":       {zooGuest(t, "start-spins", plainManifest), "start section"},
		"wrong-signature":   {zooGuest(t, "wrong-signature", plainManifest), "audit_deliver: wanted (i32) -> (i64), found (i32, i32) -> (i64)"},
		"undeclared-import": {zooGuest(t, "undeclared-import", plainManifest), `needs the capability "sql", which the plugin's manifest does not ask for`},
		"unknown-import":    {zooGuest(t, "unknown-import", plainManifest), "import env.system"},
		"manifest of 10 MB": {append(plain, sec(0, cat(str(manifest.Section), []byte(`{"name":"hostile","version":"`+strings.Repeat("1", 10<<20)+`"}`)))...), "at most 65536 are read"},
	}
}

// thousandsOfExports is a guest that works and exports 10,000 functions more.
func thousandsOfExports() []byte {
	g := guestModule{}
	for i := range 10_000 {
		g.more = append(g.more, wasmtest.Func{Type: typVoid, Name: fmt.Sprintf("export_%d", i)})
	}
	return g.bytes()
}

// TestZooIsAssembled: the bytes are those of the text. It needs wat2wasm of the
// Debian package wabt, which .ci/run installs.
func TestZooIsAssembled(t *testing.T) {
	texts, err := filepath.Glob(filepath.Join(zooFolder, "*.wat"))
	if err != nil || len(texts) != 18 {
		t.Fatalf("%d texts, %v", len(texts), err)
	}
	if all, _ := filepath.Glob(filepath.Join(zooFolder, "*.hex")); len(all) != len(texts) {
		t.Errorf("%d texts, but %d files of bytes", len(texts), len(all))
	}
	tool, err := osexec.LookPath("wat2wasm")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("wat2wasm is missing: .ci/run installs the Debian package wabt")
		}
		t.Log("NOT CHECKED: wat2wasm is not installed (Debian package wabt)")
		return
	}
	for _, path := range texts {
		out := filepath.Join(t.TempDir(), "out.wasm")
		if text, err := osexec.Command(tool, path, "-o", out).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", path, err, text)
		}
		wasm, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		var lines bytes.Buffer
		for chunk := range slices.Chunk(wasm, 32) {
			fmt.Fprintf(&lines, "%x\n", chunk)
		}
		name := strings.TrimSuffix(path, ".wat") + ".hex"
		if *update {
			if err := os.WriteFile(name, lines.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		kept, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(kept, lines.Bytes()) {
			t.Errorf("%s is not what %s assembles to: go test ./host -run TestZooIsAssembled -update (%v)", name, path, err)
		}
		if len(wasm) > 1024 {
			t.Errorf("%s has %d bytes", path, len(wasm))
		}
	}
}

// TestZoo: 1,000 rounds of all guests. Each ends as it must, and in time, and
// then takes a batch; the modules that do not fit are refused each time. Beside
// them another sink works on, and afterwards nothing is left.
func TestZoo(t *testing.T) {
	rounds := 1000
	if raceDetector {
		rounds = 100 // ten times slower
	}
	var quiet countingHandler
	sinks := make([]*Sink, len(zoo))
	for i, c := range zoo {
		sinks[i] = openGuest(t, zooGuest(t, c.name, plainManifest), Options{Name: c.name, Fuel: c.fuel, Stack: 1 << 20})
	}
	refused, wide := zooRefused(t), thousandsOfExports()

	neighbour := openGuest(t, guestModule{memory: cat(op(0), leb(32))}.bytes(), Options{Name: "neighbour"})
	var work []time.Duration
	deliver := func() {
		begin := time.Now()
		if r := neighbour.Deliver(context.Background(), batchOf(16, strings.Repeat("x", 400))); r.Outcome != abi.OK {
			t.Errorf("neighbour: %v %q", r.Outcome, r.Detail)
		}
		work = append(work, time.Since(begin))
	}
	stop := make(chan struct{})
	var beside sync.WaitGroup
	run := func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				deliver()
			}
		}
	}

	took := make([][]time.Duration, len(zoo))
	round := func() {
		for i, c := range zoo {
			begin := time.Now()
			r := sinks[i].Deliver(context.Background(), batchOf(c.events, "x"))
			took[i] = append(took[i], time.Since(begin))
			if r.Outcome != c.want || !strings.Contains(r.Detail, c.detail) {
				t.Fatalf("%s: %v %q, want %v with %q", c.name, r.Outcome, r.Detail, c.want, c.detail)
			}
			if c.name == "inbox-wraps" {
				continue // it takes no batch at all
			}
			if r := sinks[i].Deliver(context.Background(), batchOf(3, "x")); r.Outcome != abi.OK {
				t.Fatalf("%s, the next batch: %v %q", c.name, r.Outcome, r.Detail)
			}
		}
	}
	load := func() {
		for name, c := range refused {
			if _, err := Open(context.Background(), c.wasm, Options{Name: name, Log: quiet.logger()}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%s: %v, want %q", name, err, c.want)
			}
		}
		s, err := Open(context.Background(), wide, Options{Name: "wide"})
		if err != nil {
			t.Fatalf("10,000 exports: %v", err)
		}
		if r := s.Deliver(context.Background(), batchOf(3, "x")); r.Outcome != abi.OK {
			t.Errorf("10,000 exports: %v %q", r.Outcome, r.Detail)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	for range 20 {
		round()
		deliver()
	}
	load()
	goroutines, heap, mapped := runtime.NumGoroutine(), heapBytes(), mappedBytes(t)
	for i := range took {
		took[i] = took[i][:0]
	}
	work = make([]time.Duration, 0, 1<<18)
	beside.Go(run)
	for n := range rounds {
		round()
		if n%(rounds/10) == 0 { // these take longer
			load()
		}
	}
	close(stop)
	beside.Wait()

	for i, c := range zoo {
		slices.Sort(took[i])
		t.Logf("%-17s %-8v median %10v, longest %10v", c.name, c.want, took[i][rounds/2], took[i][rounds-1])
		if took[i][rounds-1] > 5*time.Second {
			t.Errorf("%s: ended after %v", c.name, took[i][rounds-1])
		}
	}
	slices.Sort(work)
	t.Logf("neighbour: %d batches, median %v, longest %v", len(work), work[len(work)/2], work[len(work)-1])
	if len(work) < rounds || work[len(work)/2] > 20*time.Millisecond {
		t.Errorf("the neighbour was disturbed: %d batches, median %v", len(work), work[len(work)/2])
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	work = nil
	if h := heapBytes(); h > heap+8<<20 {
		t.Errorf("heap of %d bytes, %d before", h, heap)
	}
	if m := mappedBytes(t); m > mapped+1<<30 {
		t.Errorf("%d bytes mapped, %d before", m, mapped)
	}
}

// The zoo's log lines are bounded, and so is what is said of them.
func TestZooLogLines(t *testing.T) {
	var lines countingHandler
	s := openGuest(t, zooGuest(t, "log-lines", plainManifest), Options{Log: lines.logger()})
	lines.reset()
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	if n, _ := lines.count(); n != DefaultLogLines+1 || !lines.has("raise=log_lines in [sink.limits]") {
		t.Errorf("%d lines", n)
	}
}

// While a guest spins for its whole deadline the collector stops the world
// within 50 ms.
func TestZooDeadline(t *testing.T) {
	for _, name := range []string{"tight-loop", "recursion", "memory-fill", "late"} {
		t.Run(name, func(t *testing.T) {
			const deadline = 500 * time.Millisecond
			var lines countingHandler
			log := hookLogger(&lines, func() { <-time.After(deadline + 50*time.Millisecond) })
			s := openGuest(t, zooGuest(t, name, plainManifest), Options{Deadline: deadline, Log: log})
			ended := make(chan time.Duration)
			begin := time.Now()
			go func() {
				if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Deadline || !strings.Contains(r.Detail, "raise deadline") {
					t.Errorf("%v %q", r.Outcome, r.Detail)
				}
				ended <- time.Since(begin)
			}()
			var collections []time.Duration
			for done := false; !done; {
				begin := time.Now()
				runtime.GC()
				collections = append(collections, time.Since(begin))
				select {
				case took := <-ended:
					if done = true; took < deadline || took > deadline+time.Second {
						t.Errorf("ended after %v", took)
					}
				case <-time.After(5 * time.Millisecond):
				}
			}
			slices.Sort(collections)
			median := collections[len(collections)/2]
			t.Logf("%d collections, median %v, longest %v", len(collections), median, collections[len(collections)-1])
			if median > 250*time.Millisecond {
				t.Errorf("a collection took %v", median)
			}
			if r := s.Deliver(context.Background(), batchOf(3, "x")); r.Outcome != abi.OK {
				t.Errorf("%v %q", r.Outcome, r.Detail)
			}
		})
	}
}
