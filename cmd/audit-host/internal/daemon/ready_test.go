package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

func TestTrouble(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name string
		m    queue.SinkMetrics
		harm bool
		want string // empty: nothing is said
	}{
		{"idle", queue.SinkMetrics{State: queue.Running}, false, ""},
		{"at work", queue.SinkMetrics{State: queue.Running, Oldest: ago(59 * time.Second)}, false, ""},
		{"waiting", queue.SinkMetrics{State: queue.Waiting, Oldest: ago(time.Second), LastError: "BUSY: locked"}, false, "sink ledger is waiting: BUSY: locked"},
		{"waiting for long", queue.SinkMetrics{State: queue.Waiting, Oldest: ago(75 * time.Second), LastError: "BUSY: locked"}, true, "its oldest event is 1m15s old: BUSY: locked"},
		{"looking for the guilty", queue.SinkMetrics{State: queue.Bisecting}, false, "is bisecting"},
		{"stuck", queue.SinkMetrics{State: queue.Running, Oldest: ago(time.Minute)}, true, "sink ledger is running, its oldest event is 1m0s old"},
		{"parked", queue.SinkMetrics{State: queue.Parked, Parked: "5 incidents"}, true, "sink ledger is parked, its events are kept: 5 incidents; mend it, then: audit-host sink resume ledger"},
		{"stopped", queue.SinkMetrics{State: queue.Stopped}, true, "sink ledger has stopped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.m.Name = "ledger"
			for _, required := range []bool{true, false} {
				c.m.Required = required
				want := c.want
				if !required {
					want = strings.Replace(want, "sink ledger", "sink ledger (optional)", 1)
				}
				harm, reason := trouble(&c.m, now, func(text, _ string) string { return text })
				if harm != (c.harm && required) || !strings.Contains(reason, want) || (reason == "") != (want == "") {
					t.Errorf("required %v: %v, %q; want %v, %q", required, harm, reason, c.harm && required, want)
				}
				// To those who may not read it, the outcome and not the text.
				c.m.LastOutcome = abi.Trap
				_, hidden := trouble(&c.m, now, func(_, instead string) string { return instead })
				if (hidden == "") != (want == "") || c.m.LastError+c.m.Parked != "" && (strings.Contains(hidden, c.m.LastError+c.m.Parked) || !strings.Contains(hidden, "TRAP, audit-host sink list tells why")) {
					t.Errorf("required %v: hidden: %q", required, hidden)
				}
			}
		})
	}
}
