//go:build !wasip1

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
	"github.com/audit-host/audit-host/ledger/chain"
)

// TestT26_ErrorsAreClassifiedByTheirIndex: what counts as the race for the
// sequence is a UNIQUE violation on the sequence, and nothing else; BUSY is
// waited for.
func TestT26_ErrorsAreClassifiedByTheirIndex(t *testing.T) {
	const unique = "UNIQUE constraint failed: "
	for _, c := range []struct {
		status abi.SQLStatus
		text   string
		want   class
	}{
		{0, "", done},
		{abi.SQLGuardFailed, "", lostRace},
		{2067, unique + "signed_events.sequence", lostRace},
		{1555, unique + "signed_events.sequence", lostRace},
		{2579, unique + "signed_events.sequence", lostRace},
		{2067, "append: constraint failed: " + unique + "signed_events.sequence", lostRace},
		{2067, "append: constraint failed: " + unique + "signed_events.id", sameID},
		{1555, unique + "signed_events.id", sameID},
		{2067, unique + "signed_events.row_hash", never},
		{2067, unique + "other.sequence", never},
		{2067, unique + "signed_events.id, signed_events.agent_id", never},
		{2067, "", never},
		// Not a UNIQUE violation, whatever the text.
		{1811, unique + "signed_events.sequence", never}, // RAISE in a trigger
		{275, unique + "signed_events.sequence", never},  // CHECK
		{1, unique + "signed_events.sequence", never},
		{5, unique + "signed_events.sequence", wait},
		{5, "database is locked", wait}, {261, "database is locked", wait}, {517, "database is locked", wait},
		{6, "", wait}, {262, "", wait}, {8, "", wait}, {1032, "", wait}, {10, "", wait}, {778, "", wait}, {11, "", wait},
		{13, "", wait}, {14, "", wait}, {26, "", wait}, {3, "", wait}, {7, "", wait}, {9, "", wait}, {15, "", wait},
		{23, "", wait}, {abi.SQLTimeout, "", wait}, {abi.SQLBroken, "", wait}, {abi.SQLReplaced, "", wait}, {abi.SQLRefused, "", wait},
		{1, "no such table: signed_events", never}, {1299, "NOT NULL constraint failed: signed_events.id", never},
		{18, "string or blob too big", never}, {20, "datatype mismatch", never}, {3091, "cannot store TEXT value", never},
		{abi.SQLTooLarge, "", never}, {abi.SQLDiskFailed, "", wait}, {0x1234567, "a status of a later host", wait},
	} {
		if got := classify(c.status, c.text); got != c.want {
			t.Errorf("status %d %q is class %d, wanted %d", c.status, c.text, got, c.want)
		}
	}
}

// TestWhatWaitingMendsKeepsTheBatch fails each script in turn, and then lets
// the same batch land.
func TestWhatWaitingMendsKeepsTheBatch(t *testing.T) {
	for status, why := range map[abi.SQLStatus]abi.Reason{5: abi.ReasonLocked, 6: abi.ReasonLocked, 13: abi.ReasonFull, 14: abi.ReasonNoAccess,
		10: abi.ReasonIO, 778: abi.ReasonIO, 8: abi.ReasonReadOnly, 11: abi.ReasonCorrupt, 26: abi.ReasonFormat, 3: abi.ReasonNoAccess,
		abi.SQLBroken: abi.ReasonOther, abi.SQLReplaced: abi.ReasonReplaced, abi.SQLTimeout: abi.ReasonOther, abi.SQLDiskFailed: abi.ReasonIO} {
		for failing := 1; failing <= 4; failing++ {
			t.Run(fmt.Sprintf("status %d at script %d", status, failing), func(t *testing.T) {
				n := newNative(t)
				must(t, n.db, strings.Join(chain.Schema, ";"))
				script := 0
				n.fault = func(uint32) (abi.SQLStatus, string) {
					if script++; script == failing {
						return status, "as the test wants"
					}
					return 0, ""
				}
				// Scripts: look at the database, its head, the ids, append.
				a := n.deliver(batchOf(1, 1, events(1, 3)...))
				want(t, a, abi.Busy)
				if a.Reason != why {
					t.Errorf("the reason is %s, wanted %s", a.Reason, why)
				}
				if a.Arg == 0 || !strings.Contains(a.Message, "as the test wants") {
					t.Errorf("%s(%d) %q", a.Outcome, a.Arg, a.Message)
				}
				verified(t, n.db, 0)
				want(t, n.deliver(batchOf(1, 2, events(1, 3)...)), abi.OK)
				verified(t, n.db, 3)
			})
		}
	}
}

// TestCommittedButBroken: the engine dies after the commit. The batch comes
// again and counts as stored.
func TestCommittedButBroken(t *testing.T) {
	n := newNative(t)
	want(t, n.deliver(batchOf(1, 1, events(1, 3)...)), abi.OK)
	guest.UseHost(n.host(func(mode uint32, steps []guest.Step, size int) (abi.SQLStatus, []byte) {
		status, answer := n.run(mode, steps, size)
		if status == abi.SQLDone && mode == abi.SQLWrite {
			return abi.SQLBroken, []byte("the engine trapped")
		}
		return status, answer
	}))
	a := n.deliver(batchOf(2, 1, events(4, 6)...))
	want(t, a, abi.Busy)
	guest.UseHost(n.host(n.run))
	want(t, n.deliver(batchOf(2, 2, events(4, 6)...)), abi.OK)
	want(t, n.deliver(batchOf(3, 1, events(7, 7)...)), abi.OK)
	verified(t, n.db, 7)
}

func TestMissingLedgerNamesTheMend(t *testing.T) {
	n := newNative(t)
	n.fault = func(uint32) (abi.SQLStatus, string) {
		return sqliteCantOpen, "open database x.db: there is no such file"
	}
	a := n.deliver(batchOf(1, 1, event(1, "a")))
	want(t, a, abi.Busy)
	for _, word := range []string{"x.db", "audit-host init", "create = true"} {
		if !strings.Contains(a.Message, word) {
			t.Errorf("%q lacks %q", a.Message, word)
		}
	}
}

// TestForeignDatabasesAreRefused: nothing is written into what is not a ledger
// of this version, and no event is lost for it.
func TestForeignDatabasesAreRefused(t *testing.T) {
	schema := strings.Join(chain.Schema, ";") + ";"
	for name, c := range map[string]struct{ sql, says string }{
		"other application":   {schema + "PRAGMA application_id = 7", "its application_id is 7"},
		"no application":      {"CREATE TABLE t (x)", "its application_id is 0"},
		"the source system's": {"CREATE TABLE signed_events (id TEXT PRIMARY KEY, sequence INTEGER)", "its application_id is 0"},
		"empty of another":    {"PRAGMA application_id = 252006673", "its application_id is 252006673"},
		"a later format":      {schema + "PRAGMA user_version = 2", "the format 2"},
		"rows cut off before": {schema + "INSERT INTO sqlite_sequence VALUES ('signed_events', 5)", "ends at row 0 and had 5"},
		"B26 row without a sequence": {schema + "DROP TABLE signed_events; CREATE TABLE signed_events (id, sequence INTEGER, row_hash);" +
			"INSERT INTO signed_events VALUES ('a', NULL, x'00')", "rows without a sequence"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNative(t)
			must(t, n.db, c.sql)
			before := one(t, n.db, "SELECT group_concat(sql) FROM sqlite_schema")
			a := n.deliver(batchOf(1, 1, event(1, "a")))
			want(t, a, abi.Busy)
			if !strings.Contains(a.Message, c.says) {
				t.Errorf("%q lacks %q", a.Message, c.says)
			}
			if after := one(t, n.db, "SELECT group_concat(sql) FROM sqlite_schema"); after != before {
				t.Errorf("the schema was %v and is %v", before, after)
			}
		})
	}
}

// TestLedgerChangedUnderneath: the head that the plugin wrote is gone.
func TestLedgerChangedUnderneath(t *testing.T) {
	for name, c := range map[string]struct{ sql, says string }{
		"cut":       {"DELETE FROM signed_events WHERE sequence = 3", "ended at row 3 before and ends at row 2"},
		"emptied":   {"DELETE FROM signed_events", "ended at row 3 before and ends at row 0"},
		"rewritten": {"UPDATE signed_events SET row_hash = zeroblob(32) WHERE sequence = 3", "row 3 of the ledger has another row_hash"},
		"replaced": {"DROP TABLE signed_events; DROP TABLE queue_positions; PRAGMA application_id = 0",
			"its application_id is 0"}, // sqlite_sequence stays, so it is not empty
	} {
		t.Run(name, func(t *testing.T) {
			n := newNative(t)
			want(t, n.deliver(batchOf(1, 1, events(1, 3)...)), abi.OK)
			must(t, n.db, c.sql)
			rows := func() any {
				if name == "replaced" {
					return nil
				}
				return one(t, n.db, "SELECT count(*) FROM signed_events")
			}
			before := rows()
			for attempt := range uint32(3) {
				a := n.deliver(batchOf(2, attempt+1, event(4, "d")))
				if name == "replaced" && attempt == 0 {
					want(t, a, abi.Reject) // no such table: SQLite does not know that it was there
					continue
				}
				want(t, a, abi.Busy)
				if !strings.Contains(a.Message, c.says) {
					t.Errorf("%q lacks %q", a.Message, c.says)
				}
			}
			if after := rows(); after != before {
				t.Errorf("%v rows before, %v after", before, after)
			}
		})
	}
}

// TestLedgerIsMadeOnce: two plugins find an empty database; one makes the
// ledger, the other is told to come again.
func TestLedgerIsMadeOnce(t *testing.T) {
	n := newNative(t)
	other := openDB(t, n.path)
	n.before = func(mode uint32, _ []guest.Step) {
		if mode == abi.SQLWrite {
			n.before = nil
			must(t, other, "BEGIN;"+strings.Join(chain.Schema, ";")+";COMMIT")
			insertAsOther(t, other, event(0, "other"))
		}
	}
	want(t, n.deliver(batchOf(1, 1, event(1, "a"))), abi.Busy)
	want(t, n.deliver(batchOf(1, 2, event(1, "a"))), abi.OK)
	verified(t, n.db, 2)
}

// TestT25_RebuiltTableRejects: a table without event_type takes nothing, and
// no repetition changes that.
func TestT25_RebuiltTableRejects(t *testing.T) {
	for name, sql := range map[string]string{
		// As the source system's test has it.
		"rebuilt": `DROP TABLE signed_events;
			CREATE TABLE signed_events (id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, payload_hash BLOB NOT NULL, signature BLOB,
				attest_level TEXT NOT NULL DEFAULT 'unsigned', timestamp TEXT NOT NULL, prev_hash BLOB, sequence INTEGER);
			CREATE UNIQUE INDEX idx_signed_events_sequence ON signed_events(sequence)`,
		"column dropped": "ALTER TABLE signed_events DROP COLUMN event_type",
		"column added":   "ALTER TABLE signed_events ADD COLUMN more TEXT CHECK (id <> 'second')",
		"other index":    "CREATE UNIQUE INDEX x ON signed_events(agent_id)",
		"trigger":        "CREATE TRIGGER x BEFORE INSERT ON signed_events BEGIN SELECT RAISE(ABORT, 'no more'); END",
	} {
		for _, when := range []string{"before the first batch", "between two"} {
			t.Run(name+" "+when, func(t *testing.T) {
				n := newNative(t)
				must(t, n.db, strings.Join(chain.Schema, ";"))
				rows := int64(0)
				if when == "between two" {
					want(t, n.deliver(batchOf(1, 1, event(1, "first"))), abi.OK)
					if name != "rebuilt" {
						rows = 1
					}
				}
				must(t, n.db, sql)
				n.foreign = true // it has more than a ledger's, and no place need be told
				e := event(2, "second")
				if name == "other index" && rows == 0 {
					want(t, n.deliver(batchOf(2, 1, event(1, "first"))), abi.OK)
					rows = 1
				}
				a := n.deliver(batchOf(3, 1, e))
				want(t, a, abi.Reject)
				if a.Message == "" || !strings.Contains(a.Message, "status ") {
					t.Errorf("the message is %q", a.Message)
				}
				if got := one(t, n.db, "SELECT count(*) FROM signed_events"); got != rows {
					t.Errorf("%v rows, wanted %d", got, rows)
				}
			})
		}
	}
}

// TestOpenTouchesNoDatabase: T22, and what Open makes of a configuration.
func TestOpenTouchesNoDatabase(t *testing.T) {
	n := newNative(t)
	for config, outcome := range map[string]abi.Outcome{
		"{}": abi.OK, " {\n\t} \r\n": abi.OK, "": abi.BadConfig, "null": abi.BadConfig, `{"database":"x"}`: abi.BadConfig, "[]": abi.BadConfig,
	} {
		if a := n.sink.Open([]byte(config)); a.Outcome != outcome {
			t.Errorf("config %q: %s %q, wanted %s", config, a.Outcome, a.Message, outcome)
		}
	}
	if n.scripts != 0 {
		t.Errorf("%d scripts", n.scripts)
	}
}

// TestNarrowGrantIsNotTheEventsFault: a lookup that the grant has no room for.
func TestNarrowGrantIsNotTheEventsFault(t *testing.T) {
	n := newNative(t)
	want(t, n.deliver(batchOf(1, 1, event(1, "a"))), abi.OK)
	n.fault = func(mode uint32) (abi.SQLStatus, string) {
		if mode == abi.SQLRead {
			return abi.SQLTooLarge, "too large"
		}
		return 0, ""
	}
	n.sink.begun = false
	a := n.deliver(batchOf(2, 1, event(2, "b")))
	want(t, a, abi.Busy)
	if !strings.Contains(a.Message, "max_result") {
		t.Errorf("%q", a.Message)
	}
}
