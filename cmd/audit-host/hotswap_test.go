//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/plugins/bundled"
)

// another is a bundled plugin that differs from itself by a note, and so by its
// digest: a section of no meaning at its end. Without a note it is the plugin.
func another(t *testing.T, name, note string) []byte {
	t.Helper()
	wasm, err := bundled.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	if note == "" {
		return wasm
	}
	text := append([]byte{4}, "note"+note...)
	return append(append(bytes.Clone(wasm), 0, byte(len(text))), text...)
}

// tiny is the smallest plugin that stores everything, nowhere, and compiles at
// once: audit_reserve gives 1024, audit_open answers OK, and audit_deliver OK with
// the number of events that stands in the frame.
func tiny(t *testing.T, version string) []byte {
	t.Helper()
	wasm := []byte("\x00asm\x01\x00\x00\x00" +
		"\x01\x0e\x03\x60\x00\x00\x60\x01\x7f\x01\x7f\x60\x01\x7f\x01\x7e" + // types: () (), (i32) i32, (i32) i64
		"\x03\x05\x04\x00\x01\x02\x02" + // their functions
		"\x05\x04\x01\x00\x80\x02" + // 16 MiB
		"\x07\x45\x05\x06memory\x02\x00\x0baudit_abi_1\x00\x00\x0daudit_reserve\x00\x01\x0aaudit_open\x00\x02\x0daudit_deliver\x00\x03" +
		"\x0a\x19\x04\x02\x00\x0b\x05\x00\x41\x80\x08\x0b\x04\x00\x42\x00\x0b\x09\x00\x41\x80\x08\x28\x02\x08\xad\x0b")
	wasm, err := manifest.Append(wasm, fmt.Appendf(nil, `{"name": "tiny", "version": %q, "idempotent": true}`, version))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// put replaces a file as a careful person does: by another one.
func put(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// flow is what the clients of a daemon were told.
type flow struct {
	mu       sync.Mutex
	ids      []string // accepted
	slowest  time.Duration
	failures []string
}

// client posts events of its own until end is closed, one post every so often, or
// as fast as they are answered. Each waits for the answer to the one before.
func (f *flow) client(url, name, ack string, events int, every time.Duration, end <-chan struct{}) {
	closed := make(chan time.Time)
	close(closed)
	var tick <-chan time.Time = closed
	if every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for n := 0; ; {
		select {
		case <-end:
			return
		case <-tick:
		}
		var ids []string
		var body strings.Builder
		for range events {
			id := fmt.Sprintf("%s-%07d", name, n)
			n++
			ids = append(ids, id)
			body.WriteString(refusal(id))
		}
		began := time.Now()
		r, err := http.Post(url+"/v1/events?ack="+ack, "application/x-ndjson", strings.NewReader(body.String()))
		failure := ""
		if err != nil {
			failure = err.Error()
		} else {
			text, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if r.StatusCode != http.StatusOK {
				failure = r.Status + " " + string(text)
			}
		}
		took := time.Since(began)
		f.mu.Lock()
		if f.slowest = max(f.slowest, took); failure == "" {
			f.ids = append(f.ids, ids...)
		} else {
			f.failures = append(f.failures, failure)
		}
		f.mu.Unlock()
	}
}

// inOrder wants a list that has each of the accepted ids once, those of each
// client in their order.
func (f *flow) inOrder(t *testing.T, where string, got []string) {
	t.Helper()
	if len(got) != len(f.ids) {
		t.Errorf("%s: %d events, %d were accepted", where, len(got), len(f.ids))
	}
	seen, last := map[string]bool{}, map[string]int{}
	for _, id := range got {
		if seen[id] {
			t.Fatalf("%s: %s is there twice", where, id)
		}
		seen[id] = true
		client, number, _ := strings.Cut(id, "-")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("%s: %s was never sent", where, id)
		}
		if next, ok := last[client]; ok && n <= next {
			t.Fatalf("%s: %s comes after number %d of the same client", where, id, next)
		}
		last[client] = n
	}
	for _, id := range f.ids {
		if !seen[id] {
			t.Fatalf("%s: %s was accepted and is lost", where, id)
		}
	}
}

// linesOf are the ids in a file of JSON Lines.
func linesOf(t *testing.T, name string) (ids []string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var e struct{ ID string }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		ids = append(ids, e.ID)
	}
	return ids
}

// pauses are how long the exchanges took that a log tells of, sorted.
func pauses(t *testing.T, log string) (list []time.Duration) {
	t.Helper()
	for _, m := range regexp.MustCompile(`a new plugin has taken over.* pause=(\S+)`).FindAllStringSubmatch(log, -1) {
		d, err := time.ParseDuration(m[1])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, d.Round(100*time.Microsecond))
	}
	slices.Sort(list)
	return list
}

// Twenty exchanges of the ledger's plugin, and five of the one that appends to a
// file, while clients send some 5,000 events a second: nothing is lost or there twice,
// the order of each client is kept, nobody waits long, and the chain verifies.
func TestTwentySwaps(t *testing.T) {
	const swaps, patience = 20, 3 * time.Second
	config := home(t, append(withSink("name = \"file\"\nplugin = \"sink-file\"\ngrant.append.path = \"events.jsonl\"\nlimits.log_lines = 100"), `plugin = "sink-sqlite"`, `plugin = "ledger.wasm"`)...)
	dir := filepath.Dir(config)
	deploy := func(n int) (exchanged int) {
		put(t, filepath.Join(dir, "ledger.wasm"), another(t, "sink-sqlite", []string{"", "more"}[n%2]))
		if n == 0 || n%4 != 0 {
			return 1
		}
		edit(t, config, fmt.Sprint("limits.log_lines = ", 96+n), fmt.Sprint("limits.log_lines = ", 100+n))
		return 2
	}
	deploy(0)
	d := spawn(t, config)
	reachable(t, config)
	f, end := &flow{}, make(chan struct{})
	began := time.Now()
	var clients sync.WaitGroup
	for i := range 3 {
		clients.Go(func() { f.client(d.url, fmt.Sprint("d", i), "durable", 40, 20*time.Millisecond, end) })
	}
	clients.Go(func() { f.client(d.url, "l", "ledger", 10, 0, end) })
	for n := range swaps {
		want := deploy(n + 1)
		if out := must(t, 0, "", "reload", "-c", config).stdout; strings.Count(out, "has taken over from ") != want {
			t.Fatalf("exchange %d: %s", n, out)
		}
	}
	close(end)
	clients.Wait()
	rate := float64(len(f.ids)) / time.Since(began).Seconds()
	t.Logf("%d reloads in %v, %.0f events a second, slowest answer %v", swaps, time.Since(began).Round(time.Millisecond), rate, f.slowest.Round(time.Millisecond))
	if f.failures != nil || f.slowest > patience {
		t.Errorf("slowest answer %v; %d failures, the first %.200q", f.slowest, len(f.failures), append(f.failures, "")[0])
	}
	m := d.scrape(t)
	for sink, exchanged := range map[string]float64{"ledger": swaps, "file": swaps / 4} {
		for name, want := range map[string]float64{"plugin_swaps_total": exchanged, "plugin_rollbacks_total": 0, "lost": 0, "dlq_landed_total": 0, "drainer_panics_total": 0} {
			if got := m[fmt.Sprintf("audit_host_%s{sink=%q}", name, sink)]; got != want {
				t.Errorf("%s of sink %s is %v, want %v", name, sink, got, want)
			}
		}
	}
	d.signal(t, syscall.SIGTERM)
	if st := d.status(); !st.Exited() || st.ExitStatus() != 0 {
		t.Fatalf("status %v", st)
	}
	t.Logf("the sinks stood still for %v", pauses(t, d.log.String()))
	f.inOrder(t, "the ledger", ids(t, config))
	f.inOrder(t, "the file", linesOf(t, filepath.Join(dir, "events.jsonl")))
	if v := verified(t, config); v.Rows != uint64(len(f.ids)) || v.Signatures.Valid != v.Rows {
		t.Errorf("%+v", v)
	}
}

// SIGHUP while the ledger is locked by somebody else: the new plugin takes over
// between two attempts, and all that has gathered lands when the lock is gone. A
// configuration that is not valid changes nothing, and the log has every problem.
func TestHangup(t *testing.T) {
	config := home(t, "#busy_timeout = \"1s\"", "busy_timeout = \"20ms\"")
	d := spawn(t, config)
	reachable(t, config)
	d.post(t, "ledger", refusal("first"))
	good, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, config, `#level = "info"`, `level = "loud"`, "[queue]", "[queue]\nbackhand = 3")
	d.signal(t, syscall.SIGHUP)
	line := d.awaitLine(t, "reload refused, nothing was changed")
	if !strings.Contains(line, "level must be one of") || !strings.Contains(line, "unknown key") || !strings.Contains(line, "level=ERROR") {
		t.Errorf("%s", line)
	}
	release := lockLedger(t, config)
	d.post(t, "durable", several("locked", 100))
	d.awaitLine(t, "the ledger takes nothing")
	put(t, config, bytes.Replace(good, []byte(`#max_sql = "64KiB"`), []byte(`max_sql = "65KiB"`), 1))
	d.signal(t, syscall.SIGHUP)
	// One more while it is under way is not lost, and does no harm. Sent before the
	// first was taken, the system would make one of the two.
	d.awaitLine(t, "SIGHUP: the configuration is read anew")
	d.signal(t, syscall.SIGHUP)
	d.awaitLine(t, "a new plugin has taken over")
	d.awaitLine(t, "exchanged=0")
	if m := d.scrape(t); m[`audit_host_pending{sink="ledger"}`] != 100 || m[`audit_host_plugin_swaps_total{sink="ledger"}`] != 1 {
		t.Errorf("behind the lock: %v", m)
	}
	release()
	if a := d.post(t, "ledger", refusal("last")); a.Events[0].Sequence != 102 {
		t.Errorf("%+v", a)
	}
	d.signal(t, syscall.SIGTERM)
	if st := d.status(); !st.Exited() || st.ExitStatus() != 0 {
		t.Fatalf("status %v", st)
	}
	if v := verified(t, config); v.Rows != 102 {
		t.Errorf("%+v", v)
	}
}

// A renewed lock is followed by itself. A plugin that nobody has locked is not, and
// without a lock nothing is looked at.
func TestRenewedLock(t *testing.T) {
	config := home(t, append(withSink("name = \"tiny\"\nplugin = \"tiny.wasm\""), "#watch = \"5s\"", "watch = \"100ms\"")...)
	dir := filepath.Dir(config)
	plugin := filepath.Join(dir, "tiny.wasm")
	put(t, plugin, tiny(t, "1"))
	must(t, 0, "", "plugin", "lock", "-c", config)
	d := spawn(t, config)
	reachable(t, config)
	put(t, plugin, tiny(t, "2"))
	if line := d.awaitLine(t, "reload refused, nothing was changed"); !strings.Contains(line, "sink tiny differs") || !strings.Contains(line, "audit-host plugin lock") {
		t.Errorf("%s", line)
	}
	must(t, 0, "", "plugin", "lock", "-c", config)
	d.awaitLine(t, "a new plugin has taken over")
	if s := sinksOf(t, config)["tiny"]; s.Swaps != 1 || s.Version != "2" {
		t.Errorf("%+v", s)
	}
	// Together, as a tool does that rolls out: the lock first, then the plugin.
	put(t, plugin, tiny(t, "3"))
	must(t, 0, "", "plugin", "lock", "-c", config)
	d.awaitLine(t, "a new plugin has taken over")
	if err := os.Remove(filepath.Join(dir, "audit.lock")); err != nil {
		t.Fatal(err)
	}
	put(t, plugin, tiny(t, "4"))
	if a := d.post(t, "ledger", refusal("e")); a.Accepted != 1 {
		t.Errorf("%+v", a)
	}
	d.signal(t, syscall.SIGTERM)
	if st := d.status(); !st.Exited() || st.ExitStatus() != 0 {
		t.Fatalf("status %v", st)
	}
	if n := strings.Count(d.log.String(), "a new plugin has taken over"); n != 2 {
		t.Errorf("%d exchanges", n)
	}
}

// Stopped or killed at any point of a reload, the daemon has what it acknowledged,
// once, and the next start runs what the configuration says.
func TestEndedWhileReloading(t *testing.T) {
	config := home(t, `plugin = "sink-sqlite"`, `plugin = "ledger.wasm"`)
	plugin := filepath.Join(filepath.Dir(config), "ledger.wasm")
	f := &flow{}
	put(t, plugin, another(t, "sink-sqlite", ""))
	d := spawn(t, config)
	reachable(t, config)
	digests := map[bool]string{false: sinksOf(t, config)["ledger"].SHA256}
	for round, ending := range []struct {
		signal syscall.Signal
		wait   string // for this line, after the SIGHUP
	}{
		{syscall.SIGTERM, "SIGHUP"}, {syscall.SIGKILL, "SIGHUP"}, {syscall.SIGTERM, "a new plugin has taken over"}, {syscall.SIGKILL, "a new plugin has taken over"},
	} {
		end := make(chan struct{})
		var clients sync.WaitGroup
		for i := range 2 {
			clients.Go(func() { f.client(d.url, fmt.Sprintf("r%dc%d", round, i), "durable", 20, 0, end) })
		}
		odd := round%2 == 0
		note := ""
		if odd {
			note = "more"
		}
		put(t, plugin, another(t, "sink-sqlite", note))
		d.signal(t, syscall.SIGHUP)
		d.await(t, ending.wait)
		d.signal(t, ending.signal)
		st := d.status()
		close(end)
		clients.Wait()
		if ending.signal == syscall.SIGTERM && (!st.Exited() || st.ExitStatus() != 0) {
			t.Fatalf("round %d: status %v", round, st)
		}
		d = spawn(t, config)
		reachable(t, config)
		if got := sinksOf(t, config)["ledger"].SHA256; digests[odd] == "" {
			digests[odd] = got
		} else if got != digests[odd] {
			t.Errorf("round %d: it runs %s, not %s", round, got, digests[odd])
		}
	}
	if digests[true] == digests[false] {
		t.Error("both plugins are the same")
	}
	d.post(t, "ledger", refusal("end-1"))
	d.signal(t, syscall.SIGTERM)
	if st := d.status(); !st.Exited() || st.ExitStatus() != 0 {
		t.Fatalf("status %v", st)
	}
	// What was sent and not answered may be there or not; what was answered is.
	has := map[string]bool{}
	for _, id := range ids(t, config) {
		if has[id] {
			t.Fatalf("%s is there twice", id)
		}
		has[id] = true
	}
	for _, id := range f.ids {
		if !has[id] {
			t.Fatalf("%s was acknowledged and is lost", id)
		}
	}
	if v := verified(t, config); v.Rows != uint64(len(has)) || len(f.ids) == 0 {
		t.Errorf("%+v, %d acknowledged", v, len(f.ids))
	}
}
