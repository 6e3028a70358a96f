//go:build !wasip1

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/queue"
	"github.com/audit-host/audit-host/sign"
)

// installed is the source system's installer (B25): a queue, a recorder with
// its drainer, the plugin in the real host, dead letters beside the ledger.
type installed struct {
	*queue.Recorder
	letters *deadletter.Store
	begun   chan struct{}
}

// announced is a sink that says when a delivery begins, so that a test need
// not look again and again. What went before it is counted by then.
type announced struct {
	queue.Sink
	begun chan struct{}
}

func (a announced) Deliver(ctx context.Context, b *abi.Batch) abi.Result {
	select {
	case a.begun <- struct{}{}:
	default: // nobody waits for so many
	}
	return a.Sink.Deliver(ctx, b)
}

// deliveries waits until n more deliveries have begun.
func (i installed) deliveries(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-i.begun:
		case <-t.Context().Done():
			t.Fatal("no delivery")
		}
	}
}

func install(t *testing.T, o host.Options) installed {
	t.Helper()
	letters, err := deadletter.Open(filepath.Join(t.TempDir(), "dead-letters.db"))
	if err != nil {
		t.Fatal(err)
	}
	s, begun := openSink(t, o), make(chan struct{}, 1000)
	r, err := queue.NewRecorder(t.Context(), queue.RecorderOptions{
		Queue:       queue.NewMemory(queue.MemoryOptions{}),
		Sinks:       []queue.SinkOptions{{Name: "ledger", Sink: announced{s, begun}, Plugin: s.Digest(), Required: true, MaxRestarts: 3}},
		Sealer:      sign.NewSealer(testKey),
		DeadLetters: letters,
		Check:       func(abi.Event) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		// A test that has closed it gets the same report again. What a test
		// leaves undelivered on purpose is an error here, and none of the test.
		if _, err := r.Close(ctx); err != nil && !errors.As(err, new(*queue.RemainingError)) {
			t.Error(err)
		}
		if err := letters.Close(); err != nil {
			t.Error(err)
		}
	})
	return installed{r, letters, begun}
}

func (i installed) submit(t *testing.T, list ...abi.Event) {
	t.Helper()
	for _, e := range list {
		if _, err := i.Submit(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// drained waits until every event has its final outcome and compares them.
func (i installed) drained(t *testing.T, appended, dead uint64) queue.SinkMetrics {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := i.DrainPending(ctx); err != nil {
		t.Fatal(err)
	}
	all := i.Metrics()
	m := all.Sinks[0]
	if m.Appended != appended || m.DLQLanded != dead || m.Pending != 0 || m.Lost != 0 || all.Submitted != appended+dead {
		t.Fatalf("submitted %d: %+v; wanted %d appended and %d dead letters", all.Submitted, m, appended, dead)
	}
	if n, err := i.letters.Count(ctx, ""); n != dead || err != nil {
		t.Fatalf("%d dead letters, %v", n, err)
	}
	return m
}

func TestT21_T24_InstalledRecorderAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	i := install(t, options(path))
	if !i.IsOpen() {
		t.Error("the recorder is not open")
	}
	i.submit(t, event(0, "a"))
	i.drained(t, 1, 0)
	rows := verifiedLedger(t, path, 1)
	if rows[0].EventType != "governance.refusal" || rows[0].AgentID != "agent:alice" || rows[0].ID != "a" {
		t.Errorf("the row is %+v", rows[0])
	}
}

// TestT23_BadPathFailsAndKeeps: attempts fail and are counted, nothing is
// appended, and nothing is lost.
func TestT23_BadPathFailsAndKeeps(t *testing.T) {
	i := install(t, options(filepath.Join(t.TempDir(), "no", "folder", "ledger.db")))
	i.submit(t, event(0, "a"))
	i.deliveries(t, 2)
	m := i.Metrics().Sinks[0]
	if m.AppendFailures < 1 || m.Appended != 0 || m.DLQLanded != 0 || m.Pending != 1 || !strings.Contains(m.LastError, "audit-host init") {
		t.Errorf("%+v", m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	report, err := i.Close(ctx)
	if err == nil || report.Remained != 1 || report.Appended != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestT25_RebuiltTableLandsInTheDeadLetters(t *testing.T) {
	path, db := rebuiltTable(t)
	i := install(t, options(path))
	e := event(0, "a")
	i.submit(t, e)
	m := i.drained(t, 0, 1)
	if m.AppendFailures < 1 || m.DrainerPanics != 0 {
		t.Errorf("%+v", m)
	}
	if n := one(t, db, "SELECT count(*) FROM signed_events"); n != int64(0) {
		t.Errorf("%v rows", n)
	}
	list, err := i.letters.List(t.Context(), deadletter.Filter{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	l := list[0]
	if l.Event.ID != "a" || string(l.Event.Payload) != string(e.Payload) || l.Event.PayloadHash != e.PayloadHash ||
		l.Outcome != abi.Reject || !strings.Contains(l.Reason, "no such column") || len(l.Plugin) != 64 {
		t.Errorf("%+v", l)
	}
}

// TestLockForAWhile: events flow while another process holds the lock; no dead
// letter, no loss, they land afterwards.
func TestLockForAWhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	o := options(path)
	o.SQL.BusyTimeout = 20 * time.Millisecond
	i := install(t, o)
	i.submit(t, event(0, "first"))
	i.drained(t, 1, 0)
	db := openDB(t, path)
	must(t, db, "BEGIN IMMEDIATE")
	for n := range 500 {
		i.submit(t, event(0, fmt.Sprintf("id-%d", n)))
	}
	i.deliveries(t, 5) // that of the first, and four of which three have ended
	if m := i.Metrics().Sinks[0]; m.Appended != 1 || m.Pending != 500 || m.Busies < 3 {
		t.Errorf("%+v", m)
	}
	must(t, db, "COMMIT")
	i.drained(t, 501, 0)
	verifiedLedger(t, path, 501)
}

// TestPoisonAmongGoodOnes: a duplicate with other content and one that no
// table takes become dead letters, alone.
func TestPoisonAmongGoodOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := ledger.Create(path); err != nil {
		t.Fatal(err)
	}
	must(t, openDB(t, path), "CREATE TRIGGER x BEFORE INSERT ON signed_events WHEN new.agent_id = 'agent:mallory' BEGIN SELECT RAISE(ABORT, 'not her'); END")
	i := install(t, options(path))
	for n := range 300 {
		e := event(0, fmt.Sprintf("id-%d", n))
		switch n {
		case 100:
			e = eventAt(0, "id-5", e.Timestamp, "R9")
		case 200:
			e.AgentID = "agent:mallory"
		case 250:
			e = event(0, "id-6") // the same again: stored, not inserted
		}
		i.submit(t, e)
	}
	i.drained(t, 298, 2)
	must(t, openDB(t, path), "DROP TRIGGER x")
	rows := verifiedLedger(t, path, 297)
	for k := 1; k < len(rows); k++ {
		var a, b int
		fmt.Sscanf(rows[k-1].ID, "id-%d", &a)
		fmt.Sscanf(rows[k].ID, "id-%d", &b)
		if b <= a {
			t.Errorf("row %d is %s, after %s", k+1, rows[k].ID, rows[k-1].ID)
		}
	}
}
