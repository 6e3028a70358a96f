package metrics

import "github.com/prometheus/client_golang/prometheus"

// Reload is what reloads have come to; a scrape without one leaves it out.
type Reload struct {
	Followed, Partial, Refused uint64
	Plugins                    []Exchanged
}

// Exchanged is how often the plugin of a sink was exchanged.
type Exchanged struct {
	Sink             string
	Swaps, Rollbacks uint64
	Probation        bool
}

type reloadMetrics struct{ reloads, swaps, rollbacks, probation *prometheus.Desc }

func newReloadMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) reloadMetrics {
	return reloadMetrics{
		reloads:   desc("reloads_total", "Reloads: followed in all, in part (the rest needs a restart or was not exchanged), or refused.", "result"),
		swaps:     desc("plugin_swaps_total", "Plugins that took over from another one while the daemon ran.", "sink"),
		rollbacks: desc("plugin_rollbacks_total", "Plugins that ended on probation and were taken back.", "sink"),
		probation: desc("plugin_on_probation", "1 while a new plugin may still be taken back.", "sink"),
	}
}

func (m reloadMetrics) describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.reloads, m.swaps, m.rollbacks, m.probation} {
		out <- d
	}
}

func (m reloadMetrics) collect(r *Reload, send func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string)) {
	if r == nil {
		return
	}
	send(m.reloads, prometheus.CounterValue, float64(r.Followed), "followed")
	send(m.reloads, prometheus.CounterValue, float64(r.Partial), "partial")
	send(m.reloads, prometheus.CounterValue, float64(r.Refused), "refused")
	for _, p := range r.Plugins {
		send(m.swaps, prometheus.CounterValue, float64(p.Swaps), p.Sink)
		send(m.rollbacks, prometheus.CounterValue, float64(p.Rollbacks), p.Sink)
		send(m.probation, prometheus.GaugeValue, number(p.Probation), p.Sink)
	}
}
