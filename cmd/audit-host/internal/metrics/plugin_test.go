package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
)

// Every outcome and every limit is there, counted or not, and nothing else
// becomes a label.
func TestPluginMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(func() Snapshot {
		s := snapshot()
		s.Plugins = []Plugin{
			{Sink: "ledger", Counts: host.Counts{
				Outcomes: map[abi.Outcome]uint64{abi.OK: 7, abi.Trap: 2, abi.BadABI: 1, abi.Outcome(99): 5},
				Breaches: map[host.Limit]uint64{host.LimitFuel: 3, "made up": 4},
			}},
			{Sink: "mock"},
		}
		return s
	}, Build{}))
	got := text(t, r)
	for _, want := range []string{
		`audit_host_plugin_outcomes_total{outcome="OK",sink="ledger"} 7`,
		`audit_host_plugin_outcomes_total{outcome="TRAP",sink="ledger"} 2`,
		`audit_host_plugin_outcomes_total{outcome="BAD_ABI",sink="ledger"} 1`,
		`audit_host_plugin_outcomes_total{outcome="DEADLINE",sink="mock"} 0`,
		`audit_host_plugin_limits_total{limit="fuel",sink="ledger"} 3`,
		`audit_host_plugin_limits_total{limit="sql_time",sink="mock"} 0`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "audit_host_plugin_outcomes_total{"); n != 2*13 {
		t.Errorf("%d outcomes", n)
	}
	if n := strings.Count(got, "audit_host_plugin_limits_total{"); n != 2*len(host.Limits()) {
		t.Errorf("%d limits", n)
	}
	if problems, err := promlint.New(strings.NewReader(got)).Lint(); err != nil || problems != nil {
		t.Errorf("%v %v", problems, err)
	}
	// The list of outcomes is that of the ABI.
	for _, o := range outcomes {
		if strings.HasPrefix(o.String(), "outcome(") {
			t.Errorf("%v has no name", o)
		}
	}
}
