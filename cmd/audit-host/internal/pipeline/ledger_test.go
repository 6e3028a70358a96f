package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/plugins/bundled"
	"github.com/audit-host/audit-host/queue"
	"github.com/audit-host/audit-host/sign"
)

// reworded has a sink say all that it says in other words.
type reworded struct {
	queue.Sink
	said *string // by the sink
	text string
}

func (s reworded) Deliver(ctx context.Context, b *abi.Batch) abi.Result {
	r := s.Sink.Deliver(ctx, b)
	if *s.said = r.Detail; r.Detail != "" {
		r.Detail = s.text
	}
	return r
}

// TestFaultsGoByNumbers: whatever words sink-sqlite finds for what is wrong with the
// ledger, the fault is the one that its number says.
func TestFaultsGoByNumbers(t *testing.T) {
	wasm, err := bundled.Read("sink-sqlite")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := host.OpenCache(CacheDir(parse(t, sample)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close(context.Background()) })
	run := func(sql string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db, err := sqlite3.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			if err := db.Exec(sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := func(text string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := file("")
	for name, c := range map[string]struct {
		fresh bool // the harm is done before the ledger is made
		harm  func(t *testing.T, path string)
		want  Fault
		says  string // in the plugin's own words, so that it is the fault which is meant
	}{
		"locked":           {false, run("BEGIN IMMEDIATE"), FaultLocked, "another process holds the ledger's lock"},
		"too large":        {false, run("CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(3000000))"), FaultFull, "free some space"},
		"missing":          {true, func(t *testing.T, path string) {}, FaultAccess, "make it with audit-host init"},
		"not a database":   {true, file(strings.Repeat("no database ", 1000)), FaultFormat, "no SQLite database"},
		"another database": {true, func(t *testing.T, path string) { other(t, path); run("CREATE TABLE t (x)")(t, path) }, FaultFormat, "is no ledger"},
		"index dropped":    {false, run("DROP INDEX idx_signed_events_id"), FaultSchema, "lacks the index"},
		"trigger":          {false, run("CREATE TRIGGER x BEFORE INSERT ON signed_events BEGIN SELECT RAISE(IGNORE); END"), FaultSchema, "did not keep"},
		"table changed":    {false, run("ALTER TABLE signed_events RENAME COLUMN agent_id TO agent"), FaultSchema, "no column"},
		"rows removed":     {false, run("DELETE FROM signed_events WHERE sequence > 1"), FaultWentBack, "rows were removed"},
		"rewritten":        {false, run("UPDATE signed_events SET row_hash = zeroblob(32) WHERE sequence = 3"), FaultWentBack, "another row_hash"},
		"replaced": {false, func(t *testing.T, path string) {
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			file("x")(t, path)
		}, FaultReplaced, "is not the one that was opened"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "ledger.db")
			if c.fresh {
				c.harm(t, path)
			}
			s, err := host.Open(t.Context(), wasm, host.Options{Name: "ledger", Cache: cache, Config: []byte("{}"),
				SQL: &host.SQLGrant{Database: path, Create: !c.fresh, MaxSize: 2 << 20}})
			if err != nil {
				t.Fatal(err)
			}
			const text = "(status 26) read-only file system: rows were removed, another writer did not keep a disk I/O error"
			said := ""
			k := keep(reworded{s, &said, text}, path, filepath.Join(dir, "head.json"), Head{}, &places{}, slog.New(slog.DiscardHandler))
			k.doubt = false // else the host's own look comes first
			if !c.fresh {
				if r := k.Deliver(t.Context(), batchOf(t, 1, 3)); r.Outcome != abi.OK {
					t.Fatal(r.Outcome, said)
				}
				c.harm(t, path)
			}
			r := k.Deliver(t.Context(), batchOf(t, 4, 300))
			if got := k.State().Trouble; got.Fault != c.want || !strings.Contains(said, c.says) || got.Text != r.Outcome.String()+": "+text {
				t.Errorf("%s with the reason %s is the fault %q, wanted %q; the plugin said %q", r.Outcome, r.Reason, got.Fault, c.want, said)
			}
			_ = k.Close(t.Context()) // the ledger is out of order
		})
	}
}

// batchOf makes a batch of n events from this position on.
func batchOf(t *testing.T, from, n int) *abi.Batch {
	t.Helper()
	b := &abi.Batch{ID: uint64(from), Attempt: 1, Queue: [16]byte{1}}
	for i := from; i < from+n; i++ {
		e := abi.Event{ID: fmt.Sprint("id-", i), Seq: uint64(i), AgentID: "agent", EventType: "governance.refusal",
			Timestamp: "2026-01-01T00:00:00+00:00", Payload: fmt.Appendf(nil, `{"n":%d}`, i)}
		sign.NewSealer(nil).Seal(&e)
		b.Events = append(b.Events, e)
	}
	return b
}

// TestEveryReasonIsAFault: each has its fault, and each fault but that of the host's
// own its reason.
func TestEveryReasonIsAFault(t *testing.T) {
	if len(faults) != len(abi.Reasons()) {
		t.Fatalf("%d reasons, faults for %d", len(abi.Reasons()), len(faults))
	}
	seen := map[Fault]abi.Reason{}
	for _, why := range abi.Reasons() {
		f := faultOf(abi.Result{Outcome: abi.Busy, Reason: why, Detail: "(status 13) is no ledger"})
		if old, twice := seen[f]; twice || f == "" {
			t.Errorf("%s and %s are the fault %q", old, why, f)
		}
		seen[f] = why
	}
	for _, f := range Faults() {
		if _, ok := seen[f]; !ok {
			t.Errorf("no reason is the fault %s", f)
		}
	}
	if f := faultOf(abi.Result{Outcome: abi.Busy, Reason: 1<<16 - 1}); f != FaultOther {
		t.Errorf("a reason of a later version is the fault %s", f)
	}
	for _, text := range []string{"", "another writer"} {
		if f := faultOf(abi.Result{Outcome: abi.Reject, Detail: text}); f != FaultSchema {
			t.Errorf("REJECT %q is the fault %s", text, f)
		}
	}
}
