package pipeline

import (
	"crypto/sha256"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
	"github.com/audit-host/audit-host/queue"
)

// TestReceiptWithoutQuery: where an event is the sink has told, so that nobody opens
// the ledger to find out; and it is what the ledger says.
func TestReceiptWithoutQuery(t *testing.T) {
	cfg := parse(t, sample)
	p := open(t, cfg, false)
	send := func(e abi.Event) queue.Seq {
		t.Helper()
		rc, err := p.Recorder.Submit(t.Context(), e)
		if err == nil {
			err = rc.Wait(t.Context(), queue.Committed)
		}
		if err != nil {
			t.Fatal(err)
		}
		at, ok := rc.Seq()
		if !ok {
			t.Fatal("a committed event has no position")
		}
		return at
	}
	find := func(at queue.Seq, e abi.Event) ingest.Landed {
		t.Helper()
		landed, found, err := p.Lookup().Find(t.Context(), at, e.ID, sha256.Sum256(e.Payload))
		if err != nil || !found {
			t.Fatalf("position %d: %v %v", at, found, err)
		}
		return landed
	}
	first, second := refusal(t, "agent:1"), refusal(t, "agent:2")
	one := find(send(first), first)
	two := find(send(second), second)
	again := find(send(first), first) // stored before: its place, and the head as it is now
	if p.lookup.view != nil {
		t.Error("the ledger was opened for a receipt")
	}
	if one.Sequence != 1 || two.Sequence != 2 || again.Sequence != 1 || again.RowHash != one.RowHash || again.Head.Sequence != 2 || again.Head.RowHash != two.RowHash {
		t.Errorf("%+v, %+v, %+v", one, two, again)
	}
	if asked := find(0, first); asked != again {
		t.Errorf("the ledger says %+v, the sink %+v", asked, again)
	}
	// With a trigger in the ledger there is no receipt, by neither.
	if err := p.lookup.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sqlite3.Open(cfg.Sinks[0].Grant.SQL.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Exec("CREATE TRIGGER x AFTER INSERT ON signed_events BEGIN UPDATE signed_events SET payload = '{}' WHERE sequence = new.sequence; END"); err != nil {
		t.Fatal(err)
	}
	third := refusal(t, "agent:3")
	if landed, found, err := p.Lookup().Find(t.Context(), send(third), third.ID, sha256.Sum256(third.Payload)); err == nil {
		t.Errorf("a receipt of a row that a trigger has changed: %+v %v", landed, found)
	}
	_, _ = p.Close(t.Context()) // the ledger is out of order
}

// TestPlaces: what is held of places, and for how long.
func TestPlaces(t *testing.T) {
	var p places
	b := batchOf(t, 1, 3)
	list := []abi.Place{{Sequence: 7, RowHash: [32]byte{7}}, {}, {Sequence: 9, RowHash: [32]byte{9}}}
	at := func(i int, want uint64) {
		t.Helper()
		e := &b.Events[i]
		if landed, ok := p.of(queue.Seq(e.Seq), e.PayloadHash); landed.Sequence != want || ok != (want > 0) || ok && landed.Head.Sequence != 9 {
			t.Errorf("event %d is at %+v, wanted %d", i, landed, want)
		}
	}
	at(0, 0)
	p.note(b, &abi.Result{Places: list[:2]}) // of another batch
	at(0, 0)
	p.note(b, &abi.Result{Places: list})
	at(0, 7)
	at(1, 0) // refused
	at(2, 9)
	if _, ok := p.of(1, b.Events[2].PayloadHash); ok {
		t.Error("the place of another payload")
	}
	p.hold(true)
	at(0, 0)
	p.hold(false)
	at(0, 7)
	later := batchOf(t, 1+recentPlaces, 1)
	p.note(later, &abi.Result{Places: []abi.Place{{Sequence: 8}}})
	at(0, 0)
	at(2, 9)
	replayed := batchOf(t, 0, 1)
	p.note(replayed, &abi.Result{Places: list[:1]})
	if _, ok := p.of(0, replayed.Events[0].PayloadHash); ok {
		t.Error("the place of no position")
	}
}
