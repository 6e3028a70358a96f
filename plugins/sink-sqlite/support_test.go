//go:build !wasip1

package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
	"github.com/audit-host/audit-host/internal/plugintest"
	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

// The tests of this folder run the plugin twice: natively, against SQLite with
// a hook before every script, and as WebAssembly in the real host.

var testKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// event makes a sealed event. The payload carries the timestamp where the
// canonical form has it.
func event(seq uint64, id string) abi.Event {
	return eventAt(seq, id, "2026-01-01T00:00:00+00:00", "R001")
}

func eventAt(seq uint64, id, timestamp, rule string) abi.Event {
	e := abi.Event{ID: id, Seq: seq, AgentID: "agent:alice", EventType: "governance.refusal", Timestamp: timestamp,
		Payload: fmt.Appendf(nil, `{"action":{"command":"rm","kind":"bash"},"agent_id":"agent:alice",`+
			`"decision":{"decision":"refuse","reason":"no","rule_id":%q},"timestamp":%q}`, rule, timestamp)}
	sign.NewSealer(testKey).Seal(&e)
	return e
}

// unsigned removes the signature, as a sealer without a key leaves it.
func unsigned(e abi.Event) abi.Event {
	sign.NewSealer(nil).Seal(&e)
	return e
}

var testQueue = [16]byte{15: 1}

func batchOf(id uint64, attempt uint32, events ...abi.Event) *abi.Batch {
	return &abi.Batch{ID: id, Attempt: attempt, Queue: testQueue, Events: events}
}

func events(from, to int) []abi.Event {
	var list []abi.Event
	for i := from; i <= to; i++ {
		list = append(list, event(uint64(i), fmt.Sprintf("id-%06d", i)))
	}
	return list
}

// native is the plugin with a host of the test's own.
type native struct {
	t    *testing.T
	sink *sink
	path string
	// before is called before each script of the plugin.
	before func(mode uint32, steps []guest.Step)
	// fault, if it answers a status other than SQLDone, is what the script
	// gets, and it is not run.
	fault func(mode uint32) (abi.SQLStatus, string)
	db    *sqlite3.Conn

	scripts  int
	verdicts map[uint32]string
	places   []abi.Place
	foreign  bool // the database has more than a ledger's: it need not tell places
	races    uint64
	logs     []string
}

func newNative(t *testing.T) *native {
	n := &native{t: t, sink: &sink{}, path: filepath.Join(t.TempDir(), "ledger.db")}
	n.db = openDB(t, n.path)
	t.Cleanup(guest.UseHost(n.host(n.run)))
	return n
}

// host is what the plugin calls.
func (n *native) host(sql func(mode uint32, steps []guest.Step, size int) (abi.SQLStatus, []byte)) guest.Host {
	return guest.Host{
		Verdict: func(i uint32, code abi.Outcome, text string) {
			if i != abi.WholeBatch {
				if code != abi.Reject {
					n.t.Errorf("verdict %s for event %d", code, i)
				}
				n.verdicts[i] = text
			}
		},
		Places: func(list []abi.Place) { n.places = slices.Clone(list) },
		Log:    func(_ uint32, text string) { n.logs = append(n.logs, text) },
		Metric: func(id uint32, v uint64) { n.races += v },
		SQL:    sql,
	}
}

func (n *native) deliver(b *abi.Batch) guest.Answer {
	n.t.Helper()
	v := plugintest.View(n.t, b)
	n.verdicts, n.places = map[uint32]string{}, nil
	a := n.sink.Deliver(v)
	n.placed(b, a)
	if a.Outcome == abi.OK && (int(a.Arg) != len(b.Events) || len(n.verdicts) != 0) ||
		a.Outcome == abi.Partial && int(a.Arg)+len(n.verdicts) != len(b.Events) ||
		a.Outcome != abi.Partial && len(n.verdicts) != 0 {
		n.t.Fatalf("%s(%d) with verdicts %v for %d events", a.Outcome, a.Arg, n.verdicts, len(b.Events))
	}
	return a
}

// placed compares the places that were told with the rows of the ledger.
func (n *native) placed(b *abi.Batch, a guest.Answer) {
	n.t.Helper()
	if a.Outcome != abi.OK && a.Outcome != abi.Partial {
		if n.places != nil {
			n.t.Errorf("%s with places", a.Outcome)
		}
		return
	}
	if n.foreign && n.places == nil {
		return
	}
	if len(n.places) != len(b.Events) {
		n.t.Fatalf("%d places for %d events", len(n.places), len(b.Events))
	}
	s, _, err := n.db.Prepare("SELECT sequence, row_hash FROM signed_events WHERE id = ?")
	if err != nil {
		n.t.Fatal(err)
	}
	defer s.Close()
	for i := range b.Events {
		var want abi.Place
		if _, refused := n.verdicts[uint32(i)]; !refused {
			if err := errors.Join(s.BindText(1, b.Events[i].ID)); err != nil || !s.Step() {
				n.t.Fatalf("no row of %s: %v", b.Events[i].ID, err)
			}
			want.Sequence = uint64(s.ColumnInt64(0))
			copy(want.RowHash[:], s.ColumnRawBlob(1))
			if err := s.Reset(); err != nil {
				n.t.Fatal(err)
			}
		}
		if got := n.places[i]; got.Sequence != want.Sequence || got.RowHash != want.RowHash {
			n.t.Errorf("event %d is told to be at %d %x, and is at %d %x", i, got.Sequence, got.RowHash[:4], want.Sequence, want.RowHash[:4])
		}
	}
}

// now is the string of a list: which events were stored by this delivery.
func now(list []abi.Place) string {
	var b strings.Builder
	for i := range list {
		b.WriteByte("-+"[list[i].Flags])
	}
	return b.String()
}

// want fails the test if an answer has another outcome.
func want(t *testing.T, a guest.Answer, o abi.Outcome) {
	t.Helper()
	if a.Outcome != o {
		t.Fatalf("%s(%d) %q, wanted %s", a.Outcome, a.Arg, a.Message, o)
	}
}

// run is the sql capability: what host does, for one connection.
func (n *native) run(mode uint32, steps []guest.Step, size int) (abi.SQLStatus, []byte) {
	n.scripts++
	if n.before != nil {
		n.before(mode, steps)
	}
	if n.fault != nil {
		if status, text := n.fault(mode); status != abi.SQLDone {
			return status, []byte(text)
		}
	}
	begin := "BEGIN"
	if mode == abi.SQLWrite {
		begin = "BEGIN IMMEDIATE"
	}
	if err := n.db.Exec(begin); err != nil {
		return n.status(err)
	}
	var answer []byte
	for i, st := range steps {
		rows, err := n.step(i, st)
		switch {
		case errors.Is(err, errGuard):
			_ = n.db.Exec("ROLLBACK")
			return abi.SQLGuardFailed, rows
		case err != nil:
			status, text := n.status(err)
			_ = n.db.Exec("ROLLBACK") // it may have rolled back by itself
			return status, text
		}
		answer = append(answer, rows...)
	}
	if len(answer) > size {
		n.t.Fatalf("an answer of %d bytes for a buffer of %d", len(answer), size)
	}
	if err := n.db.Exec("COMMIT"); err != nil {
		return n.status(err)
	}
	return abi.SQLDone, answer
}

var errGuard = errors.New("guard failed")

func (n *native) status(err error) (abi.SQLStatus, []byte) {
	var code sqlite3.ExtendedErrorCode
	if !errors.As(err, &code) {
		n.t.Fatal(err)
	}
	return abi.SQLStatus(code), []byte(strings.TrimPrefix(err.Error(), "sqlite3: "))
}

func (n *native) step(i int, st guest.Step) (answer []byte, err error) {
	if st.Kind != abi.SQLMany && st.Rows > 1 || len(st.Cells) != st.Rows*st.Columns {
		n.t.Fatalf("step %d: %d rows of %d columns with %d cells", i, st.Rows, st.Columns, len(st.Cells))
	}
	sql, params := st.SQL, st.Cells
	switch st.Kind {
	case abi.SQLMany:
		row := "(?" + strings.Repeat(",?", st.Columns-1) + ")"
		for r := range st.Rows {
			if err := n.exec(sql+row, st.Cells[r*st.Columns:][:st.Columns], nil); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case abi.SQLGuard:
		params = nil
	}
	var first []any
	found := 0
	err = n.exec(sql, params, func(row []any) {
		if found++; found == 1 {
			first = row
		}
		if st.Kind == abi.SQLQuery || st.Kind == abi.SQLGuard && found == 1 {
			answer = appendRow(answer, i, row)
		}
	})
	if err == nil && st.Kind == abi.SQLGuard {
		if fmt.Sprint(first) == fmt.Sprint(st.Cells) {
			return nil, nil
		}
		return answer, errGuard
	}
	return answer, err
}

func (n *native) exec(sql string, params []any, f func([]any)) error {
	return query(n.db, sql, params, f)
}

func query(db *sqlite3.Conn, sql string, params []any, f func([]any)) error {
	s, _, err := db.Prepare(sql)
	if err != nil {
		return err
	}
	defer s.Close()
	for i, v := range params {
		switch v := v.(type) {
		case nil:
			err = s.BindNull(i + 1)
		case int64:
			err = s.BindInt64(i+1, v)
		case string:
			err = s.BindText(i+1, v)
		case []byte:
			err = s.BindBlob(i+1, v)
		default:
			err = fmt.Errorf("a %T", v)
		}
		if err != nil {
			return err
		}
	}
	for s.Step() {
		if f == nil {
			continue
		}
		row := make([]any, s.ColumnCount())
		for i := range row {
			switch s.ColumnType(i) {
			case sqlite3.INTEGER:
				row[i] = s.ColumnInt64(i)
			case sqlite3.TEXT:
				row[i] = s.ColumnText(i)
			case sqlite3.BLOB:
				row[i] = s.ColumnBlob(i, nil)
			case sqlite3.FLOAT:
				row[i] = s.ColumnFloat(i)
			}
		}
		f(row)
	}
	return s.Err()
}

func appendRow(b []byte, step int, row []any) []byte {
	u32 := func(v uint32) { b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24)) }
	u64 := func(v uint64) { u32(uint32(v)); u32(uint32(v >> 32)) }
	u32(uint32(step))
	u32(uint32(len(row)))
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			u32(abi.SQLNull)
			u32(0)
		case int64:
			u32(abi.SQLInt)
			u32(8)
			u64(uint64(v))
		case float64:
			u32(abi.SQLFloat)
			u32(8)
			u64(math.Float64bits(v))
		case string:
			u32(abi.SQLText)
			u32(uint32(len(v)))
			b = append(b, v...)
		case []byte:
			u32(abi.SQLBlob)
			u32(uint32(len(v)))
			b = append(b, v...)
		}
	}
	return b
}

// openDB opens a database for the test's own use.
func openDB(t *testing.T, path string) *sqlite3.Conn {
	t.Helper()
	db, err := sqlite3.OpenFlags(path, sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func must(t *testing.T, db *sqlite3.Conn, sql string) {
	t.Helper()
	if err := db.Exec(sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// one returns the first column of the first row.
func one(t *testing.T, db *sqlite3.Conn, sql string) any {
	t.Helper()
	var v any
	if err := query(db, sql, nil, func(row []any) { v = row[0] }); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// readRows reads the ledger as the verifier gets it.
func readRows(t *testing.T, db *sqlite3.Conn) []chain.Row {
	t.Helper()
	var rows []chain.Row
	blob := func(v any) []byte { b, _ := v.([]byte); return b }
	text := func(v any) string { s, _ := v.(string); return s }
	err := query(db, "SELECT "+chain.Columns+" FROM signed_events ORDER BY sequence", nil, func(r []any) {
		rows = append(rows, chain.Row{ID: text(r[0]), AgentID: text(r[1]), EventType: text(r[2]), PayloadHash: blob(r[3]),
			Signature: blob(r[4]), AttestLevel: text(r[5]), Timestamp: text(r[6]), PrevHash: blob(r[7]),
			Sequence: uint64(r[8].(int64)), Payload: []byte(text(r[9])), KeyID: text(r[10]), RowHash: blob(r[11])})
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// verified checks the whole chain and returns its rows.
func verified(t *testing.T, db *sqlite3.Conn, rows int) []chain.Row {
	t.Helper()
	list := readRows(t, db)
	v := sign.NewVerifier(testKey.Public().(ed25519.PublicKey))
	if c := v.Check(sign.Link{}, list); c.Break != nil {
		t.Fatal(c.Break)
	}
	if len(list) != rows {
		t.Fatalf("%d rows, wanted %d", len(list), rows)
	}
	return list
}

// insertAsOther appends a row as another correct writer would.
func insertAsOther(t *testing.T, db *sqlite3.Conn, e abi.Event) {
	t.Helper()
	must(t, db, "BEGIN IMMEDIATE")
	h := head{}
	if err := query(db, headSQL, nil, func(r []any) {
		h.sequence = uint64(r[0].(int64))
		copy(h.hash[:], r[1].([]byte))
	}); err != nil {
		t.Fatal(err)
	}
	hash := rowHash(h.hash, h.sequence+1, e)
	err := query(db, insertSQL+" (?,?,?,?,?,?,?,?,?,?,?,?)", []any{e.ID, e.AgentID, e.EventType, e.PayloadHash[:], e.Signature,
		e.AttestLevel, e.Timestamp, h.hash[:], int64(h.sequence + 1), string(e.Payload), e.KeyID, hash[:]}, nil)
	if err != nil {
		t.Fatal(err)
	}
	must(t, db, "COMMIT")
}
