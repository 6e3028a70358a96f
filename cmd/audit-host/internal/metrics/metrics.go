// Package metrics shows a running audit-host to Prometheus.
//
// The seven counters of the source system keep their names under audit_host_:
// submitted and send_failures of the recorder; appended, append_failures,
// drainer_panics, dlq_landed and unique_race_retries of every sink. In one
// scrape, for every sink,
//
//	submitted_total + recovered_total =
//	    send_failures_total + pending + appended_total + dlq_landed_total + skipped_total + lost
//
// because all of them come from one snapshot; lost is always 0. Recovered and
// skipped are 0 with a queue in memory and required sinks. Labels have few values: the names
// of the sinks, which the configuration fixes, and words of this package. No
// text of a client or of an error ever becomes a label.
package metrics

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
	"github.com/audit-host/audit-host/queue"
)

// Snapshot is what one scrape sees.
type Snapshot struct {
	Recorder queue.Metrics
	Queue    queue.Watermarks
	Ingest   ingest.Stats
	Unsigned bool // events are recorded without a signature
	Dead     Dead
	Egress   []Egress
	Plugins  []Plugin
	Ledger   *Ledger // nil if no sink is a ledger
	Reload   *Reload // nil if there are no reloads
	// Unclaimed are the sinks that the queue keeps events for and that are not
	// configured; UnclaimedPending is how many it keeps for the one with the most.
	Unclaimed        int
	UnclaimedPending uint64
	LogDropped       uint64 // lines of the log
}

// Ledger is what is known of the ledger.
type Ledger struct {
	Head   uint64   // sequence of the last row seen
	Faults []string // all classes there are
	Fault  string   // the one it has; "" if none
}

// Dead is what lies in the dead letters. An Err leaves all numbers out of the
// scrape: what can't be counted is not 0.
type Dead struct {
	Open, Resolved uint64    // that no replay has resolved, and that one has
	Oldest         time.Time // when the first of the open ones failed; zero if there is none
	Err            error
}

// Build says what the binary is made of.
type Build struct{ Version, Commit, Go, SQLite, Wazero string }

// New returns a registry of its own that takes its numbers from snapshot, which
// must be safe for concurrent use.
func New(snapshot func() Snapshot, b Build) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		newCollector(snapshot, b),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// Handler serves a registry. A scrape that fails in part is logged and answered
// in part.
func Handler(r *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: 4, EnableOpenMetrics: true,
	})
}

type collector struct {
	snapshot func() Snapshot
	build    prometheus.Metric
	now      func() time.Time

	submitted, sendFailures, unsigned                    *prometheus.Desc
	queueEvents, queueEventsLimit, queueBytes, queueSize *prometheus.Desc
	queueRefused, refusedSource, queueFailed, ingest     *prometheus.Desc
	logDropped                                           *prometheus.Desc
	ledgerHead, ledgerFault                              *prometheus.Desc
	unclaimed, unclaimedPending                          *prometheus.Desc
	deadLetters, deadOpen, deadResolved, deadAge         *prometheus.Desc
	sinks                                                []sinkMetric
	egress                                               []egressMetric
	plugins                                              pluginMetrics
	reload                                               reloadMetrics
}

// sinkMetric is one number of every sink.
type sinkMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	get  func(m *queue.SinkMetrics, now time.Time) float64
}

func newCollector(snapshot func() Snapshot, b Build) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("audit_host_"+name, help, labels, nil)
	}
	c := &collector{
		snapshot:         snapshot,
		now:              time.Now,
		submitted:        desc("submitted_total", "Events handed to the queue."),
		sendFailures:     desc("send_failures_total", "Events that the queue did not take."),
		unsigned:         desc("unsigned", "1 if events are recorded without a signature."),
		queueEvents:      desc("queue_events", "Events that a required sink has not taken yet."),
		queueEventsLimit: desc("queue_limit_events", "How many events the queue keeps; 0 is no limit."),
		queueBytes:       desc("queue_bytes", "What the events in the queue take."),
		queueSize:        desc("queue_limit_bytes", "How many bytes the queue keeps; 0 is no limit."),
		queueRefused:     desc("queue_refused_total", "Events refused because the queue was full."),
		refusedSource:    desc("queue_refused_by_source_total", "Events refused because the queue was full, by who brought them.", "source"),
		logDropped:       desc("log_dropped_total", "Lines of the log that were dropped because nobody read it."),
		queueFailed:      desc("queue_failed", "1 if the queue cannot write any more."),
		unclaimed:        desc("unclaimed_sinks", "Sinks that the queue keeps events for and that are not configured."),
		unclaimedPending: desc("unclaimed_pending", "Events that the queue keeps for such a sink, the most of any."),
		ledgerHead:       desc("ledger_head_sequence", "The last row that the ledger was seen to have."),
		ledgerFault:      desc("ledger_fault", "1 while the ledger takes no events for this reason.", "fault"),
		deadLetters:      desc("dead_letters", "Dead letters that are kept, resolved or not."),
		deadOpen:         desc("dead_letters_unresolved", "Dead letters that no replay has resolved."),
		deadResolved:     desc("dead_letters_resolved", "Dead letters that a replay has resolved and nobody has purged."),
		deadAge:          desc("oldest_dead_letter_age_seconds", "How long ago the oldest unresolved dead letter failed; 0 if there is none."),
		ingest:           desc("ingest_events_total", "Events of requests by what became of them.", "outcome"),
	}
	c.egress = egressMetrics(desc)
	c.plugins = newPluginMetrics(desc)
	c.reload = newReloadMetrics(desc)
	c.build = prometheus.MustNewConstMetric(desc("build_info", "What this binary is made of; always 1.",
		"version", "commit", "goversion", "sqlite", "wazero"), prometheus.GaugeValue, 1, b.Version, b.Commit, b.Go, b.SQLite, b.Wazero)
	sink := func(name, help string, kind prometheus.ValueType, get func(*queue.SinkMetrics, time.Time) float64) {
		c.sinks = append(c.sinks, sinkMetric{desc(name, help, "sink"), kind, get})
	}
	count := func(name, help string, get func(*queue.SinkMetrics) uint64) {
		sink(name, help, prometheus.CounterValue, func(m *queue.SinkMetrics, _ time.Time) float64 { return float64(get(m)) })
	}
	count("appended_total", "Events that the sink has stored.", func(m *queue.SinkMetrics) uint64 { return m.Appended })
	count("append_failures_total", "Attempts to store events that failed.", func(m *queue.SinkMetrics) uint64 { return m.AppendFailures })
	count("drainer_panics_total", "Deliveries that ended the plugin's instance.", func(m *queue.SinkMetrics) uint64 { return m.DrainerPanics })
	count("busy_total", "Deliveries that the sink could not take for now.", func(m *queue.SinkMetrics) uint64 { return m.Busies })
	count("dlq_landed_total", "Events that became dead letters.", func(m *queue.SinkMetrics) uint64 { return m.DLQLanded })
	count("unique_race_retries_total", "Lost races for the next sequence number.", func(m *queue.SinkMetrics) uint64 { return m.UniqueRaceRetries })
	count("restarts_total", "Fresh instances of the plugin after one was lost.", func(m *queue.SinkMetrics) uint64 { return m.Restarts })
	count("recovered_total", "Events of an earlier run that the sink had not taken.", func(m *queue.SinkMetrics) uint64 { return m.Recovered })
	count("skipped_total", "Events that an optional sink missed because it fell behind.", func(m *queue.SinkMetrics) uint64 { return m.Skipped })
	count("replayed_total", "Dead letters that a replay had the sink store.", func(m *queue.SinkMetrics) uint64 { return m.Replayed })
	count("replay_refused_total", "Dead letters that were refused again.", func(m *queue.SinkMetrics) uint64 { return m.ReplayRefused })
	sink("lost", "Events that the sink passed without an outcome; always 0.", prometheus.GaugeValue,
		func(m *queue.SinkMetrics, _ time.Time) float64 { return float64(m.Lost) })
	sink("pending", "Accepted events without a final outcome.", prometheus.GaugeValue,
		func(m *queue.SinkMetrics, _ time.Time) float64 { return float64(m.Pending) })
	sink("pending_bytes", "About what the pending events take.", prometheus.GaugeValue,
		func(m *queue.SinkMetrics, _ time.Time) float64 { return float64(m.PendingBytes) })
	sink("oldest_age_seconds", "Age of the oldest pending event; 0 if there is none.", prometheus.GaugeValue,
		func(m *queue.SinkMetrics, now time.Time) float64 {
			return age(m.Oldest, now)
		})
	sink("parked", "1 if the sink delivers nothing until it is resumed.", prometheus.GaugeValue,
		func(m *queue.SinkMetrics, _ time.Time) float64 { return number(m.Parked != "") })
	return c
}

// age is in seconds; 0 for the zero time and for one that is still to come.
func age(at, now time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return max(0, now.Sub(at).Seconds())
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.build.Desc(), c.submitted, c.sendFailures, c.unsigned, c.queueEvents, c.queueEventsLimit,
		c.queueBytes, c.queueSize, c.queueRefused, c.refusedSource, c.unclaimed, c.unclaimedPending, c.ledgerHead, c.ledgerFault, c.queueFailed, c.logDropped, c.ingest, c.deadLetters, c.deadOpen, c.deadResolved, c.deadAge} {
		out <- d
	}
	for _, s := range c.sinks {
		out <- s.desc
	}
	for _, e := range c.egress {
		out <- e.desc
	}
	out <- c.plugins.outcomes
	out <- c.plugins.limits
	c.reload.describe(out)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s, now := c.snapshot(), c.now()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	counter, gauge := prometheus.CounterValue, prometheus.GaugeValue
	out <- c.build
	send(c.submitted, counter, float64(s.Recorder.Submitted))
	send(c.sendFailures, counter, float64(s.Recorder.SendFailures))
	send(c.unsigned, gauge, number(s.Unsigned))
	send(c.queueEvents, gauge, float64(s.Queue.Events))
	send(c.queueEventsLimit, gauge, float64(s.Queue.LimitEvents))
	send(c.queueBytes, gauge, float64(s.Queue.Bytes))
	send(c.queueSize, gauge, float64(s.Queue.LimitBytes))
	send(c.queueRefused, counter, float64(s.Queue.Refused.Count))
	for _, r := range s.Queue.Refused.Sources {
		send(c.refusedSource, counter, float64(r.Count), r.Source)
	}
	send(c.queueFailed, gauge, number(s.Queue.Failure != nil))
	send(c.logDropped, counter, float64(s.LogDropped))
	send(c.unclaimed, gauge, float64(s.Unclaimed))
	send(c.unclaimedPending, gauge, float64(s.UnclaimedPending))
	if l := s.Ledger; l != nil {
		send(c.ledgerHead, gauge, float64(l.Head))
		for _, f := range l.Faults {
			send(c.ledgerFault, gauge, number(f == l.Fault), f)
		}
	}
	if s.Dead.Err != nil {
		out <- prometheus.NewInvalidMetric(c.deadLetters, s.Dead.Err)
	} else {
		send(c.deadLetters, gauge, float64(s.Dead.Open+s.Dead.Resolved))
		send(c.deadOpen, gauge, float64(s.Dead.Open))
		send(c.deadResolved, gauge, float64(s.Dead.Resolved))
		send(c.deadAge, gauge, age(s.Dead.Oldest, now))
	}
	for _, o := range []struct {
		outcome string
		n       uint64
	}{
		{"accepted", s.Ingest.Accepted}, {"rejected", s.Ingest.Rejected}, {"skipped", s.Ingest.Skipped},
		{"retry", s.Ingest.Retry}, {"dead_lettered", s.Ingest.DeadLettered},
	} {
		send(c.ingest, counter, float64(o.n), o.outcome)
	}
	for i := range s.Recorder.Sinks {
		m := &s.Recorder.Sinks[i]
		for _, metric := range c.sinks {
			send(metric.desc, metric.kind, metric.get(m, now), m.Name)
		}
	}
	c.plugins.collect(s.Plugins, send)
	c.reload.collect(s.Reload, send)
	for _, e := range s.Egress {
		for _, metric := range c.egress {
			send(metric.desc, counter, float64(metric.get(e)), e.Sink)
		}
	}
}
