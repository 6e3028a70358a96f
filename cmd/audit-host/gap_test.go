package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/event"
)

// ledgerOf is the ledger's path beside a configuration that home made.
func ledgerOf(config string) string { return filepath.Join(filepath.Dir(config), "ledger.db") }

// lockLedger holds the write lock of a ledger until the function it returns is
// called, as another process would.
func lockLedger(t *testing.T, config string) (release func()) {
	t.Helper()
	db := openSQL(t, ledgerOf(config))
	sql(t, db, "BEGIN IMMEDIATE")
	return func() { sql(t, db, "COMMIT") }
}

func openSQL(t *testing.T, path string) *sqlite3.Conn {
	t.Helper()
	db, err := sqlite3.OpenFlags(path, sqlite3.OPEN_READWRITE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() }) // closed by the test already, or to no matter
	if err := db.BusyTimeout(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	return db
}

func sql(t *testing.T, db *sqlite3.Conn, text string) {
	t.Helper()
	if err := db.Exec(text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// send posts and returns the answer, whatever its status.
func (d *process) send(t *testing.T, path, body string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.Post(d.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, text
}

// What a full queue refuses is told to the client (503 and Retry-After, and OPA
// keeps its batch), is counted by source, and stands in the ledger as soon as
// there is room.
func TestGapIsInTheLedger(t *testing.T) {
	t.Parallel()
	for backend, bound := range map[string][]string{
		"disk":   {`#disk_bytes = "4GiB"`, `disk_bytes = "1MiB"`},
		"memory": {"#max_events = 1000000", "max_events = 1000"},
	} {
		t.Run(backend, func(t *testing.T) {
			config := home(t, append(bound, `#backend = "disk"`, fmt.Sprintf("backend = %q", backend), `#max_event = "1MiB"`, `max_event = "16KiB"`,
				`#busy_timeout = "1s"`, `busy_timeout = "10ms"`)...)
			release := lockLedger(t, config)
			d := serve(t, config)
			const chunk = 400
			sent, accepted := 0, map[string]bool{}
			post := func() (refused int) {
				var body strings.Builder
				for range chunk {
					body.WriteString(refusal(fmt.Sprint("e", sent)))
					sent++
				}
				r, text := d.send(t, "/v1/events?ack=accepted", body.String())
				var a event.Report
				decode(t, text, &a)
				for _, e := range a.Events {
					if e.Status == event.StatusAccepted {
						accepted[e.ID] = true
					}
				}
				if (a.Retry > 0) != (r.StatusCode == 503) || (r.StatusCode == 503) != (r.Header.Get("Retry-After") == "1") {
					t.Errorf("%d events to retry: status %d, Retry-After %q", a.Retry, r.StatusCode, r.Header.Get("Retry-After"))
				}
				return a.Retry
			}
			before := time.Now()
			refused := map[string]uint64{}
			for refused["http"] == 0 {
				refused["http"] += uint64(post())
			}
			refused["http"] += uint64(post())
			const batch = `[{"decision_id":"d1","input":{"user":"agent:bob"},"result":false},{"decision_id":"d2","input":{"user":"agent:bob"},"result":false}]`
			for range 2 { // as OPA does, until it is taken
				r, text := d.send(t, "/logs", batch)
				if r.StatusCode != 503 || r.Header.Get("Retry-After") != "1" || !bytes.Contains(text, []byte("send the batch again")) {
					t.Fatalf("OPA is answered %d: %s", r.StatusCode, text)
				}
				refused["opa"] += 2
			}
			m := d.scrape(t)
			for source, n := range refused {
				if got := m[fmt.Sprintf("audit_host_queue_refused_by_source_total{source=%q}", source)]; got != float64(n) {
					t.Errorf("%v refusals of %s, want %d", got, source, n)
				}
			}
			release()
			d.request(t, "GET", "/-/healthy", "", 200)
			for r, _ := d.send(t, "/logs", batch); r.StatusCode != 200; r, _ = d.send(t, "/logs", batch) {
			}
			d.stop(t, 0)
			after := time.Now()
			ids := map[string]int{}
			told := map[string]uint64{}
			for line := range strings.Lines(must(t, 0, "", "tail", "-c", config, "--json", "-n", "100000").stdout) {
				var row struct {
					ID        string
					EventType string `json:"event_type"`
					Signature *string
					Payload   struct {
						Action struct {
							Refused     uint64
							First, Last time.Time
							Sources     map[string]struct{ Refused uint64 }
						}
					}
				}
				if err := json.Unmarshal([]byte(line), &row); err != nil {
					t.Fatal(err)
				}
				if row.EventType != "audit.gap" {
					ids[row.ID]++
					continue
				}
				a, sum := row.Payload.Action, uint64(0)
				for source, s := range a.Sources {
					told[source] += s.Refused
					sum += s.Refused
				}
				if sum != a.Refused || a.First.Before(before) || a.Last.After(after) || a.Last.Before(a.First) || row.Signature == nil {
					t.Errorf("gap record %s", line)
				}
			}
			for id := range accepted {
				if ids[id] != 1 {
					t.Errorf("%s is there %d times", id, ids[id])
				}
			}
			if ids["d1"] != 1 || ids["d2"] != 1 || len(ids) != len(accepted)+2 {
				t.Errorf("%d events in the ledger, want %d and OPA's two (%d, %d)", len(ids), len(accepted), ids["d1"], ids["d2"])
			}
			if told["http"] != refused["http"] || told["opa"] < refused["opa"] || len(told) != 2 {
				t.Errorf("told %v, want %v", told, refused)
			}
			verified(t, config)
		})
	}
}
