package metrics

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
	"github.com/audit-host/audit-host/queue"
)

var now = time.Unix(1_800_000_000, 0)

func snapshot() Snapshot {
	return Snapshot{
		Recorder: queue.Metrics{Submitted: 100, SendFailures: 10, Sinks: []queue.SinkMetrics{
			{Name: "ledger", Pending: 5, PendingBytes: 5000, Replayed: 12, ReplayRefused: 13, Busies: 6, Appended: 80, DLQLanded: 5, AppendFailures: 7, DrainerPanics: 2, UniqueRaceRetries: 3,
				Restarts: 1, Oldest: now.Add(-1500 * time.Millisecond)},
			{Name: "mock", Recovered: 4, Skipped: 1, Pending: 93, Parked: "some reason with a client's text", Oldest: now.Add(time.Hour)},
		}},
		Queue:    queue.Watermarks{Events: 9, LimitEvents: 1000, Bytes: 900, LimitBytes: 1 << 20, Refused: queue.Refusals{Count: 8, Sources: []queue.SourceRefusals{{Source: "http", Count: 5}, {Source: "opa", Count: 3}}}, Failure: errors.New("no space")},
		Ingest:   ingest.Stats{Accepted: 1, Rejected: 2, Skipped: 3, Retry: 4, DeadLettered: 5},
		Unsigned: true, Unclaimed: 2, UnclaimedPending: 31, LogDropped: 32,
		Ledger: &Ledger{Head: 7, Faults: []string{"locked", "io"}, Fault: "io"},
		Egress: []Egress{{Sink: "mock", Requests: 21, Refused: 22, Sent: 23, Received: 24}},
		Dead:   Dead{Open: 4, Resolved: 2, Oldest: now.Add(-time.Minute)},
	}
}

func TestNumbers(t *testing.T) {
	c := newCollector(snapshot, Build{Version: "v1", Commit: "abc", Go: "go1.26", SQLite: "3.51.3", Wazero: "v1.12.0"})
	c.now = func() time.Time { return now }
	const want = `
# HELP audit_host_append_failures_total Attempts to store events that failed.
# TYPE audit_host_append_failures_total counter
audit_host_append_failures_total{sink="ledger"} 7
audit_host_append_failures_total{sink="mock"} 0
# HELP audit_host_appended_total Events that the sink has stored.
# TYPE audit_host_appended_total counter
audit_host_appended_total{sink="ledger"} 80
audit_host_appended_total{sink="mock"} 0
# HELP audit_host_build_info What this binary is made of; always 1.
# TYPE audit_host_build_info gauge
audit_host_build_info{commit="abc",goversion="go1.26",sqlite="3.51.3",version="v1",wazero="v1.12.0"} 1
# HELP audit_host_busy_total Deliveries that the sink could not take for now.
# TYPE audit_host_busy_total counter
audit_host_busy_total{sink="ledger"} 6
audit_host_busy_total{sink="mock"} 0
# HELP audit_host_dead_letters Dead letters that are kept, resolved or not.
# TYPE audit_host_dead_letters gauge
audit_host_dead_letters 6
# HELP audit_host_dead_letters_resolved Dead letters that a replay has resolved and nobody has purged.
# TYPE audit_host_dead_letters_resolved gauge
audit_host_dead_letters_resolved 2
# HELP audit_host_dead_letters_unresolved Dead letters that no replay has resolved.
# TYPE audit_host_dead_letters_unresolved gauge
audit_host_dead_letters_unresolved 4
# HELP audit_host_dlq_landed_total Events that became dead letters.
# TYPE audit_host_dlq_landed_total counter
audit_host_dlq_landed_total{sink="ledger"} 5
audit_host_dlq_landed_total{sink="mock"} 0
# HELP audit_host_drainer_panics_total Deliveries that ended the plugin's instance.
# TYPE audit_host_drainer_panics_total counter
audit_host_drainer_panics_total{sink="ledger"} 2
audit_host_drainer_panics_total{sink="mock"} 0
# HELP audit_host_egress_received_bytes_total Bytes of bodies that were received.
# TYPE audit_host_egress_received_bytes_total counter
audit_host_egress_received_bytes_total{sink="mock"} 24
# HELP audit_host_egress_refused_total HTTP requests, redirects among them, that the grant does not allow.
# TYPE audit_host_egress_refused_total counter
audit_host_egress_refused_total{sink="mock"} 22
# HELP audit_host_egress_requests_total HTTP requests that the plugin asked for.
# TYPE audit_host_egress_requests_total counter
audit_host_egress_requests_total{sink="mock"} 21
# HELP audit_host_egress_sent_bytes_total Bytes of bodies that were sent.
# TYPE audit_host_egress_sent_bytes_total counter
audit_host_egress_sent_bytes_total{sink="mock"} 23
# HELP audit_host_ingest_events_total Events of requests by what became of them.
# TYPE audit_host_ingest_events_total counter
audit_host_ingest_events_total{outcome="accepted"} 1
audit_host_ingest_events_total{outcome="dead_lettered"} 5
audit_host_ingest_events_total{outcome="rejected"} 2
audit_host_ingest_events_total{outcome="retry"} 4
audit_host_ingest_events_total{outcome="skipped"} 3
# HELP audit_host_ledger_fault 1 while the ledger takes no events for this reason.
# TYPE audit_host_ledger_fault gauge
audit_host_ledger_fault{fault="io"} 1
audit_host_ledger_fault{fault="locked"} 0
# HELP audit_host_ledger_head_sequence The last row that the ledger was seen to have.
# TYPE audit_host_ledger_head_sequence gauge
audit_host_ledger_head_sequence 7
# HELP audit_host_log_dropped_total Lines of the log that were dropped because nobody read it.
# TYPE audit_host_log_dropped_total counter
audit_host_log_dropped_total 32
# HELP audit_host_lost Events that the sink passed without an outcome; always 0.
# TYPE audit_host_lost gauge
audit_host_lost{sink="ledger"} 0
audit_host_lost{sink="mock"} 0
# HELP audit_host_oldest_age_seconds Age of the oldest pending event; 0 if there is none.
# TYPE audit_host_oldest_age_seconds gauge
audit_host_oldest_age_seconds{sink="ledger"} 1.5
audit_host_oldest_age_seconds{sink="mock"} 0
# HELP audit_host_oldest_dead_letter_age_seconds How long ago the oldest unresolved dead letter failed; 0 if there is none.
# TYPE audit_host_oldest_dead_letter_age_seconds gauge
audit_host_oldest_dead_letter_age_seconds 60
# HELP audit_host_parked 1 if the sink delivers nothing until it is resumed.
# TYPE audit_host_parked gauge
audit_host_parked{sink="ledger"} 0
audit_host_parked{sink="mock"} 1
# HELP audit_host_pending Accepted events without a final outcome.
# TYPE audit_host_pending gauge
audit_host_pending{sink="ledger"} 5
audit_host_pending{sink="mock"} 93
# HELP audit_host_pending_bytes About what the pending events take.
# TYPE audit_host_pending_bytes gauge
audit_host_pending_bytes{sink="ledger"} 5000
audit_host_pending_bytes{sink="mock"} 0
# HELP audit_host_queue_bytes What the events in the queue take.
# TYPE audit_host_queue_bytes gauge
audit_host_queue_bytes 900
# HELP audit_host_queue_events Events that a required sink has not taken yet.
# TYPE audit_host_queue_events gauge
audit_host_queue_events 9
# HELP audit_host_queue_failed 1 if the queue cannot write any more.
# TYPE audit_host_queue_failed gauge
audit_host_queue_failed 1
# HELP audit_host_queue_limit_bytes How many bytes the queue keeps; 0 is no limit.
# TYPE audit_host_queue_limit_bytes gauge
audit_host_queue_limit_bytes 1.048576e+06
# HELP audit_host_queue_limit_events How many events the queue keeps; 0 is no limit.
# TYPE audit_host_queue_limit_events gauge
audit_host_queue_limit_events 1000
# HELP audit_host_queue_refused_by_source_total Events refused because the queue was full, by who brought them.
# TYPE audit_host_queue_refused_by_source_total counter
audit_host_queue_refused_by_source_total{source="http"} 5
audit_host_queue_refused_by_source_total{source="opa"} 3
# HELP audit_host_queue_refused_total Events refused because the queue was full.
# TYPE audit_host_queue_refused_total counter
audit_host_queue_refused_total 8
# HELP audit_host_recovered_total Events of an earlier run that the sink had not taken.
# TYPE audit_host_recovered_total counter
audit_host_recovered_total{sink="ledger"} 0
audit_host_recovered_total{sink="mock"} 4
# HELP audit_host_replay_refused_total Dead letters that were refused again.
# TYPE audit_host_replay_refused_total counter
audit_host_replay_refused_total{sink="ledger"} 13
audit_host_replay_refused_total{sink="mock"} 0
# HELP audit_host_replayed_total Dead letters that a replay had the sink store.
# TYPE audit_host_replayed_total counter
audit_host_replayed_total{sink="ledger"} 12
audit_host_replayed_total{sink="mock"} 0
# HELP audit_host_restarts_total Fresh instances of the plugin after one was lost.
# TYPE audit_host_restarts_total counter
audit_host_restarts_total{sink="ledger"} 1
audit_host_restarts_total{sink="mock"} 0
# HELP audit_host_send_failures_total Events that the queue did not take.
# TYPE audit_host_send_failures_total counter
audit_host_send_failures_total 10
# HELP audit_host_skipped_total Events that an optional sink missed because it fell behind.
# TYPE audit_host_skipped_total counter
audit_host_skipped_total{sink="ledger"} 0
audit_host_skipped_total{sink="mock"} 1
# HELP audit_host_submitted_total Events handed to the queue.
# TYPE audit_host_submitted_total counter
audit_host_submitted_total 100
# HELP audit_host_unclaimed_pending Events that the queue keeps for such a sink, the most of any.
# TYPE audit_host_unclaimed_pending gauge
audit_host_unclaimed_pending 31
# HELP audit_host_unclaimed_sinks Sinks that the queue keeps events for and that are not configured.
# TYPE audit_host_unclaimed_sinks gauge
audit_host_unclaimed_sinks 2
# HELP audit_host_unique_race_retries_total Lost races for the next sequence number.
# TYPE audit_host_unique_race_retries_total counter
audit_host_unique_race_retries_total{sink="ledger"} 3
audit_host_unique_race_retries_total{sink="mock"} 0
# HELP audit_host_unsigned 1 if events are recorded without a signature.
# TYPE audit_host_unsigned gauge
audit_host_unsigned 1
`
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	if got := text(t, r); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s", got)
	}
}

// text is what a scrape of r answers.
func text(t *testing.T, r *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(r, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestLint(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(snapshot, Build{}))
	problems, err := promlint.New(strings.NewReader(text(t, r))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	// The linter finds something where there is something.
	if bad, err := promlint.New(strings.NewReader("# TYPE x counter\nx 1\n")).Lint(); err != nil || len(bad) == 0 {
		t.Errorf("the linter says nothing about a counter without _total: %v", err)
	}
}

// Texts of clients and errors never become labels, and the names of labels are
// few.
func TestLabelsAreBounded(t *testing.T) {
	r := New(snapshot, Build{})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]map[string]bool{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "audit_host_") {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if values[l.GetName()] == nil {
					values[l.GetName()] = map[string]bool{}
				}
				values[l.GetName()][l.GetValue()] = true
			}
		}
	}
	if got, want := slices.Sorted(maps.Keys(values)), []string{"commit", "fault", "goversion", "outcome", "sink", "source", "sqlite", "version", "wazero"}; !slices.Equal(got, want) {
		t.Errorf("labels %v, want %v", got, want)
	}
	if got := slices.Sorted(maps.Keys(values["sink"])); !slices.Equal(got, []string{"ledger", "mock"}) {
		t.Errorf("values of sink: %v", got)
	}
}

// A registry of its own: a second one in the same process is no conflict, and
// the process and the runtime are there.
func TestHandler(t *testing.T) {
	for range 2 {
		got := text(t, New(snapshot, Build{Version: "v1"}))
		for _, want := range []string{"audit_host_submitted_total 100\n", "go_goroutines ", "go_memstats_heap_alloc_bytes "} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	}
	if prometheus.DefaultRegisterer.Unregister(newCollector(snapshot, Build{})) {
		t.Error("the collector was in the default registry")
	}
}

// Dead letters that can't be counted are not 0: the rest is answered without
// them, and the log says why (row 29 of the checklist).
func TestDeadLettersThatCannotBeCounted(t *testing.T) {
	var logged bytes.Buffer
	w := httptest.NewRecorder()
	r := New(func() Snapshot {
		s := snapshot()
		s.Dead = Dead{Err: errors.New("disk I/O error")}
		return s
	}, Build{})
	Handler(r, slog.New(slog.NewTextHandler(&logged, nil))).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if got := w.Body.String(); w.Code != 200 || strings.Contains(got, "audit_host_dead_letters") || !strings.Contains(got, "audit_host_submitted_total 100") {
		t.Errorf("status %d: %s", w.Code, got)
	}
	if !strings.Contains(logged.String(), "disk I/O error") {
		t.Errorf("logged: %s", &logged)
	}
}
