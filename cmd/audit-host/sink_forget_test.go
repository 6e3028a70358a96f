package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/control"
)

// A required sink that was taken out of the configuration with events pending
// holds everything back, visibly; nobody but an operator gives them up, beside
// the daemon or without it.
func TestSinkForget(t *testing.T) {
	extra := withSink("name = \"mock\"\nplugin = \"sink-mock\"\nmax_restarts = 0\nconfig.rules = [{do = \"trap\"}]")
	gone := []string{extra[1], extra[0]}
	config := home(t, append(extra, `#drain_timeout = "5s"`, `drain_timeout = "50ms"`, `#ack_timeout = "30s"`, `ack_timeout = "100ms"`)...)
	strand := func(ids ...string) {
		t.Helper()
		d := serve(t, config)
		for _, id := range ids {
			d.post(t, "durable", refusal(id))
		}
		d.stop(t, exitFailed)
		edit(t, config, gone...)
	}
	strand("e1", "e2", "e3")

	d := serve(t, config)
	d.post(t, "durable", refusal("e4"))
	if s := sinksOf(t, config)["mock"]; s.State != control.StateUnclaimed || s.PendingEvents != 4 || !s.Required || !strings.Contains(s.LastError, "sink forget mock") {
		t.Errorf("listed as %+v", s)
	}
	if got := string(d.request(t, "GET", "/-/ready", "", 503)); !strings.Contains(got, "the queue keeps 4 events for sink mock, which is not configured") {
		t.Errorf("ready: %s", got)
	}
	if m := d.scrape(t); m["audit_host_unclaimed_sinks"] != 1 || m["audit_host_unclaimed_pending"] != 4 {
		t.Errorf("metrics: %v", m)
	}
	d.request(t, "POST", "/v1/events?ack=ledger", refusal("e5"), 503)
	// The configuration that the daemon has counts, whatever the command read.
	c, err := control.Dial(t.Context(), filepath.Join(filepath.Dir(config), "state"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Forget(t.Context(), "ledger", true); err == nil || !strings.Contains(err.Error(), "it is configured") {
		t.Errorf("forget the ledger: %v", err)
	}
	for _, step := range []struct{ flag, want string }{
		{"--dry-run", "sink mock would be forgotten; events it had not taken: 5\n"},
		{"--yes", "sink mock forgotten; events it had not taken: 5\n"},
	} {
		if r := must(t, 0, "", "sink", "forget", "-c", config, step.flag, "mock"); r.stdout != step.want {
			t.Errorf("%s: %q, want %q", step.flag, r.stdout, step.want)
		}
	}
	must(t, exitFailed, "", "sink", "forget", "-c", config, "--yes", "mock")
	d.post(t, "ledger", refusal("e6"))
	d.request(t, "GET", "/-/ready", "", 200)
	d.stop(t, 0)

	edit(t, config, extra[0], extra[1])
	strand("f1", "f2")
	// Back again it began at the oldest event there is: the six before are in the
	// same segment still.
	if r := must(t, 0, "", "sink", "forget", "-c", config, "--dry-run", "mock"); r.stdout != "sink mock would be forgotten; events it had not taken: 8\n" {
		t.Errorf("%q", r.stdout)
	}
	must(t, 0, "", "sink", "forget", "-c", config, "--yes", "mock")
	if r := must(t, exitFailed, "", "sink", "forget", "-c", config, "--yes", "mock"); !strings.Contains(r.stderr, "the queue has no place for a sink of that name") {
		t.Errorf("%s", r.stderr)
	}
	d = serve(t, config)
	d.post(t, "ledger", refusal("f3"))
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != 9 {
		t.Errorf("%d rows, want each of 9 events once", v.Rows)
	}
}
