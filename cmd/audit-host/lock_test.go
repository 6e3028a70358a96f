package main

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

// Somebody else locks the ledger while events flow: the sink waits, nothing
// becomes a dead letter, and all of it lands when the lock is gone.
func TestLockedLedger(t *testing.T) {
	config := home(t)
	edit(t, config, `#busy_timeout = "1s"`, `busy_timeout = "20ms"`)
	d := serve(t, config)
	d.post(t, "ledger", refusal("before"))
	db, err := sqlite3.Open(filepath.Join(filepath.Dir(config), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		d.post(t, "accepted", refusal(fmt.Sprint("while", i)))
	}
	for d.scrape(t)[`audit_host_append_failures_total{sink="ledger"}`] == 0 { // until it has met the lock
		if t.Context().Err() != nil {
			t.Fatal("the sink never met the lock")
		}
	}
	if m := d.scrape(t); m[`audit_host_appended_total{sink="ledger"}`] != 1 || m[`audit_host_pending{sink="ledger"}`] != 50 {
		t.Errorf("behind the lock: %v", m)
	}
	d.request(t, "GET", "/-/ready", "", 200)
	if err := db.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if a := d.post(t, "ledger", refusal("after")); a.Events[0].Sequence != 52 {
		t.Errorf("after the lock: %+v", a.Events[0])
	}
	m := d.scrape(t)
	if m[`audit_host_dlq_landed_total{sink="ledger"}`] != 0 || m[`audit_host_restarts_total{sink="ledger"}`] != 0 || m["audit_host_dead_letters"] != 0 {
		t.Errorf("a lock is no fault of an event or of the plugin: %v", m)
	}
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != 52 {
		t.Errorf("%d rows", v.Rows)
	}
}
