package pipeline

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
)

// What the configuration says arrives in the host, is counted, and named in the
// log where it is reached.
func TestLimitsOfTheConfiguration(t *testing.T) {
	cfg := parse(t, sample+`
[[sink]]
name = "mock"
plugin = "sink-mock"
required = false
[sink.limits]
log_lines = 3
fuel = 200_000_000
[sink.config]
rules = [{ do = "flood", n = 10, contains = "flood" }, { do = "spin", contains = "forever" }]

[[sink]]
name = "large"
plugin = "sink-mock"
required = false
limits.module_size = "1MiB"

[[sink]]
name = "dear"
plugin = "sink-mock"
required = false
limits.compile_cost = 100_000_000
`)
	var lines bytes.Buffer
	p, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.NewTextHandler(&lines, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if why := p.Missing["large"]; !strings.Contains(why, "raise module_size in [sink.limits]") {
		t.Errorf("missing: %q", p.Missing)
	}
	if why := p.Missing["dear"]; !strings.Contains(why, "raise compile_cost in [sink.limits]") {
		t.Errorf("missing: %q", p.Missing)
	}
	for _, agent := range []string{"flood", "forever"} {
		if _, err := p.Recorder.Submit(t.Context(), refusal(t, agent)); err != nil {
			t.Fatal(err)
		}
	}
	if report := closeAll(t, p); report.Remained != 0 {
		t.Errorf("%+v", report)
	}
	got := map[string]host.Counts{}
	for _, c := range p.Plugins() {
		got[c.Sink] = c.Counts
	}
	// The batch of both, each half, and the guilty one once more.
	if b := got["mock"].Breaches; b[host.LimitLogLines] == 0 || b[host.LimitFuel] < 2 || got["mock"].Outcomes[abi.Fuel] < 2 {
		t.Errorf("mock: %+v", got["mock"])
	}
	if got["large"].Breaches[host.LimitModule] != 1 || got["ledger"].Outcomes[abi.OK] == 0 || got["ledger"].Breaches != nil {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{
		`limit=log_lines value=3 raise="log_lines in [sink.limits]"`, `limit=fuel value=200000000 raise="fuel in [sink.limits]"`,
		`msg="plugin crashed" sink=mock plugin=sink-mock `, // the sink is named once
	} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("no %s in the log:\n%s", want, &lines)
		}
	}
	if entries, err := os.ReadDir(CrashDir(cfg)); err != nil || len(entries) < 3 { // bundles and the plugin
		t.Errorf("%d files, %v", len(entries), err)
	}

	cfg.Crashes.Keep = 0
	if err := os.RemoveAll(CrashDir(cfg)); err != nil {
		t.Fatal(err)
	}
	closeAll(t, open(t, cfg, false))
	if _, err := os.Stat(CrashDir(cfg)); !os.IsNotExist(err) {
		t.Errorf("keep = 0: %v", err)
	}
}
