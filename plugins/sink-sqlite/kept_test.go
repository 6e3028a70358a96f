//go:build !wasip1

package main

import (
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

// TestRowsAreKeptAsGiven: what a trigger drops or changes is not committed, and
// neither is anything while ids are not kept apart. Mended, the same batch lands.
func TestRowsAreKeptAsGiven(t *testing.T) {
	const noIndex, trigger = "CREATE UNIQUE INDEX idx_signed_events_id", "remove the triggers"
	for name, c := range map[string]struct{ harm, mend, says string }{
		"index dropped":    {"DROP INDEX idx_signed_events_id", "CREATE UNIQUE INDEX idx_signed_events_id ON signed_events(id)", noIndex},
		"index not unique": {"DROP INDEX idx_signed_events_id; CREATE INDEX idx_signed_events_id ON signed_events(id)", "DROP INDEX idx_signed_events_id; CREATE UNIQUE INDEX idx_signed_events_id ON signed_events(id)", noIndex},
		"index on part": {"DROP INDEX idx_signed_events_id; CREATE UNIQUE INDEX idx_signed_events_id ON signed_events(id) WHERE sequence > 5",
			"DROP INDEX idx_signed_events_id; CREATE UNIQUE INDEX idx_signed_events_id ON signed_events(id)", noIndex},
		"rows dropped":  {"CREATE TRIGGER x BEFORE INSERT ON signed_events BEGIN SELECT RAISE(IGNORE); END", "DROP TRIGGER x", trigger},
		"last dropped":  {"CREATE TRIGGER x BEFORE INSERT ON signed_events WHEN new.id = 'id-5' BEGIN SELECT RAISE(IGNORE); END", "DROP TRIGGER x", trigger},
		"rows removed":  {"CREATE TRIGGER x AFTER INSERT ON signed_events BEGIN DELETE FROM signed_events; END", "DROP TRIGGER x", trigger},
		"hash changed":  {"CREATE TRIGGER x AFTER INSERT ON signed_events BEGIN UPDATE signed_events SET row_hash = zeroblob(32) WHERE sequence = new.sequence; END", "DROP TRIGGER x", trigger},
		"moved further": {"CREATE TRIGGER x AFTER INSERT ON signed_events BEGIN UPDATE signed_events SET sequence = sequence + 10 WHERE sequence = new.sequence; END", "DROP TRIGGER x", trigger},
	} {
		for _, first := range []int{0, 3} {
			t.Run(name, func(t *testing.T) {
				n := newNative(t)
				want(t, n.deliver(batchOf(1, 1, events(1, first+1)...)), abi.OK)
				list := events(first+2, first+5)
				list[3] = event(uint64(first+5), "id-5")
				must(t, n.db, c.harm)
				for attempt := range uint32(3) {
					a := n.deliver(batchOf(2, attempt+1, list...))
					want(t, a, abi.Busy)
					if !strings.Contains(a.Message, c.says) {
						t.Errorf("%q lacks %q", a.Message, c.says)
					}
					verified(t, n.db, first+1)
				}
				must(t, n.db, c.mend)
				want(t, n.deliver(batchOf(2, 4, list...)), abi.OK)
				verified(t, n.db, first+5)
			})
		}
	}
}

// TestLongerButAnother: a ledger that is longer than ours and does not go on from
// it is no race that was lost.
func TestLongerButAnother(t *testing.T) {
	for _, how := range []string{"rewritten", "removed"} {
		t.Run(how, func(t *testing.T) {
			n := newNative(t)
			want(t, n.deliver(batchOf(1, 1, events(1, 3)...)), abi.OK)
			insertAsOther(t, n.db, event(9, "foreign"))
			if how == "rewritten" {
				must(t, n.db, "UPDATE signed_events SET row_hash = zeroblob(32) WHERE sequence = 3")
			} else {
				must(t, n.db, "DELETE FROM signed_events WHERE sequence = 3")
			}
			for attempt := range uint32(3) {
				a := n.deliver(batchOf(2, attempt+1, event(4, "d")))
				want(t, a, abi.Busy)
				if !strings.Contains(a.Message, "row 3 of the ledger has another row_hash") || !strings.Contains(a.Message, "accept-head") {
					t.Errorf("%q", a.Message)
				}
			}
			if got := one(t, n.db, "SELECT max(sequence) FROM signed_events"); got != int64(4) {
				t.Errorf("it goes to %v", got)
			}
		})
	}
}
