package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/queue"
)

// rig is a pipeline whose configuration is a file.
type rig struct {
	*Pipeline
	t    *testing.T
	text string
}

func reloadable(t *testing.T, text string, prepare ...func(*config.Config)) *rig {
	t.Helper()
	cfg := parse(t, text)
	for _, f := range prepare {
		f(cfg)
	}
	write(t, cfg, filepath.Base(cfg.File), text, 0o600)
	return &rig{open(t, cfg, false), t, text}
}

// edit changes the configuration on disk.
func (g *rig) edit(old, new string) {
	g.t.Helper()
	if !strings.Contains(g.text, old) {
		g.t.Fatalf("no %q in the configuration", old)
	}
	g.text = strings.Replace(g.text, old, new, 1)
	write(g.t, g.cfg, filepath.Base(g.cfg.File), g.text, 0o600)
}

func (g *rig) reload() Reloaded {
	g.t.Helper()
	r, err := g.Reload(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// deliver submits an event and waits until every required sink has it.
func (g *rig) deliver(agent string) {
	g.t.Helper()
	if _, err := g.Recorder.Submit(g.t.Context(), refusal(g.t, agent)); err != nil {
		g.t.Fatal(err)
	}
	if _, err := g.Recorder.DrainPending(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// What a plugin does in its trial is of no consequence: no request leaves, no line
// is appended, no row inserted, and no secret is shown to it. Afterwards all of it
// is done, once. A secret that was rotated is a change, and a file that grew is
// none.
func TestTrialTouchesNothing(t *testing.T) {
	var mu sync.Mutex
	var requests []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		requests = append(requests, fmt.Sprint(r.Header.Get("Authorization"), " ", bytes.Count(body, []byte("\n"))))
	}))
	defer server.Close()
	g := reloadable(t, sample+"limits.log_lines = 100\n"+strings.Replace(collectorSink(t, server, "/in"), "required = false", "limits.log_lines = 101", 1)+`
[[sink]]
name = "file"
plugin = "sink-file"
limits.log_lines = 102
grant.append.path = "events.jsonl"
`, func(cfg *config.Config) { write(t, cfg, "siem.token", "the-first-secret\n", 0o600) })
	seen := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(requests)
	}
	lines := func() int {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(g.cfg.File), "events.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(text, []byte("\n"))
	}
	g.deliver("one")
	if r := g.reload(); len(r.Sinks) != 0 || !r.Followed() {
		t.Errorf("%+v", r)
	}
	for _, n := range []string{"100", "101", "102"} {
		g.edit("limits.log_lines = "+n, "limits.log_lines = 2"+n)
	}
	if r := g.reload(); len(r.Sinks) != 3 || !r.Followed() || len(seen()) != 1 || lines() != 1 || g.Ledger().Head.Sequence > 1 {
		t.Errorf("%+v; requests %q, %d lines", r, seen(), lines())
	}
	g.deliver("two")
	write(t, g.cfg, "siem.token", "the-second-secret\n", 0o600)
	if r := g.reload(); len(r.Sinks) != 1 || r.Sinks[0].Sink != "siem" || r.Sinks[0].Done != reloadExchanged {
		t.Errorf("%+v", r)
	}
	g.deliver("three")
	if e := g.Egress(); len(e) != 1 || e[0].Requests != 3 {
		t.Errorf("the counters of three plugins: %+v", e)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(g.cfg.File), "siem.token")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "sink siem: grant http: secret token") {
		t.Errorf("%v", err)
	}
	if r := closeAll(t, g.Pipeline); r.Appended != 3 || r.Remained != 0 {
		t.Errorf("%+v", r)
	}
	want := []string{"Bearer the-first-secret 1", "Bearer the-first-secret 1", "Bearer the-second-secret 1"}
	if !slices.Equal(seen(), want) || lines() != 3 {
		t.Errorf("requests %q, %d lines", seen(), lines())
	}
	if _, err := g.Reload(t.Context()); !errors.Is(err, errClosing) {
		t.Errorf("after the end: %v", err)
	}
}

// small builds the smallest plugin that stores everything, nowhere. flush, open
// and capabilities are what it answers to and asks for.
func small(t *testing.T, version string, open, flush abi.Outcome, capabilities string) []byte {
	t.Helper()
	section := func(id byte, content string) string { return string([]byte{id, byte(len(content))}) + content }
	body := func(code string) string { return string([]byte{byte(len(code) + 2), 0}) + code + "\x0b" }
	export := func(name string, kind, index byte) string {
		return string([]byte{byte(len(name))}) + name + string([]byte{kind, index})
	}
	answer := func(o abi.Outcome) string { // i64.const outcome, i64.const 32, i64.shl
		return string([]byte{0x42, byte(o), 0x42, 32, 0x86})
	}
	wasm := "\x00asm\x01\x00\x00\x00" +
		section(1, "\x04\x60\x00\x00\x60\x01\x7f\x01\x7f\x60\x01\x7f\x01\x7e\x60\x00\x01\x7e") +
		section(3, "\x05\x00\x01\x02\x02\x03") +
		section(5, "\x01\x00\x80\x02") +
		section(7, "\x06"+export("memory", 2, 0)+export(abi.ExportMarker, 0, 0)+export(abi.ExportReserve, 0, 1)+
			export(abi.ExportOpen, 0, 2)+export(abi.ExportDeliver, 0, 3)+export(abi.ExportFlush, 0, 4)) +
		// audit_reserve gives 1024, audit_deliver OK and the number of events in the frame.
		section(10, "\x05"+body("")+body("\x41\x80\x08")+body(answer(open))+body("\x41\x80\x08\x28\x02\x08\xad")+body(answer(flush)))
	out, err := manifest.Append([]byte(wasm), fmt.Appendf(nil, `{"name": "small", "version": %q, "capabilities": [%s], "idempotent": true}`, version, capabilities))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const withSmall = sample + `
[[sink]]
name = "small"
plugin = "small.wasm"
grant.append.path = "lines"
`

// Whatever goes wrong when one plugin hands over to another: the old one goes on,
// and the next reload may succeed.
func TestExchangeFails(t *testing.T) {
	put := func(cfg *config.Config, wasm []byte) { write(t, cfg, "small.wasm", string(wasm), 0o600) }
	g := reloadable(t, withSmall, func(cfg *config.Config) { put(cfg, small(t, "1", abi.OK, abi.Busy, `"append"`)) })
	state := func() PluginState { return g.PluginStates()[1] }

	// The old one holds something back and can't make it durable.
	put(g.cfg, small(t, "2", abi.OK, abi.OK, `"append"`))
	r := g.reload()
	if len(r.Sinks) != 1 || r.Sinks[0].Done != reloadKept || r.Followed() || !strings.Contains(r.Sinks[0].Error, "does not make durable what it holds back, and stays: BUSY") {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.String(), "sink small: not exchanged: ") || state().Version != "1" || state().Swaps != 0 {
		t.Errorf("%s%+v", r.String(), state())
	}
	g.deliver("one")
	if _, err := g.Close(t.Context()); err == nil { // it says the same at the end
		t.Error("closed")
	}

	g = reloadable(t, withSmall, func(cfg *config.Config) { put(cfg, small(t, "1", abi.OK, abi.OK, `"append"`)) })
	// The new one can't have what it is granted: its trial has another folder.
	g.edit(`"lines"`, `"missing/lines"`)
	if r := g.reload(); len(r.Sinks) != 1 || r.Sinks[0].Done != reloadKept || !strings.Contains(r.Sinks[0].Error, "grant append") {
		t.Errorf("%+v", r)
	}
	g.deliver("two")
	if err := os.Mkdir(filepath.Join(filepath.Dir(g.cfg.File), "missing"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := g.reload(); !r.Followed() || len(r.Sinks) != 1 || state().Swaps != 1 {
		t.Errorf("%+v", r)
	}
	g.deliver("three")

	// It asks for more than it is granted, or refuses: it never gets that far.
	for want, wasm := range map[string][]byte{
		"the plugin asks for more than it is granted": small(t, "3", abi.OK, abi.OK, `"append", "kv"`),
		"refuses its configuration":                   small(t, "3", abi.BadConfig, abi.OK, `"append"`),
	} {
		put(g.cfg, wasm)
		if _, err := g.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
	}
	// Not ready is no fault: the first batch opens it again.
	put(g.cfg, small(t, "4", abi.Busy, abi.OK, `"append"`))
	if r := g.reload(); !r.Followed() || state().Version != "4" || !state().Probation {
		t.Errorf("%+v, %+v", r, state())
	}
	// It can be followed by another one while it is on probation.
	put(g.cfg, small(t, "5", abi.OK, abi.OK, `"append"`))
	if r := g.reload(); !r.Followed() || state().Version != "5" || state().Swaps != 3 {
		t.Errorf("%+v, %+v", r, state())
	}
	g.deliver("four")
	closeAll(t, g.Pipeline)
	if c := g.ReloadCounts(); c != (ReloadCounts{Followed: 3, Partial: 1, Refused: 2}) {
		t.Errorf("%+v", c)
	}
}

// A probation ends when so many batches were answered and so much time has gone.
func TestProbationEnds(t *testing.T) {
	put := func(cfg *config.Config, version string) {
		write(t, cfg, "small.wasm", string(small(t, version, abi.OK, abi.OK, `"append"`)), 0o600)
	}
	for _, c := range []struct {
		config    string
		delivered int
		want      bool
	}{
		{"probation_batches = 0\nprobation_time = \"0s\"", 0, false},
		{"probation_batches = 2\nprobation_time = \"0s\"", 1, true},
		{"probation_batches = 2\nprobation_time = \"0s\"", 2, false},
		{"probation_batches = 2\nprobation_time = \"1h\"", 3, true},
	} {
		g := reloadable(t, "[reload]\n"+c.config+withSmall, func(cfg *config.Config) { put(cfg, "1") })
		put(g.cfg, "2")
		g.reload()
		for range c.delivered {
			g.deliver("x")
		}
		if s := g.PluginStates()[1]; s.Probation != c.want || s.Version != "2" {
			t.Errorf("%s, %d batches: %+v", c.config, c.delivered, s)
		}
		closeAll(t, g.Pipeline)
	}
}

// Another state directory needs a restart: until then the stores of new plugins lie
// in the old one.
func TestStateDirectoryStays(t *testing.T) {
	put := func(cfg *config.Config, version string) {
		write(t, cfg, "small.wasm", string(small(t, version, abi.OK, abi.OK, `"kv"`)), 0o600)
	}
	g := reloadable(t, strings.Replace(withSmall, `grant.append.path = "lines"`, "grant.kv = {}", 1), func(cfg *config.Config) { put(cfg, "1") })
	put(g.cfg, "2")
	g.edit("\n[http]", "state_dir = \"elsewhere\"\n[http]")
	r := g.reload()
	if len(r.Sinks) != 1 || r.Sinks[0].Done != reloadExchanged || len(r.Restart) != 3 || !strings.HasPrefix(r.Restart[0], "state_dir: ") {
		t.Errorf("%+v", r)
	}
	g.deliver("x")
	closeAll(t, g.Pipeline)
	if _, err := os.Stat(filepath.Join(filepath.Dir(g.cfg.File), "elsewhere")); !os.IsNotExist(err) {
		t.Errorf("the other directory was used: %v", err)
	}
	if list, err := os.ReadDir(filepath.Dir(g.cfg.KVPath("small"))); err != nil || len(list) == 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// A caller that does not wait ends no reload, and closing waits for it.
func TestReloadIsNotWaitedFor(t *testing.T) {
	put := func(cfg *config.Config, version string) {
		write(t, cfg, "small.wasm", string(small(t, version, abi.OK, abi.OK, `"append"`)), 0o600)
	}
	g := reloadable(t, withSmall, func(cfg *config.Config) { put(cfg, "1") })
	put(g.cfg, "2")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if _, err := g.Reload(gone); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	g.deliver("one")
	if _, err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if c := g.ReloadCounts(); c.Partial != 0 || c.Followed+c.Refused > 3 {
		t.Errorf("%+v", c)
	}
}

// A trial gets the batch that ended the plugin before, or the next one that comes,
// or none; never the drainer's own memory.
func TestSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &seat{turn: make(chan struct{}, 1)}
		if b := s.sample(t.Context()); b != nil {
			t.Errorf("%+v", b)
		}
		mine := &abi.Batch{ID: 7, Attempt: 3, Events: make([]abi.Event, 2*sampleEvents)}
		for i := range mine.Events {
			mine.Events[i] = abi.Event{ID: fmt.Sprint(i), Payload: []byte("payload")}
		}
		got := make(chan *abi.Batch)
		go func() { got <- s.sample(t.Context()) }()
		synctest.Wait()
		s.show(mine)
		b := <-got
		mine.Events[0].Payload[0] = 'X'
		if b == nil || b.ID != 7 || b.Attempt != 1 || len(b.Events) != sampleEvents || string(b.Events[0].Payload) != "payload" {
			t.Errorf("%+v", b)
		}
		s.show(mine) // nobody wants it
		s.blame(mine)
		if b := s.sample(t.Context()); b == nil || b.Events[0].ID != "0" {
			t.Errorf("%+v", b)
		}
		s.blame(nil)
		begin := time.Now()
		if b := s.sample(t.Context()); b != nil || time.Since(begin) != sampleWait {
			t.Errorf("%+v after %v", b, time.Since(begin))
		}
	})
	large := &abi.Batch{Events: []abi.Event{{Payload: make([]byte, 2*sampleBytes)}, {ID: "b"}}}
	if c := cloned(large); len(c.Events) != 1 {
		t.Errorf("%d events", len(c.Events))
	}
}

// After the turn is over nothing is delivered or exchanged.
func TestSeatIsClosed(t *testing.T) {
	g := reloadable(t, sample)
	s := g.seats[0]
	closeAll(t, g.Pipeline)
	if err := s.exchange(t.Context(), &member{}, config.Reload{}); !errors.Is(err, errClosing) {
		t.Errorf("%v", err)
	}
	if err := s.adjust(t.Context(), config.Sink{}); !errors.Is(err, errClosing) {
		t.Errorf("%v", err)
	}
	s.turn <- struct{}{} // as a call would that hangs
	done, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if r := s.Deliver(done, &abi.Batch{}); r.Outcome != abi.Deadline {
		t.Errorf("%+v", r)
	}
	if err := s.Close(done); err == nil || !strings.Contains(err.Error(), "still under way") {
		t.Errorf("%v", err)
	}
	if err := g.Recorder.Retune("nobody", queue.Tuning{}); !errors.Is(err, queue.ErrNoSink) {
		t.Errorf("%v", err)
	}
}
