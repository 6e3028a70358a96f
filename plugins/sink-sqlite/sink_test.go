//go:build !wasip1

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

// rowHash computes a row's hash from the text of package ledger/chain, without its
// code.
func rowHash(prev [32]byte, sequence uint64, e abi.Event) [32]byte {
	lp := func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	digest := sha256.Sum256(slices.Concat([]byte("audit-host event v1\x00"), lp([]byte(e.ID)), lp([]byte(e.AgentID)),
		lp([]byte(e.EventType)), lp(e.PayloadHash[:]), lp([]byte(e.Timestamp))))
	return sha256.Sum256(slices.Concat([]byte("audit-host row v1\x00"), prev[:], binary.BigEndian.AppendUint64(nil, sequence),
		digest[:], lp(e.Signature), lp([]byte(e.AttestLevel)), lp([]byte(e.KeyID))))
}

// TestB26_ChainIsThatOfTheText compares every column with an independent
// computation.
func TestB26_ChainIsThatOfTheText(t *testing.T) {
	n := newNative(t)
	list := []abi.Event{event(1, "a"), unsigned(event(2, "b")), event(3, "c")}
	want(t, n.deliver(batchOf(1, 1, list[:2]...)), abi.OK)
	want(t, n.deliver(batchOf(2, 1, list[2:]...)), abi.OK)
	prev := [32]byte{}
	for i, r := range verified(t, n.db, 3) {
		e := list[i]
		hash := rowHash(prev, uint64(i+1), e)
		if r.Sequence != uint64(i+1) || !bytes.Equal(r.PrevHash, prev[:]) || !bytes.Equal(r.RowHash, hash[:]) {
			t.Errorf("row %d: sequence %d, prev %x, hash %x; wanted prev %x, hash %x", i+1, r.Sequence, r.PrevHash, r.RowHash, prev, hash)
		}
		if r.ID != e.ID || r.AgentID != e.AgentID || r.EventType != e.EventType || r.Timestamp != e.Timestamp ||
			r.AttestLevel != e.AttestLevel || r.KeyID != e.KeyID || !bytes.Equal(r.Signature, e.Signature) ||
			!bytes.Equal(r.Payload, e.Payload) || !bytes.Equal(r.PayloadHash, e.PayloadHash[:]) {
			t.Errorf("row %d is %+v, the event %+v", i+1, r, e)
		}
		prev = hash
	}
	if v := one(t, n.db, "SELECT count(*) FROM signed_events WHERE signature IS NULL AND key_id IS NULL"); v != int64(1) {
		t.Errorf("%v rows have neither signature nor key id, wanted the unsigned one", v)
	}
	if v := one(t, n.db, "SELECT position FROM queue_positions WHERE queue = x'00000000000000000000000000000001'"); v != int64(3) {
		t.Errorf("position %v, wanted 3", v)
	}
}

// TestOneScriptPerBatch pins what a batch costs: after the first one, a single
// transaction.
func TestOneScriptPerBatch(t *testing.T) {
	n := newNative(t)
	want(t, n.deliver(batchOf(1, 1, events(1, 5)...)), abi.OK)
	n.scripts = 0
	for i := range 10 {
		want(t, n.deliver(batchOf(uint64(i+2), 1, events(10*i+6, 10*i+15)...)), abi.OK)
	}
	if n.scripts != 10 {
		t.Errorf("%d scripts for 10 batches", n.scripts)
	}
	verified(t, n.db, 105)
}

// TestPlaces: each event is told where it is, and whether it was there before.
func TestPlaces(t *testing.T) {
	n := newNative(t)
	deliver := func(o abi.Outcome, stored string, b *abi.Batch) {
		t.Helper()
		want(t, n.deliver(b), o)
		if got := now(n.places); got != stored {
			t.Errorf("stored now: %s, wanted %s", got, stored)
		}
	}
	deliver(abi.OK, "+++", batchOf(1, 1, events(1, 3)...))
	deliver(abi.OK, "---", batchOf(2, 1, events(1, 3)...))
	deliver(abi.OK, "-+-+-", batchOf(3, 1, event(2, "id-000002"), event(4, "new"), event(5, "new"), event(6, "newer"), event(1, "id-000001")))
	deliver(abi.Partial, "+---", batchOf(4, 1, event(7, "seven"), eventAt(8, "id-000001", "2026-01-01T00:00:00+00:00", "R999"), event(8, "id-000003"), event(9, "seven")))
	deliver(abi.OK, "+", batchOf(5, 1, event(10, "ten")))
	// A fresh instance, which knows nothing.
	n.sink = &sink{}
	deliver(abi.OK, "-+", batchOf(5, 2, event(10, "ten"), event(11, "eleven")))
	verified(t, n.db, 8)
	// What is in the database beside the ledger, or in its place, may change rows: then
	// nothing is told, and it is again when that is gone.
	n.foreign = true
	for i, sql := range []string{
		"CREATE TRIGGER x AFTER INSERT ON signed_events BEGIN UPDATE signed_events SET payload = '{}' WHERE sequence = new.sequence; END",
		"CREATE INDEX other ON signed_events(agent_id)", "CREATE TABLE x (y)", "ANALYZE",
	} {
		must(t, n.db, sql)
		for k := range 2 { // the first notices that the schema is another, the next knows it
			deliver(abi.OK, "", batchOf(uint64(10*i+k+6), 1, event(0, fmt.Sprint("foreign ", i, k))))
		}
		must(t, n.db, "DROP TRIGGER IF EXISTS x; DROP INDEX IF EXISTS other; DROP TABLE IF EXISTS x; DROP TABLE IF EXISTS sqlite_stat1")
		if sql == "ANALYZE" {
			must(t, n.db, "DROP TABLE IF EXISTS sqlite_stat4")
		}
		deliver(abi.OK, "", batchOf(uint64(10*i+8), 1, event(0, fmt.Sprint("mended ", i))))
		deliver(abi.OK, "+", batchOf(uint64(10*i+9), 1, event(0, fmt.Sprint("plain ", i))))
	}
}

// TestB15_LostRaces has another writer win before each of the first k scripts
// that write.
func TestB15_LostRaces(t *testing.T) {
	for k := range maxAttempts + 1 {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			n := newNative(t)
			want(t, n.deliver(batchOf(1, 1, event(1, "first"))), abi.OK)
			other := openDB(t, n.path)
			left, tries := k, 0
			n.before = func(mode uint32, _ []guest.Step) {
				if mode != abi.SQLWrite {
					return
				}
				if tries++; left > 0 {
					left--
					insertAsOther(t, other, event(0, fmt.Sprintf("other-%d", left)))
				}
			}
			var pauses []uint32
			a := n.deliver(batchOf(2, 1, event(2, "second")))
			for attempt := uint32(2); a.Outcome == abi.Retry; attempt++ {
				pauses = append(pauses, a.Arg)
				a = n.deliver(batchOf(2, attempt, event(2, "second")))
			}
			if k == maxAttempts {
				want(t, a, abi.Busy)
				if tries != 6 || n.races != 5 || a.Reason != abi.ReasonLocked || a.Arg == 0 || !strings.Contains(a.Message, "6 times") {
					t.Errorf("%d tries, %d races, %q", tries, n.races, a.Message)
				}
				if !slices.Equal(pauses, []uint32{10, 40}) {
					t.Errorf("pauses %v", pauses)
				}
				verified(t, n.db, 1+k)
				// It is a matter of luck, not of the event: it lands.
				want(t, n.deliver(batchOf(2, 7, event(2, "second"))), abi.OK)
				verified(t, n.db, 2+k)
				return
			}
			want(t, a, abi.OK)
			if tries != k+1 || n.races != uint64(k) {
				t.Errorf("%d tries, %d races", tries, n.races)
			}
			if rows := verified(t, n.db, 2+k); rows[1+k].ID != "second" {
				t.Errorf("the last row is %s", rows[1+k].ID)
			}
		})
	}
}

// TestRacesOfOtherBatchesDoNotCount: the budget is a batch's own.
func TestRacesOfOtherBatchesDoNotCount(t *testing.T) {
	n := newNative(t)
	want(t, n.deliver(batchOf(1, 1, event(1, "first"))), abi.OK)
	other := openDB(t, n.path)
	i := 0
	for batch := uint64(2); batch < 10; batch++ {
		lose := true
		n.before = func(mode uint32, _ []guest.Step) {
			if mode == abi.SQLWrite && lose {
				lose = false
				i++
				insertAsOther(t, other, event(0, fmt.Sprintf("other-%d", i)))
			}
		}
		want(t, n.deliver(batchOf(batch, 1, event(batch, fmt.Sprintf("id-%d", batch)))), abi.OK)
	}
	if n.races != 8 {
		t.Errorf("%d races, wanted 8", n.races)
	}
	verified(t, n.db, 17)
}

// TestAnAbandonedBatchLeavesItsRacesBehind: after four lost races the events
// come in another batch, which has six attempts of its own.
func TestAnAbandonedBatchLeavesItsRacesBehind(t *testing.T) {
	n := newNative(t)
	want(t, n.deliver(batchOf(1, 1, event(1, "first"))), abi.OK)
	other := openDB(t, n.path)
	i := 0
	n.before = func(mode uint32, _ []guest.Step) {
		if mode == abi.SQLWrite {
			i++
			insertAsOther(t, other, event(0, fmt.Sprintf("other-%d", i)))
		}
	}
	for batch := uint64(2); batch < 5; batch++ {
		for attempt := uint32(1); attempt <= 2; attempt++ {
			want(t, n.deliver(batchOf(batch, attempt, event(2, "second"))), abi.Retry)
		}
	}
	n.before = nil
	want(t, n.deliver(batchOf(5, 1, event(2, "second"))), abi.OK)
	verified(t, n.db, 14)
}

// TestRaceForTheFirstRow: the ledger was empty when the head was read.
func TestRaceForTheFirstRow(t *testing.T) {
	n := newNative(t)
	must(t, n.db, strings.Join(chain.Schema, ";"))
	other := openDB(t, n.path)
	n.before = func(mode uint32, _ []guest.Step) {
		if mode == abi.SQLWrite {
			n.before = nil
			insertAsOther(t, other, event(0, "other"))
		}
	}
	want(t, n.deliver(batchOf(1, 1, event(1, "a"))), abi.OK)
	if rows := verified(t, n.db, 2); n.races != 1 || rows[0].ID != "other" {
		t.Errorf("%d races, the first row is %s", n.races, rows[0].ID)
	}
}

func TestRedeliveryInsertsNothing(t *testing.T) {
	n := newNative(t)
	list := events(1, 250)
	want(t, n.deliver(batchOf(1, 1, list...)), abi.OK)
	for name, deliver := range map[string]func() guest.Answer{
		"same batch again":     func() guest.Answer { return n.deliver(batchOf(1, 2, list...)) },
		"in another batch":     func() guest.Answer { return n.deliver(batchOf(2, 1, list[100:]...)) },
		"to a fresh instance":  func() guest.Answer { n.sink = &sink{}; return n.deliver(batchOf(1, 1, list...)) },
		"after unknown commit": func() guest.Answer { n.sink.begun = false; return n.deliver(batchOf(3, 1, list[:3]...)) },
	} {
		want(t, deliver(), abi.OK)
		if rows := verified(t, n.db, 250); rows[249].ID != "id-000250" {
			t.Fatalf("%s: the last row is %s", name, rows[249].ID)
		}
	}
	// Some new among them.
	want(t, n.deliver(batchOf(4, 1, events(200, 300)...)), abi.OK)
	rows := verified(t, n.db, 300)
	if rows[299].ID != "id-000300" {
		t.Fatalf("the last row is %s", rows[299].ID)
	}
}

func TestSameIDOtherContent(t *testing.T) {
	const later = "2026-01-01T00:00:01+00:00"
	minted := func(e abi.Event) abi.Event { e.Minted = true; return e }
	typed := func(e abi.Event) abi.Event {
		e.EventType = "governance.warn"
		sign.NewSealer(testKey).Seal(&e)
		return e
	}
	first := event(1, "a")
	for name, c := range map[string]struct {
		again  abi.Event
		stored bool
	}{
		"same":                                 {event(2, "a"), true},
		"same, unsigned":                       {unsigned(event(2, "a")), true},
		"other time by the caller":             {eventAt(2, "a", later, "R001"), false},
		"other time by the host":               {minted(eventAt(2, "a", later, "R001")), true},
		"other time of another length":         {minted(eventAt(2, "a", "2026-01-01T00:00:01.123+00:00", "R001")), true},
		"other rule, time by the host":         {minted(eventAt(2, "a", later, "R002")), false},
		"other rule":                           {eventAt(2, "a", first.Timestamp, "R002"), false},
		"other type":                           {typed(event(2, "a")), false},
		"other type, time stamped by the host": {typed(minted(eventAt(2, "a", later, "R001"))), false},
	} {
		for _, where := range []string{"ledger", "batch"} {
			t.Run(name+" in the "+where, func(t *testing.T) {
				n := newNative(t)
				list := []abi.Event{event(3, "b"), c.again, event(4, "c")}
				if where == "ledger" {
					want(t, n.deliver(batchOf(1, 1, first)), abi.OK)
				} else {
					list = append([]abi.Event{first}, list...)
				}
				a := n.deliver(batchOf(2, 1, list...))
				if c.stored {
					want(t, a, abi.OK)
				} else {
					want(t, a, abi.Partial)
					reason := n.verdicts[uint32(len(list)-2)]
					for _, hash := range [][32]byte{first.PayloadHash, c.again.PayloadHash} {
						if !strings.Contains(reason, hex.EncodeToString(hash[:])) {
							t.Errorf("the reason %q lacks %x", reason, hash)
						}
					}
				}
				verified(t, n.db, 3)
			})
		}
	}
}

// TestPositionEndsBeforeAConflict: what goes to the dead letters after the
// transaction must not be passed over if the process ends in between.
func TestPositionEndsBeforeAConflict(t *testing.T) {
	n := newNative(t)
	position := func() any { return one(t, n.db, "SELECT max(position) FROM queue_positions") }
	want(t, n.deliver(batchOf(1, 1, event(1, "a"))), abi.OK)
	want(t, n.deliver(batchOf(2, 1, event(2, "b"), event(3, "c"), eventAt(4, "a", "x", "R9"), event(5, "d"))), abi.Partial)
	if p := position(); p != int64(3) {
		t.Errorf("position %v, wanted 3", p)
	}
	want(t, n.deliver(batchOf(3, 1, eventAt(6, "a", "x", "R9"))), abi.Partial)
	if p := position(); p != int64(3) {
		t.Errorf("position %v after a batch of one conflict, wanted 3", p)
	}
	want(t, n.deliver(batchOf(4, 1, event(7, "e"))), abi.OK)
	want(t, n.deliver(batchOf(4, 2, event(1, "a"))), abi.OK)
	if p := position(); p != int64(7) {
		t.Errorf("position %v, wanted 7: it never goes back", p)
	}
	b := batchOf(5, 1, event(8, "f"))
	b.Queue = [16]byte{}
	want(t, n.deliver(b), abi.OK)
	if v := one(t, n.db, "SELECT count(*) FROM queue_positions"); v != int64(1) {
		t.Errorf("%v positions; a batch of no queue has none", v)
	}
	verified(t, n.db, 6)
}
