package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
)

// mock is a pair for home: a required sink-mock that does these things, and other
// lines of the configuration.
func mock(rules string, more ...string) []string {
	return withSink("name = \"mock\"\nplugin = \"sink-mock\"\nmax_restarts = 0\nconfig.rules = [" + rules + "]\n" + strings.Join(more, "\n"))
}

// reloaded asks for a reload and wants that exit code.
func reloaded(t *testing.T, config string, code int) (done pipeline.Reloaded) {
	t.Helper()
	decode(t, []byte(must(t, code, "", "reload", "-c", config, "--json").stdout), &done)
	return done
}

// reachable waits until commands reach the daemon, whose socket opens a moment
// after its port.
func reachable(t *testing.T, config string) {
	t.Helper()
	until(t, "the daemon answers commands", func() bool { return command(t, "", "sink", "list", "-c", config).code == 0 })
}

// A plugin that ends on probation is taken back by itself: the one before gets the
// batch, no event is lost, stored twice or a dead letter, no restart is counted,
// and the operator is told everywhere.
func TestTrapOnProbation(t *testing.T) {
	config := home(t, append(mock(`{do = "store", ids = ["none"]}`), "#plugin_events = false", "plugin_events = true")...)
	d := serve(t, config)
	reachable(t, config)
	var want []string
	post := func(id string) {
		d.post(t, "ledger", refusal(id))
		want = append(want, id)
	}
	post("before")
	// It passes its trial, and ends at the first batch with that event.
	edit(t, config, `{do = "store", ids = ["none"]}`, `{do = "trap", ids = ["e3"], text = "the new one is broken"}`)
	done := reloaded(t, config, 0)
	if len(done.Sinks) != 1 || done.Sinks[0].Sink != "mock" || done.Sinks[0].Done != "exchanged" || done.Restart != nil {
		t.Fatalf("%+v", done)
	}
	if s := sinksOf(t, config)["mock"]; !s.Probation || s.Swaps != 1 || s.Plugin != "sink-mock" || len(s.SHA256) != 64 {
		t.Errorf("%+v", s)
	}
	if out := must(t, 0, "", "sink", "list", "-c", config).stdout; !strings.Contains(out, ", on probation") {
		t.Errorf("%s", out)
	}
	if m := d.scrape(t); m[`audit_host_plugin_on_probation{sink="mock"}`] != 1 || m[`audit_host_plugin_swaps_total{sink="mock"}`] != 1 {
		t.Error("the metrics don't tell of the probation")
	}
	for i := range 6 {
		post(fmt.Sprint("e", i))
	}
	d.awaitLine(t, "the new plugin ended on probation: the one before is back")
	s := sinksOf(t, config)["mock"]
	if s.Probation || s.Rollbacks != 1 || !strings.Contains(s.RolledBack, "TRAP: panic: sink-mock: the new one is broken") || s.RolledBackAt == nil || s.State == "parked" || s.Restarts != 0 {
		t.Errorf("%+v", s)
	}
	if out := must(t, 0, "", "sink", "list", "-c", config).stdout; !strings.Contains(out, "the new plugin was taken back: TRAP") {
		t.Errorf("%s", out)
	}
	if got := string(d.request(t, "GET", "/-/ready", "", 200)); !strings.Contains(got, "sink mock: its new plugin was taken back at 20") {
		t.Errorf("ready: %s", got)
	}
	m := d.scrape(t)
	for name, want := range map[string]float64{"plugin_rollbacks_total": 1, "plugin_on_probation": 0, "drainer_panics_total": 0, "dlq_landed_total": 0, "lost": 0} {
		if got := m["audit_host_"+name+`{sink="mock"}`]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	// The numbers of the plugin's calls go on over both.
	if m[`audit_host_plugin_outcomes_total{outcome="TRAP",sink="mock"}`] != 1 || m[`audit_host_plugin_outcomes_total{outcome="OK",sink="mock"}`] < 7 {
		t.Errorf("outcomes: %v", m)
	}
	// Asked again, it is tried with the batch that it ended at, if no other came
	// since, and with others if one did.
	reloaded(t, config, 0)
	edit(t, config, "the new one is broken", "still broken")
	if r := must(t, 0, "", "reload", "-c", config); !strings.Contains(r.stdout, "sink mock: sink-mock 1.0.0") {
		t.Errorf("%+v", r)
	}
	log := d.stop(t, 0)
	got := slices.DeleteFunc(storedByMock(t, log), func(id string) bool { return len(id) > 10 }) // the events about plugins
	if !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	if !strings.Contains(log, `level=WARN msg="the new plugin ended on probation`) {
		t.Error("no warning")
	}
	var types []string
	for _, id := range ids(t, config) {
		if strings.HasPrefix(id, "audit.plugin.") {
			types = append(types, strings.TrimPrefix(id, "audit.plugin."))
		}
	}
	if !slices.Equal(types, []string{"loaded", "loaded", "loaded", "rolled_back", "loaded", "loaded"}) {
		t.Errorf("events about plugins: %q", types)
	}
}

// The ledger's own plugin, with too little fuel for a large batch: whatever it has
// stored of it by then, each event has one row.
func TestFuelOnProbation(t *testing.T) {
	config := home(t)
	d := serve(t, config)
	reachable(t, config)
	d.post(t, "ledger", refusal("first"))
	edit(t, config, "#fuel = 1099511627776", "fuel = 8_000_000")
	reloaded(t, config, 0)
	// Behind a lock they gather to one batch.
	release := lockLedger(t, config)
	d.post(t, "durable", several("a", 1))
	d.awaitLine(t, "the ledger takes nothing")
	d.post(t, "durable", several("e", 1000))
	release()
	d.post(t, "ledger", refusal("last"))
	s := sinksOf(t, config)["ledger"]
	if s.Rollbacks != 1 || !strings.Contains(s.RolledBack, "FUEL: ") || s.DeadLettered != 0 || s.Restarts != 0 {
		t.Errorf("%+v", s)
	}
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != 1003 {
		t.Errorf("%+v", v)
	}
}

// What the new plugin ended at comes to the old one as the same batch with the
// next attempt: it may have been stored.
func TestTakenBackWithTheNextAttempt(t *testing.T) {
	config := home(t, mock(`{do = "reject", ids = ["probe"], attempt = 2, text = "the second attempt"}`)...)
	d := serve(t, config)
	reachable(t, config)
	edit(t, config, `{do = "reject", ids = ["probe"], attempt = 2, text = "the second attempt"}`, `{do = "trap", ids = ["probe"]}`)
	reloaded(t, config, 0)
	d.post(t, "ledger", refusal("probe"))
	d.stop(t, exitDeadLetters)
	if l := listed(t, config); len(l) != 1 || l[0].Attempts != 2 || l[0].Reason != "the second attempt" {
		t.Errorf("%+v", l)
	}
}

// Whatever is wrong with what is new, all of it is named and nothing changes.
func TestReloadRefused(t *testing.T) {
	t.Parallel()
	config := home(t, mock(`{do = "store", ids = ["none"]}`, `limits.fuel = 1099511627776`)...)
	dir := filepath.Dir(config)
	good, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	d := serve(t, config)
	reachable(t, config)
	d.post(t, "ledger", refusal("first"))
	before := sinksOf(t, config)
	for name, c := range map[string]struct {
		edit []string
		code int
		want []string
	}{
		"not valid": {[]string{`level = "info"`, `level = "loud"`, "[queue]", "[queue]\nbackhand = 3", "#level", "level"}, exitConfig,
			[]string{`level must be one of`, `unknown key "backhand"`}},
		"refused by the plugin": {[]string{`do = "store"`, `do = "explode"`}, exitFailed, []string{"nothing was changed: sink mock: the plugin refuses its configuration", `do is "explode"`}},
		"ends in its trial":     {[]string{`do = "store", ids = ["none"]`, `do = "trap"`}, exitFailed, []string{"sink mock: the new plugin was tried beside the old one, and its audit_deliver of a batch of 3 events ended with TRAP"}},
		"ends when it is opened": {[]string{"limits.fuel = 1099511627776", "limits.fuel = 1_000_000"}, exitFailed,
			[]string{"sink mock: the new plugin was tried beside the old one, and its audit_open ended with FUEL"}},
		"two at once": {[]string{`do = "store", ids = ["none"]`, `do = "trap"`, "#memory_limit = \"64MiB\"", "memory_limit = \"5MiB\"", "#fuel = 1099511627776", "fuel = 1_000_000"}, exitFailed,
			[]string{"sink ledger: the new plugin was tried", "sink mock: the new plugin was tried"}},
		"no such plugin": {[]string{`plugin = "sink-mock"`, `plugin = "gone.wasm"`}, exitFailed, []string{"sink mock: read plugin", "gone.wasm"}},
		"no plugin":      {[]string{`plugin = "sink-mock"`, `plugin = "audit.key"`, `plugin = "audit.key"`, `plugin = "./audit.key"`}, exitFailed, []string{"sink mock: identify plugin"}},
		"no key":         {[]string{`private_key = "audit.key"`, `private_key = "lost.key"`}, exitFailed, []string{"lost.key"}},
	} {
		edit(t, config, c.edit...)
		r := must(t, c.code, "", "reload", "-c", config)
		for _, want := range c.want {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("%s: no %q in\n%s", name, want, r.stderr)
			}
		}
		if err := os.WriteFile(config, good, 0o600); err != nil {
			t.Fatal(err)
		}
		d.post(t, "ledger", refusal(name))
	}
	for name, s := range sinksOf(t, config) {
		if s.SHA256 != before[name].SHA256 || s.Swaps != 0 || s.Rollbacks != 0 || s.Restarts != 0 {
			t.Errorf("%+v", s)
		}
	}
	if m := d.scrape(t); m[`audit_host_reloads_total{result="refused"}`] != 7 { // a text that is not valid the command refuses itself
		t.Errorf("%v refused", m[`audit_host_reloads_total{result="refused"}`])
	}
	if _, err := os.Stat(filepath.Join(dir, "state", "trial")); !os.IsNotExist(err) {
		t.Errorf("what the trials left: %v", err)
	}
	if r := must(t, 0, "", "reload", "-c", config); r.stdout != "nothing has changed\n" {
		t.Errorf("%s", r.stdout)
	}
	log := d.stop(t, 0)
	if strings.Count(log, `level=ERROR msg="reload refused, nothing was changed"`) != 7 {
		t.Error("the log does not tell")
	}
	if got := storedByMock(t, log); len(got) != 9 {
		t.Errorf("stored %q", got)
	}
}

// A parked sink goes on with its new plugin, from the batch that ended the old one.
// As long as the new one ends at that batch too, it does not get the seat.
func TestReloadOfAParkedSink(t *testing.T) {
	config := home(t, mock(`{do = "trap", ids = ["e2"], text = "one"}`)...)
	d := serve(t, config)
	reachable(t, config)
	d.post(t, "durable", several("e", 5))
	d.awaitLine(t, "sink parked")
	edit(t, config, `text = "one"`, `text = "two"`)
	if r := must(t, exitFailed, "", "reload", "-c", config); !strings.Contains(r.stderr, "ended with TRAP: panic: sink-mock: two") {
		t.Errorf("%s", r.stderr)
	}
	if s := sinksOf(t, config)["mock"]; s.State != "parked" || s.Swaps != 0 {
		t.Errorf("%+v", s)
	}
	edit(t, config, `ids = ["e2"]`, `ids = ["none"]`)
	done := reloaded(t, config, 0)
	if len(done.Sinks) != 1 || !done.Sinks[0].Resumed {
		t.Errorf("%+v", done)
	}
	d.post(t, "ledger", refusal("last"))
	d.request(t, "GET", "/-/ready", "", 200)
	if got, want := storedByMock(t, d.stop(t, 0)), []string{"e0", "e1", "e2", "e3", "e4", "last"}; !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
}

// A sink that asked to be left alone for half a minute is mended by a reload at
// once.
func TestReloadEndsAPause(t *testing.T) {
	config := home(t, mock(`{do = "busy", pause_ms = 30000}`)...)
	d := serve(t, config)
	reachable(t, config)
	d.post(t, "durable", refusal("e"))
	until(t, "the sink waits", func() bool { return sinksOf(t, config)["mock"].State == "waiting" })
	edit(t, config, `{do = "busy", pause_ms = 30000}`, "")
	began := time.Now()
	reloaded(t, config, 0)
	d.post(t, "ledger", refusal("last"))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := storedByMock(t, d.stop(t, 0)); !slices.Equal(got, []string{"e", "last"}) {
		t.Errorf("stored %q", got)
	}
}

// Reloads at once come one after the other: the first exchanges, the others find
// nothing to do.
func TestReloadsAtOnce(t *testing.T) {
	config := home(t, mock(`{do = "store", ids = ["a"]}`)...)
	d := serve(t, config)
	reachable(t, config)
	edit(t, config, `ids = ["a"]`, `ids = ["b"]`)
	var all sync.WaitGroup
	var mu sync.Mutex
	changed := 0
	for range 5 {
		all.Go(func() {
			r := command(t, "", "reload", "-c", config)
			mu.Lock()
			defer mu.Unlock()
			if r.code != 0 {
				t.Errorf("%+v", r)
			}
			if r.stdout != "nothing has changed\n" {
				changed++
			}
		})
	}
	all.Wait()
	if s := sinksOf(t, config)["mock"]; changed != 1 || s.Swaps != 1 {
		t.Errorf("%d say that they changed something; %+v", changed, s)
	}
	d.stop(t, 0)
}

// What a reload can't follow is named, every time, and what it can is followed all
// the same.
func TestNeedsARestart(t *testing.T) {
	config := home(t, mock(`{do = "store", ids = ["a"]}`, "batch_events = 7", "required = true")...)
	d := serve(t, config)
	reachable(t, config)
	edit(t, config, `ids = ["a"]`, `ids = ["b"]`, "batch_events = 7", "batch_events = 5", "required = true", "required = false",
		`#backend = "disk"`, `backend = "memory"`, "[dead_letters]", "[[sink]]\nname = \"more\"\nplugin = \"sink-mock\"\n\n[dead_letters]",
		`database = "ledger.db"`, `database = "other.db"`)
	other := filepath.Join(filepath.Dir(config), "other.db")
	for n := range 2 {
		done := reloaded(t, config, exitFailed)
		want := []string{`queue.backend: "disk" is now "memory"`, "the ledger: " + ledgerOf(config) + " of sink ledger is now " + other + " of sink ledger",
			"sink mock: required: true is now false", "sink more: it is new"}
		slices.Sort(done.Restart)
		slices.Sort(want)
		if !slices.Equal(done.Restart, want) {
			t.Errorf("%q\nwant %q", done.Restart, want)
		}
		if n == 0 && (len(done.Sinks) != 1 || done.Sinks[0].Sink != "mock" || done.Sinks[0].Done != "exchanged") || n == 1 && len(done.Sinks) != 0 {
			t.Errorf("%+v", done.Sinks)
		}
	}
	// How it is served is adjusted without an exchange.
	edit(t, config, "batch_events = 5", "batch_events = 3")
	if done := reloaded(t, config, exitFailed); len(done.Sinks) != 1 || done.Sinks[0].Done != "adjusted" {
		t.Errorf("%+v", done.Sinks)
	}
	d.post(t, "ledger", several("e", 30))
	if s := sinksOf(t, config); s["mock"].Swaps != 1 || s["ledger"].Swaps != 0 || len(s) != 2 {
		t.Errorf("%+v", s)
	}
	if m := d.scrape(t); m[`audit_host_reloads_total{result="partial"}`] != 3 || m[`audit_host_plugin_outcomes_total{outcome="OK",sink="mock"}`] < 10 {
		t.Errorf("%v", m)
	}
	if _, err := os.Stat(other); !os.IsNotExist(err) {
		t.Errorf("the other ledger was touched: %v", err)
	}
	d.stop(t, 0)
}
