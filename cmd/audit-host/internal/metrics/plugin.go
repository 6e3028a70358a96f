package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
)

// Plugin is what the host has counted of one sink's plugin.
type Plugin struct {
	Sink string
	host.Counts
}

// outcomes are all that a call into a plugin can have: the values of a label.
var outcomes = [...]abi.Outcome{abi.OK, abi.Partial, abi.Retry, abi.Reject, abi.Busy, abi.BadConfig,
	abi.Trap, abi.Exit, abi.Fuel, abi.Deadline, abi.Memory, abi.HostPanic, abi.BadABI}

// pluginMetrics sends every value of both labels, so that an alert can be
// written before it happens.
type pluginMetrics struct{ outcomes, limits *prometheus.Desc }

func newPluginMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) pluginMetrics {
	return pluginMetrics{
		outcomes: desc("plugin_outcomes_total", "Calls into the plugin by how they ended.", "sink", "outcome"),
		limits:   desc("plugin_limits_total", "How often the plugin reached a limit; the log names the key that moves it.", "sink", "limit"),
	}
}

func (m pluginMetrics) collect(list []Plugin, send func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string)) {
	for _, p := range list {
		for _, o := range outcomes {
			send(m.outcomes, prometheus.CounterValue, float64(p.Outcomes[o]), p.Sink, o.String())
		}
		for _, l := range host.Limits() {
			send(m.limits, prometheus.CounterValue, float64(p.Breaches[l]), p.Sink, string(l))
		}
	}
}
