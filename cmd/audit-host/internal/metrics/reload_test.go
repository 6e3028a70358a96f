package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestReloadMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(func() Snapshot {
		s := snapshot()
		s.Reload = &Reload{Followed: 3, Refused: 1, Plugins: []Exchanged{{Sink: "ledger", Swaps: 2, Rollbacks: 1, Probation: true}, {Sink: "mock"}}}
		return s
	}, Build{}))
	got := text(t, r)
	for _, want := range []string{
		`audit_host_reloads_total{result="followed"} 3`, `audit_host_reloads_total{result="partial"} 0`, `audit_host_reloads_total{result="refused"} 1`,
		`audit_host_plugin_swaps_total{sink="ledger"} 2`, `audit_host_plugin_rollbacks_total{sink="ledger"} 1`, `audit_host_plugin_on_probation{sink="ledger"} 1`,
		`audit_host_plugin_swaps_total{sink="mock"} 0`, `audit_host_plugin_rollbacks_total{sink="mock"} 0`, `audit_host_plugin_on_probation{sink="mock"} 0`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if problems, err := promlint.New(strings.NewReader(got)).Lint(); err != nil || problems != nil {
		t.Errorf("%v %v", problems, err)
	}
}
