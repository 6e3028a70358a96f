//go:build !wasip1

package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/internal/plugintest"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

var cache *host.Cache

// TestMain keeps compiled code for the whole run.
func TestMain(m *testing.M) { os.Exit(plugintest.Main(m, &cache, host.StartSQLite)) }

// options are those of a sink on a database of its own.
func options(path string) host.Options {
	return host.Options{Name: "ledger", Cache: cache, SQL: &host.SQLGrant{Database: path, Create: true}}
}

func openSink(t testing.TB, o host.Options) *host.Sink {
	t.Helper()
	s, err := plugintest.Open(t, "sink-sqlite", o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func deliver(t testing.TB, s *host.Sink, b *abi.Batch, o abi.Outcome) abi.Result {
	t.Helper()
	r := s.Deliver(t.Context(), b)
	if r.Outcome != o {
		t.Fatalf("%s: %s\n%s; wanted %s", r.Outcome, r.Detail, r.Stderr, o)
	}
	return r
}

// verifiedLedger reads the ledger as an auditor does and checks the chain.
func verifiedLedger(t testing.TB, path string, rows uint64) []chain.Row {
	t.Helper()
	l, err := ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	v := sign.NewVerifier(testKey.Public().(ed25519.PublicKey))
	var list []chain.Row
	var head sign.Link
	for r, err := range l.Rows(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		c := v.Check(head, []chain.Row{*r})
		if c.Break != nil {
			t.Fatal(c.Break)
		}
		head = c.Head
		list = append(list, chain.Row{ID: r.ID, AgentID: r.AgentID, EventType: r.EventType, Sequence: r.Sequence})
	}
	if head.Sequence != rows {
		t.Fatalf("%d rows, wanted %d", head.Sequence, rows)
	}
	return list
}

func TestT21_OneRefusalIsOneRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := openSink(t, options(path))
	deliver(t, s, batchOf(1, 1, event(1, "a")), abi.OK)
	if rows := verifiedLedger(t, path, 1); rows[0].EventType != "governance.refusal" || rows[0].AgentID != "agent:alice" {
		t.Errorf("the row is %+v", rows[0])
	}
}

// TestT22_OpeningTouchesNoDatabase: the plugin opens on a path where nothing
// can be, and makes nothing.
func TestT22_OpeningTouchesNoDatabase(t *testing.T) {
	dir := t.TempDir()
	openSink(t, options(filepath.Join(dir, "no", "such", "folder", "ledger.db")))
	s := openSink(t, options(filepath.Join(dir, "ledger.db")))
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	deliver(t, s, batchOf(1, 1, event(1, "a")), abi.OK)
	verifiedLedger(t, filepath.Join(dir, "ledger.db"), 1)
}

// TestT23_BadPathKeepsTheEvents: the failure is told and waited for, and when
// the path is mended the same batch lands.
func TestT23_BadPathKeepsTheEvents(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "folder")
	path := filepath.Join(dir, "ledger.db")
	o := options(path)
	o.SQL.Create = false
	s := openSink(t, o)
	for attempt := uint32(1); attempt <= 3; attempt++ {
		r := deliver(t, s, batchOf(1, attempt, event(1, "a")), abi.Busy)
		if r.RetryAfter <= 0 || !strings.Contains(r.Detail, path) || !strings.Contains(r.Detail, "audit-host init") || !strings.Contains(r.Detail, "create = true") {
			t.Errorf("after %s: %q", r.RetryAfter, r.Detail)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, batchOf(1, 4, event(1, "a")), abi.Busy)
	if err := ledger.Create(path); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, batchOf(1, 5, event(1, "a")), abi.OK)
	verifiedLedger(t, path, 1)
}

// rebuiltTable makes a ledger whose table somebody has made anew, without
// event_type and without payload, key_id and row_hash.
func rebuiltTable(t *testing.T) (path string, db *sqlite3.Conn) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ledger.db")
	if err := ledger.Create(path); err != nil {
		t.Fatal(err)
	}
	db = openDB(t, path)
	must(t, db, `DROP TABLE signed_events;
		CREATE TABLE signed_events (id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, payload_hash BLOB NOT NULL, signature BLOB,
			attest_level TEXT NOT NULL DEFAULT 'unsigned', timestamp TEXT NOT NULL, prev_hash BLOB, sequence INTEGER);
		CREATE UNIQUE INDEX idx_signed_events_sequence ON signed_events(sequence)`)
	return path, db
}

func TestT25_RebuiltTableInTheRealHost(t *testing.T) {
	path, db := rebuiltTable(t)
	s := openSink(t, options(path))
	r := deliver(t, s, batchOf(1, 1, event(1, "a")), abi.Reject)
	if !strings.Contains(r.Detail, "no such column") {
		t.Errorf("%q lacks SQLite's text", r.Detail)
	}
	if n := one(t, db, "SELECT count(*) FROM signed_events"); n != int64(0) {
		t.Errorf("%v rows", n)
	}
}

// TestT26_TheHostsTextsAreClassified provokes each violation for real: the
// classification lives by SQLite's text.
func TestT26_TheHostsTextsAreClassified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := openSink(t, options(path))
	deliver(t, s, batchOf(1, 1, event(1, "a")), abi.OK)
	// On the id: looked up, and stored already.
	r := deliver(t, s, batchOf(2, 1, event(2, "a"), event(3, "b"), event(4, "b")), abi.OK)
	if r.Races != 0 {
		t.Errorf("%d races", r.Races)
	}
	// On another index.
	must(t, openDB(t, path), "CREATE UNIQUE INDEX x ON signed_events(timestamp) WHERE sequence > 2")
	deliver(t, s, batchOf(3, 1, event(5, "c")), abi.OK)
	r = deliver(t, s, batchOf(4, 1, event(6, "d")), abi.Reject)
	if r.Races != 0 || !strings.Contains(r.Detail, "UNIQUE constraint failed: signed_events.timestamp") {
		t.Errorf("%d races, %q", r.Races, r.Detail)
	}
	must(t, openDB(t, path), "DROP INDEX x")
	verifiedLedger(t, path, 3)
}

func TestT27_FreshDeadLettersAreNone(t *testing.T) {
	d, err := deadletter.Open(filepath.Join(t.TempDir(), "dead-letters.db"))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := d.Count(t.Context(), ""); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestLockOfOthersIsWaitedFor: BUSY while somebody holds the lock, and the
// same batch lands afterwards.
func TestLockOfOthersIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	o := options(path)
	o.SQL.BusyTimeout = 10 * time.Millisecond
	s := openSink(t, o)
	deliver(t, s, batchOf(1, 1, event(1, "a")), abi.OK)
	db := openDB(t, path)
	must(t, db, "BEGIN IMMEDIATE")
	for attempt := uint32(1); attempt <= 10; attempt++ {
		r := deliver(t, s, batchOf(2, attempt, event(2, "b")), abi.Busy)
		if !strings.Contains(r.Detail, "locked") || r.RetryAfter != pauseLocked {
			t.Fatalf("%q, after %s", r.Detail, r.RetryAfter)
		}
	}
	must(t, db, "ROLLBACK")
	deliver(t, s, batchOf(2, 11, event(2, "b")), abi.OK)
	verifiedLedger(t, path, 2)
}

// TestRacingWriters: two plugins and a writer of another kind append to one
// ledger at once. Every event lands once, the chain verifies, the races are
// counted.
func TestRacingWriters(t *testing.T) {
	const batches, size = 100, 4
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := ledger.Create(path); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	races := make([]uint64, 2)
	for w := range races {
		s := openSink(t, options(path))
		wg.Go(func() {
			for i := range batches {
				var list []abi.Event
				for k := range size {
					list = append(list, event(uint64(i*size+k+1), fmt.Sprintf("%d-%d-%d", w, i, k)))
				}
				b := batchOf(uint64(i+1), 1, list...)
				b.Queue[0] = byte(w + 1)
				for done := false; !done; b.Attempt++ {
					r := s.Deliver(t.Context(), b)
					races[w] += r.Races
					switch r.Outcome {
					case abi.OK:
						done = true
					case abi.Retry, abi.Busy: // also after six lost races
					default:
						t.Errorf("writer %d, batch %d: %s: %s", w, i, r.Outcome, r.Detail)
						done = true
					}
				}
			}
		})
	}
	db := openDB(t, path)
	must(t, db, "PRAGMA busy_timeout = 60000")
	for i := range batches {
		insertAsOther(t, db, event(0, fmt.Sprintf("other-%d", i)))
	}
	wg.Wait()
	if races[0]+races[1] == 0 {
		t.Error("no race was lost: the test did not test it")
	}
	t.Logf("%d and %d races in %d batches", races[0], races[1], 2*batches)
	seen := map[string]bool{}
	for _, r := range verifiedLedger(t, path, 2*batches*size+batches) {
		if seen[r.ID] {
			t.Errorf("%s is there twice", r.ID)
		}
		seen[r.ID] = true
	}
}

// TestRedeliveryToAFreshPlugin: what was committed before an unknown outcome
// counts as stored when it comes again, to this plugin or the next.
func TestRedeliveryToAFreshPlugin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	deliver(t, openSink(t, options(path)), batchOf(1, 1, events(1, 300)...), abi.OK)
	s := openSink(t, options(path))
	deliver(t, s, batchOf(1, 2, events(1, 300)...), abi.OK)
	deliver(t, s, batchOf(2, 1, events(250, 400)...), abi.OK)
	verifiedLedger(t, path, 400)
}

// TestVerdictOfAConflict: the other events of the batch land.
func TestVerdictOfAConflict(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := openSink(t, options(path))
	deliver(t, s, batchOf(1, 1, event(1, "a")), abi.OK)
	r := deliver(t, s, batchOf(2, 1, event(2, "b"), eventAt(3, "a", "2026-01-01T00:00:00+00:00", "R9"), event(4, "c")), abi.Partial)
	if len(r.Verdicts) != 3 || r.Verdicts[0].Code != abi.OK || r.Verdicts[1].Code != abi.Reject || r.Verdicts[2].Code != abi.OK ||
		!strings.Contains(r.Verdicts[1].Reason, "row 1 of the ledger") {
		t.Errorf("verdicts %+v", r.Verdicts)
	}
	verifiedLedger(t, path, 3)
}

// TestBoundaryValues: what the ABI allows at its edges goes through unchanged.
func TestBoundaryValues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := openSink(t, options(path))
	long := event(1, strings.Repeat("é", 64))
	long.AgentID, long.EventType = strings.Repeat("a", 256), strings.Repeat("t", 64)
	big := event(2, "big")
	big.Payload = []byte(`{"action":{"kind":"bash","command":"` + strings.Repeat("x", 5<<20) + `"},"timestamp":"2026-01-01T00:00:00+00:00"}`)
	odd := event(3, "'; DROP TABLE signed_events; --")
	odd.Payload = []byte("{\"a\":\"\u2028\x7f\"}")
	list := []abi.Event{long, big, odd}
	for i := range list {
		sign.NewSealer(testKey).Seal(&list[i])
	}
	deliver(t, s, batchOf(1, 1, list...), abi.OK)
	deliver(t, s, batchOf(1, 2, list...), abi.OK)
	verifiedLedger(t, path, 3)
}

// TestLargeBatchesFitIntoTheDefaultMemory: a batch takes some 850 bytes an
// event besides its texts, and looking up ids leaves garbage; without a goal
// for its memory Go would let it grow beyond the cap at the second batch.
func TestLargeBatchesFitIntoTheDefaultMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := openSink(t, options(path))
	list := events(1, 32_768)
	for i := range list {
		list[i] = unsigned(list[i])
	}
	for batch := uint64(1); batch <= 4; batch++ {
		deliver(t, s, batchOf(batch, 1, list...), abi.OK)
	}
	verifiedLedger(t, path, 32_768)
}

// TestConfigurationIsRefused: BAD_CONFIG is an error of opening.
func TestConfigurationIsRefused(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "ledger.db"))
	o.Config = []byte(`{"database":"x"}`)
	var refused *host.ConfigError
	if s, err := plugintest.Open(t, "sink-sqlite", o); !errors.As(err, &refused) {
		t.Errorf("%v, %v", s, err)
	}
	o.Config, o.SQL = nil, nil
	if s, err := plugintest.Open(t, "sink-sqlite", o); err == nil || !strings.Contains(err.Error(), "[sink.grant.sql]") {
		t.Errorf("without the grant: %v, %v", s, err)
	}
}

// TestMemoryStaysFlat: ten thousand batches, each of which leaves garbage, in
// a memory that could not hold the garbage of a thousand. It is the collector
// inside the guest that is tested here.
func TestMemoryStaysFlat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	o := options(path)
	o.Memory = 12 << 20
	s := openSink(t, o)
	b := batchOf(1, 1, events(1, 10)...)
	b.Queue = [16]byte{} // no position to write, so that nothing waits for a disk
	deliver(t, s, b, abi.OK)
	for attempt := uint32(2); attempt <= 10_000; attempt++ {
		b.Attempt = attempt
		deliver(t, s, b, abi.OK)
	}
	verifiedLedger(t, path, 10)
}

// BenchmarkDeliver is the whole sink stage: frame, guest, chain, SQLite, one
// synced transaction per batch.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{1, 16, 256, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := openSink(b, options(filepath.Join(b.TempDir(), "ledger.db")))
			list := make([]abi.Event, size)
			batch := batchOf(0, 1, list...)
			n := 0
			sealer := sign.NewSealer(nil)
			for b.Loop() {
				b.StopTimer()
				for i := range list {
					n++
					list[i] = event0(uint64(n))
					sealer.Seal(&list[i])
				}
				batch.Events = list
				batch.ID++
				b.StartTimer()
				deliver(b, s, batch, abi.OK)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// event0 makes an event of some 400 bytes that is not sealed.
func event0(n uint64) abi.Event {
	const at = "2026-01-01T00:00:00.123456+00:00"
	return abi.Event{ID: fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", n), Seq: n, AgentID: "agent:alice", EventType: "governance.refusal", Timestamp: at,
		Payload: fmt.Appendf(nil, `{"action":{"command":%q,"cwd":"/srv/app","kind":"bash"},"agent_id":"agent:alice",`+
			`"decision":{"decision":"refuse","reason":"deletes data outside of the working directory","rule_id":"R001"},"timestamp":%q}`,
			"rm -rf "+strings.Repeat("/srv/data/one ", 12), at)}
}
