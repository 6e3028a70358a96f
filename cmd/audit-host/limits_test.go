package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi/manifest"
)

// zooPlugin writes a guest of host/testdata/zoo with a manifest to a file.
func zooPlugin(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "host", "testdata", "zoo", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	wasm, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	if wasm, err = manifest.Append(wasm, []byte(`{"name":"hostile","version":"1","idempotent":true}`)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name+".wasm")
	if err := os.WriteFile(path, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// median and longest of some durations.
func spread(took []time.Duration) (median, longest time.Duration) {
	slices.Sort(took)
	return took[len(took)/2], took[len(took)-1]
}

// While a guest spins for its whole deadline, the daemon answers, Go's
// collector runs, and events land in the ledger.
func TestSpinningPluginDisturbsNobody(t *testing.T) {
	const deadline = 2 * time.Second
	config := home(t)
	appendTo(t, config, `
[[sink]]
name = "spinner"
plugin = '`+zooPlugin(t, "tight-loop")+`'
required = false
deadline = "2s"
max_restarts = 100
batch_events = 1
`)
	d := serve(t, config)
	spins := func() float64 {
		return d.scrape(t)[`audit_host_plugin_outcomes_total{outcome="DEADLINE",sink="spinner"}`]
	}
	d.post(t, "durable", refusal("spin"))
	var healthy, collected, landed []time.Duration
	measure := func(list *[]time.Duration, f func()) {
		begin := time.Now()
		f()
		*list = append(*list, time.Since(begin))
	}
	// The spinner has its event before this many are through: it gets one at a
	// time, and each spins until its deadline.
	for begin, n := time.Now(), 0; time.Since(begin) < deadline; n++ {
		measure(&healthy, func() { d.request(t, "GET", "/-/healthy", "", 200) })
		measure(&collected, runtime.GC)
		measure(&landed, func() { d.post(t, "ledger", refusal("beside-"+time.Now().Format(time.RFC3339Nano))) })
	}
	for spins() == 0 {
		runtime.Gosched()
	}
	for _, m := range []struct {
		what string
		took []time.Duration
		most time.Duration
	}{{"/-/healthy", healthy, 100 * time.Millisecond}, {"runtime.GC", collected, 250 * time.Millisecond}, {"an event into the ledger", landed, time.Second}} {
		median, longest := spread(m.took)
		t.Logf("%s beside a spinning plugin, %d times: median %v, longest %v", m.what, len(m.took), median, longest)
		// The median: this machine has other work as well. A world that can't
		// be stopped would show in each.
		if len(m.took) < 5 || median > m.most {
			t.Errorf("%s: %d times, median %v, longest %v", m.what, len(m.took), median, longest)
		}
	}
	if log := d.stop(t, 0); !strings.Contains(log, `limit=deadline value=2s raise="deadline of this sink"`) || !strings.Contains(log, "outcome=DEADLINE in=audit_deliver bundle=") {
		t.Error("the log does not name the key and the bundle")
	}
}

// A bit flipped in every entry of the compilation cache in turn: a process that
// meets it starts, runs what it compiled afresh, says so, and leaves the entry
// mended.
func TestFlippedBitInEachCacheEntry(t *testing.T) {
	t.Parallel()
	config := home(t)
	folder := filepath.Join(filepath.Dir(config), "state", "cache")
	if err := os.RemoveAll(folder); err != nil { // it has entries that nobody uses here
		t.Fatal(err)
	}
	rows := uint64(0)
	ingest := func() string {
		t.Helper()
		rows++
		c := exec.Command(os.Getenv(binary), "ingest", "-c", config, "-")
		c.Stdin = strings.NewReader(refusal(fmt.Sprint("event-", rows)))
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	const noticed = "entry of the compilation cache deleted"
	ingest()
	entries := cacheEntries(t, folder)
	if len(entries) != 2 { // SQLite and the sink
		t.Fatalf("%q", entries)
	}
	for i, path := range entries {
		for round := range 3 {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/4*(round+1)+i] ^= 1 << (i + round)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if out := ingest(); strings.Count(out, noticed) != 1 {
				t.Errorf("damage was not noticed once:\n%s", out)
			}
			if after, err := os.ReadFile(path); err != nil || bytes.Equal(after, b) {
				t.Errorf("%s was not mended: %v", path, err)
			}
		}
	}
	if out := ingest(); strings.Contains(out, noticed) {
		t.Errorf("damage without damage:\n%s", out)
	}
	if v := verified(t, config); v.Rows != rows {
		t.Errorf("%d rows, want %d", v.Rows, rows)
	}
}

// cacheEntries are the files of compiled code.
func cacheEntries(t *testing.T, folder string) []string {
	t.Helper()
	var list []string
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() < 1<<16 {
			continue // the key
		}
		list = append(list, filepath.Join(folder, e.Name()))
	}
	return list
}

// appendTo adds text to a file.
func appendTo(t *testing.T, path, text string) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(old, text...), 0o600); err != nil {
		t.Fatal(err)
	}
}
