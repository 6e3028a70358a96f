package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/event"
)

// awaitLine returns the first line of the daemon's log that has the text.
func (d *process) awaitLine(t *testing.T, text string) string {
	t.Helper()
	deadline := time.After(15 * time.Second) // instead of that of all tests
	for {
		select {
		case line, ok := <-d.lines:
			if strings.Contains(line, text) {
				return line
			}
			if !ok {
				t.Fatalf("the daemon ended before it wrote %q", text)
			}
		case <-deadline:
			t.Fatalf("the daemon has not written %q", text)
		}
	}
}

// remembered waits until that row is the remembered head.
func (d *process) remembered(t *testing.T, row float64) {
	t.Helper()
	for d.scrape(t)["audit_host_ledger_head_sequence"] < row {
		time.Sleep(10 * time.Millisecond)
	}
}

// told wants a fault of the ledger in the log with its mend, among the reasons of
// /-/ready, and in the metrics.
func (d *process) told(t *testing.T, fault, mend string) {
	t.Helper()
	for line := ""; !strings.Contains(line, mend); line = d.awaitLine(t, "fault="+fault+" ") {
	}
	want := 503
	if fault == "locked" {
		want = 200
	}
	if got := string(d.request(t, "GET", "/-/ready", "", want)); !strings.Contains(got, "("+fault+")") {
		t.Errorf("ready: %s", got)
	}
	if m := d.scrape(t); m[fmt.Sprintf("audit_host_ledger_fault{fault=%q}", fault)] != 1 {
		t.Errorf("audit_host_ledger_fault of %s is not 1", fault)
	}
}

// taken posts events that must be durable in spite of what is wrong.
func (d *process) taken(t *testing.T, prefix string, n int) {
	t.Helper()
	for _, e := range d.post(t, "durable", several(prefix, n)).Events {
		if e.Status != event.StatusDurable {
			t.Fatalf("%+v", e)
		}
	}
}

// Each fault of the ledger while it is written: the client is answered all the
// same, the operator is told, and after the mend every event lands, once, without
// a dead letter.
func TestFaultsWhileRunning(t *testing.T) {
	type place struct{ ledger, spare string }
	rename := func(from, to string) error { return os.Rename(from, to) }
	for name, c := range map[string]struct {
		harm        func(t *testing.T, p place) (mend func() error)
		fault, says string
	}{
		"locked": {func(t *testing.T, p place) func() error {
			db := openSQL(t, p.ledger)
			sql(t, db, "BEGIN IMMEDIATE")
			return func() error { return db.Exec("COMMIT") }
		}, "locked", "another process holds the ledger's lock"},
		"unlinked": {func(t *testing.T, p place) func() error {
			if err := os.Link(p.ledger, p.spare); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(p.ledger); err != nil {
				t.Fatal(err)
			}
			return func() error { return rename(p.spare, p.ledger) }
		}, "went_back", "put the newer file back"},
		"not a database": {func(t *testing.T, p place) func() error {
			sql(t, openSQL(t, p.ledger), "PRAGMA wal_checkpoint(TRUNCATE)")
			if err := rename(p.ledger, p.spare); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p.ledger, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
			return func() error { return rename(p.spare, p.ledger) }
		}, "not_a_ledger", "name another in sink.grant.sql.database"},
		"replaced beside its log": {func(t *testing.T, p place) func() error {
			if err := rename(p.ledger, p.spare); err != nil {
				t.Fatal(err)
			}
			copyFile(t, p.spare, p.ledger)
			return func() error { return rename(p.spare, p.ledger) }
		}, "replaced", "belongs to the one before; put that one back"},
		"another database": {func(t *testing.T, p place) func() error {
			sql(t, openSQL(t, p.ledger), "PRAGMA wal_checkpoint(TRUNCATE)")
			if err := rename(p.ledger, p.spare); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p.ledger, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			sql(t, openSQL(t, p.ledger), "CREATE TABLE t (x)")
			return func() error { return rename(p.spare, p.ledger) }
		}, "not_a_ledger", "audit-host init makes one"},
		"index dropped": {func(t *testing.T, p place) func() error {
			db := openSQL(t, p.ledger)
			sql(t, db, "DROP INDEX idx_signed_events_id")
			return func() error {
				return db.Exec("CREATE UNIQUE INDEX idx_signed_events_id ON signed_events(id)")
			}
		}, "schema_changed", "CREATE UNIQUE INDEX idx_signed_events_id ON signed_events(id)"},
		"trigger": {func(t *testing.T, p place) func() error {
			db := openSQL(t, p.ledger)
			sql(t, db, "CREATE TRIGGER x BEFORE INSERT ON signed_events BEGIN SELECT RAISE(IGNORE); END")
			return func() error { return db.Exec("DROP TRIGGER x") }
		}, "schema_changed", "remove the triggers of signed_events"},
		"rows removed": {func(t *testing.T, p place) func() error {
			db := openSQL(t, p.ledger)
			sql(t, db, "CREATE TABLE kept AS SELECT * FROM signed_events WHERE sequence > 15; DELETE FROM signed_events WHERE sequence > 15")
			return func() error {
				return db.Exec("INSERT INTO signed_events SELECT * FROM kept ORDER BY sequence; DROP TABLE kept")
			}
		}, "went_back", "audit-host ledger accept-head"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := home(t, `#busy_timeout = "1s"`, `busy_timeout = "20ms"`)
			p := place{ledgerOf(config), ledgerOf(config) + ".spare"}
			d := serve(t, config)
			d.post(t, "ledger", several("a", 20))
			d.remembered(t, 20)
			mend := c.harm(t, p)
			d.taken(t, "b", 30)
			d.told(t, c.fault, c.says)
			d.taken(t, "c", 5)
			if err := mend(); err != nil {
				t.Fatal(err)
			}
			d.awaitLine(t, "the ledger takes events again")
			d.post(t, "ledger", refusal("last"))
			if m := d.scrape(t); m[fmt.Sprintf("audit_host_ledger_fault{fault=%q}", c.fault)] != 0 || m[`audit_host_dlq_landed_total{sink="ledger"}`] != 0 {
				t.Error("it is still told, or something became a dead letter")
			}
			d.request(t, "GET", "/-/ready", "", 200)
			d.stop(t, 0)
			if got := ids(t, config); len(got) != 56 || got[20] != "b0" || got[49] != "b29" || got[50] != "c0" || got[55] != "last" {
				t.Errorf("%d rows: %q", len(got), got)
			}
			verified(t, config)
		})
	}
}

// A copy that is older, or another ledger, takes the name of the one that is
// written. Nothing lands in it, and all of it in the right one.
func TestLedgerReplacedWhileRunning(t *testing.T) {
	for _, what := range []string{"older copy", "another, longer one"} {
		for _, how := range []string{"moved over it", "with the log gone"} {
			t.Run(what+" "+how, func(t *testing.T) {
				t.Parallel()
				config := home(t)
				ledger, stranger := ledgerOf(config), filepath.Join(t.TempDir(), "stranger.db")
				d := serve(t, config)
				d.post(t, "ledger", several("a", 10))
				d.stop(t, 0)
				copyFile(t, ledger, stranger)
				if what != "older copy" {
					other := home(t)
					d := serve(t, other)
					d.post(t, "ledger", several("x", 200))
					d.stop(t, 0)
					copyFile(t, ledgerOf(other), stranger)
				}
				before, err := os.ReadFile(stranger)
				if err != nil {
					t.Fatal(err)
				}
				d = serve(t, config)
				d.post(t, "ledger", several("b", 10))
				d.remembered(t, 20)
				// The right one, whole: its log is part of it.
				sql(t, openSQL(t, ledger), "PRAGMA wal_checkpoint(TRUNCATE)")
				if err := os.Link(ledger, ledger+".right"); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(stranger, ledger); err != nil {
					t.Fatal(err)
				}
				if how != "moved over it" {
					_ = os.Remove(ledger + "-wal")
					_ = os.Remove(ledger + "-shm")
				}
				d.taken(t, "c", 10)
				d.told(t, "went_back", "audit-host ledger accept-head")
				if after, err := os.ReadFile(ledger); err != nil || string(after) != string(before) {
					t.Errorf("the stranger was written: %v", err)
				}
				if err := os.Rename(ledger+".right", ledger); err != nil {
					t.Fatal(err)
				}
				d.awaitLine(t, "the ledger takes events again")
				d.post(t, "ledger", refusal("last"))
				d.stop(t, 0)
				if got := ids(t, config); len(got) != 31 || got[30] != "last" {
					t.Errorf("%d rows: %q", len(got), got)
				}
				verified(t, config)
			})
		}
	}
}

// An idle daemon notices that the ledger is gone, and that it is back: nobody who
// goes by /-/ready would send the event that shows it.
func TestLedgerIsBackWhileNothingComes(t *testing.T) {
	t.Parallel()
	config := home(t)
	ledger := ledgerOf(config)
	d := serve(t, config)
	d.post(t, "ledger", refusal("a"))
	d.remembered(t, 1)
	move := func(from, to string) {
		for _, ending := range []string{"", "-wal", "-shm"} {
			if err := os.Rename(from+ending, to+ending); err != nil {
				t.Fatal(err)
			}
		}
	}
	move(ledger, ledger+".away")
	d.awaitLine(t, "fault=went_back ")
	d.request(t, "GET", "/-/ready", "", 503)
	move(ledger+".away", ledger)
	d.awaitLine(t, "the ledger takes events again")
	d.request(t, "GET", "/-/ready", "", 200)
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != 1 {
		t.Errorf("%d rows", v.Rows)
	}
}

// A lock that another process holds for ten seconds while events flow costs no
// event, and no dead letter.
func TestLockedForTenSeconds(t *testing.T) {
	t.Parallel()
	config := home(t)
	release := lockLedger(t, config)
	d := serve(t, config)
	until := time.Now().Add(10 * time.Second)
	n := 0
	for ; time.Now().Before(until); n++ {
		d.taken(t, fmt.Sprint("e", n, "-"), 20)
		if n == 0 {
			d.told(t, "locked", "another process holds the ledger's lock")
		}
	}
	release()
	d.post(t, "ledger", refusal("last"))
	m := d.scrape(t)
	if m[`audit_host_dlq_landed_total{sink="ledger"}`] != 0 || m[`audit_host_busy_total{sink="ledger"}`] == 0 {
		t.Errorf("dead letters %v, busy %v", m[`audit_host_dlq_landed_total{sink="ledger"}`], m[`audit_host_busy_total{sink="ledger"}`])
	}
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != uint64(20*n+1) {
		t.Errorf("%d rows, want %d", v.Rows, 20*n+1)
	}
}

// Another process appends to the same ledger, correctly, at the same time: the
// chain is one, and every event is in it once.
func TestTwoProcessesOneLedger(t *testing.T) {
	config := home(t)
	second := filepath.Join(filepath.Dir(config), "second.toml")
	copyFile(t, config, second)
	edit(t, second, `#state_dir = "state"`, `state_dir = "state2"`)
	if err := warm(filepath.Join(filepath.Dir(config), "state2")); err != nil {
		t.Fatal(err)
	}
	daemons := []*process{serve(t, config), serve(t, second)}
	var group sync.WaitGroup
	for i, d := range daemons {
		group.Go(func() {
			for n := range 40 {
				if _, err := postQuietly(d.url, several(fmt.Sprint("d", i, "-", n, "-"), 25)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for i, d := range daemons {
		d.post(t, "ledger", refusal(fmt.Sprint("last", i)))
	}
	// The one that ends writes the log back and empties it: no harm to the other.
	daemons[0].stop(t, 0)
	daemons[1].post(t, "ledger", refusal("after"))
	if m := daemons[1].scrape(t); m[`audit_host_dlq_landed_total{sink="ledger"}`] != 0 || m[`audit_host_ledger_fault{fault="went_back"}`] != 0 {
		t.Error("the other writer was taken for a fault")
	}
	daemons[1].stop(t, 0)
	seen := map[string]bool{}
	for _, id := range ids(t, config) {
		if seen[id] {
			t.Errorf("%s is there twice", id)
		}
		seen[id] = true
	}
	if len(seen) != 2*40*25+3 {
		t.Errorf("%d rows", len(seen))
	}
	verified(t, config)
}

// postQuietly posts durable events and returns how many were acknowledged; an
// error once nobody answers.
func postQuietly(url, body string) (acknowledged int, err error) {
	r, err := http.Post(url+"/v1/events", "application/x-ndjson", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	var a event.Report
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		return 0, err
	}
	for _, e := range a.Events {
		if e.Status == event.StatusDurable {
			acknowledged++
		}
	}
	return acknowledged, nil
}
