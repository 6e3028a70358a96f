package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

// landed makes a configuration whose ledger has n rows.
func landed(t *testing.T, n int) (config, file string) {
	t.Helper()
	config = home(t)
	must(t, 0, several("e", n), "ingest", "-c", config, "-")
	return config, ledgerOf(config)
}

// behindIndex changes the ledger with an index, made before, that SQLite does not
// know of while sql runs, so that the index keeps what the table had.
func behindIndex(t *testing.T, file, index, sql string) {
	t.Helper()
	const schema = "PRAGMA writable_schema = ON; "
	change(t, file, "CREATE TABLE kept AS SELECT * FROM sqlite_schema WHERE name = '"+index+"'; "+schema+"DELETE FROM sqlite_schema WHERE name = '"+index+"'")
	change(t, file, sql)
	change(t, file, schema+"INSERT INTO sqlite_schema SELECT * FROM kept")
	change(t, file, "DROP TABLE kept")
}

const coversAll = " ON signed_events(sequence, id, agent_id, event_type, payload_hash, signature, attest_level, timestamp, prev_hash, payload, key_id, row_hash)"

// An index that has the signed rows, beside a table that was rewritten, and
// statistics that lead SQLite to it. Whoever looks for the row sees the forgery.
func TestIndexInThePlaceOfTheTable(t *testing.T) {
	const forge = "UPDATE signed_events SET agent_id = 'agent:mallory', payload = replace(payload, 'agent:alice', 'agent:mallory') WHERE sequence = 3"
	config, file := landed(t, 6)
	change(t, file, "CREATE INDEX shadow"+coversAll)
	behindIndex(t, file, "shadow", forge)
	change(t, file, "ANALYZE; DELETE FROM sqlite_stat1; INSERT INTO sqlite_stat1 VALUES ('signed_events', 'shadow', '6 1 sz=2'), ('signed_events', 'idx_signed_events_id', '6 1 sz=4000')")
	v := verdictOf(t, exitBroken, config)
	if v.BrokenAt == nil || *v.BrokenAt != 0 || v.Rows != 0 || !strings.Contains(v.Reason, "DROP INDEX shadow") || !strings.Contains(v.Reason, "DROP TABLE sqlite_stat1") {
		t.Errorf("%+v", v)
	}
	if r := must(t, exitBroken, "", "verify", "-c", config); !strings.HasPrefix(r.stdout, "BROKEN: "+file+": its schema was changed") {
		t.Errorf("%s", r.stdout)
	}
	// Nobody else reads by that schema, or writes.
	for _, args := range [][]string{{"run", "-c", config}, {"ingest", "-c", config, "-"}, {"tail", "-c", config}, {"ledger", "accept-head", "-c", config, "--yes"}} {
		if r := must(t, exitFailed, refusal("x"), args...); !strings.Contains(r.stderr, "DROP INDEX shadow") || r.stdout != "" {
			t.Errorf("%v: %s%s", args, r.stdout, r.stderr)
		}
	}
	change(t, file, "DROP INDEX shadow; DROP TABLE sqlite_stat1; DROP TABLE sqlite_stat4")
	if v := verdictOf(t, exitBroken, config); *v.BrokenAt != 3 {
		t.Errorf("mended: %+v", v)
	}
	// An index with a name that is allowed is not read either.
	config, file = landed(t, 6)
	change(t, file, "CREATE INDEX idx_user_shadow"+coversAll)
	behindIndex(t, file, "idx_user_shadow", forge)
	if v := verdictOf(t, exitBroken, config); *v.BrokenAt != 3 {
		t.Errorf("allowed: %+v", v)
	}
	// Nor may it tell of rows that are not there.
	config, file = landed(t, 6)
	change(t, file, "CREATE INDEX idx_user_shadow ON signed_events(agent_id)")
	const was = "UPDATE signed_events SET agent_id = replace(agent_id, '%s', '%s') WHERE sequence = 3"
	change(t, file, fmt.Sprintf(was, "alice", "mallory"))
	behindIndex(t, file, "idx_user_shadow", fmt.Sprintf(was, "mallory", "alice"))
	v = verdictOf(t, exitBroken, config)
	if *v.BrokenAt != 0 || v.Rows != 6 || !strings.Contains(v.Reason, "row 3 missing from index idx_user_shadow") {
		t.Errorf("an index that lies: %+v", v)
	}
}

// What is not a ledger's and changes no row is named, with the statement that
// drops it; what may be there is named.
func TestOthersInTheFile(t *testing.T) {
	config, file := landed(t, 3)
	change(t, file, "CREATE INDEX idx_user_agent ON signed_events(agent_id); CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)")
	if v := verified(t, config); !slices.Equal(v.Allowed, []string{"index idx_user_agent", "table _litestream_seq"}) {
		t.Errorf("%+v", v)
	}
	if r := must(t, 0, "", "verify", "-c", config); !strings.Contains(r.stdout, "\nbesides, and ignored: index idx_user_agent, table _litestream_seq\n") {
		t.Errorf("%s", r.stdout)
	}
	d := serve(t, config)
	d.post(t, "ledger", refusal("a"))
	if log := d.stop(t, 0); strings.Contains(log, "not a ledger's") {
		t.Errorf("%s", log)
	}
	change(t, file, "CREATE VIEW mine AS SELECT id FROM signed_events")
	if v := verdictOf(t, exitUnchecked, config); v.BrokenAt != nil || v.Rows != 4 || !strings.Contains(v.Reason, "view mine: DROP VIEW mine") {
		t.Errorf("%+v", v)
	}
	d = serve(t, config)
	d.post(t, "ledger", refusal("b"))
	if log := d.stop(t, 0); !strings.Contains(log, `level=WARN msg="the ledger's file holds what is not a ledger's`) || !strings.Contains(log, "DROP VIEW mine") {
		t.Errorf("%s", log)
	}
}

// rechain does what whoever may write the file can do without any key: it removes
// and moves rows, and makes sequences, links, hashes and SQLite's counter anew.
func rechain(t *testing.T, file string, edit func(rows [][]any) [][]any) {
	t.Helper()
	db, err := sqlite3.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	columns := strings.Split(chain.Columns, ", ")
	s, _, err := db.Prepare("SELECT " + chain.Columns + " FROM signed_events ORDER BY sequence")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]any
	for s.Step() {
		row := make([]any, len(columns))
		if err := s.Columns(row...); err != nil {
			t.Fatal(err)
		}
		for i := range row {
			if b, ok := row[i].([]byte); ok {
				row[i] = bytes.Clone(b)
			}
		}
		rows = append(rows, row)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	at := func(name string) int { return slices.Index(columns, name) }
	text := func(v any) string { s, _ := v.(string); return s }
	blob := func(v any) []byte { b, _ := v.([]byte); return b }
	if err := db.Exec("BEGIN; DELETE FROM signed_events"); err != nil {
		t.Fatal(err)
	}
	insert, _, err := db.Prepare("INSERT INTO signed_events (" + chain.Columns + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")")
	if err != nil {
		t.Fatal(err)
	}
	prev := make([]byte, chain.HashSize)
	rows = edit(rows)
	for n, r := range rows {
		digest := sign.Digest(text(r[at("id")]), text(r[at("agent_id")]), text(r[at("event_type")]), [chain.HashSize]byte(blob(r[at("payload_hash")])), text(r[at("timestamp")]))
		hash := sha256.Sum256(chain.AppendRowPreimage(nil, prev, uint64(n+1), digest[:], blob(r[at("signature")]), []byte(text(r[at("attest_level")])), []byte(text(r[at("key_id")]))))
		r[at("sequence")], r[at("prev_hash")], r[at("row_hash")] = int64(n+1), prev, hash[:]
		prev = hash[:]
		for i, v := range r {
			switch v := v.(type) {
			case []byte:
				err = insert.BindBlob(i+1, v)
			case string:
				err = insert.BindText(i+1, v)
			case int64:
				err = insert.BindInt64(i+1, v)
			default:
				err = insert.BindNull(i + 1)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := insert.Exec(); err != nil {
			t.Fatal(err)
		}
	}
	if err := insert.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(fmt.Sprintf("UPDATE sqlite_sequence SET seq = %d; COMMIT", len(rows))); err != nil {
		t.Fatal(err)
	}
}

// The chain has no key. Rows that were removed and moved, and all chained anew,
// verify: each of them was signed. What verify says then is what holds, and a
// remembered head tells.
func TestRechained(t *testing.T) {
	config, file := landed(t, 6)
	key := filepath.Join(filepath.Dir(config), "audit.pub")
	headOf := func(n int) string {
		t.Helper()
		var row struct {
			RowHash string `json:"row_hash"`
		}
		lines := strings.SplitAfter(must(t, 0, "", "tail", file, "--json").stdout, "\n")
		decode(t, []byte(lines[n-1]), &row)
		return fmt.Sprintf("%d:%s", n, row.RowHash)
	}
	second, fourth, last := headOf(2), headOf(4), headOf(6)
	rechain(t, file, func(rows [][]any) [][]any {
		rows[4], rows[5] = rows[5], rows[4]
		return slices.Delete(rows, 2, 3)
	})
	says := func(code int, what string, more ...string) {
		t.Helper()
		if r := must(t, code, "", append([]string{"verify", file, "--key", key}, more...)...); !strings.Contains(r.stdout, what) {
			t.Errorf("%v: %s, want %q", more, r.stdout, what)
		}
	}
	const lost = "were removed, moved or cut off the end and the chain made anew, for which no key is needed"
	says(0, "\nsignatures: 5 valid, ")
	says(0, "\nnot checked: whether rows "+lost+": no remembered head was given\n")
	// A head before the change covers what is before it and says so.
	says(0, "\nnot checked: whether rows after 2, the remembered head, "+lost+"\n", "--head", second)
	says(exitBroken, ", row 4: row_hash is ", "--head", fourth)
	says(exitBroken, ", row 6: missing at the end, with all up to the remembered head 6", "--head", last)
	// The one in the state directory notices too, unless it is set back as well.
	if v := verdictOf(t, exitBroken, config); *v.BrokenAt != 6 {
		t.Errorf("%+v", v)
	}
	state := filepath.Join(filepath.Dir(config), "state", "ledger-head.json")
	sequence, hash, _ := strings.Cut(headOf(5), ":")
	if err := os.WriteFile(state, fmt.Appendf(nil, `{"sequence":%s,"row_hash":%q}`, sequence, hash), 0o600); err != nil {
		t.Fatal(err)
	}
	v := verified(t, config)
	if want := "nor those from 1 on, if the state directory was set back with the ledger"; len(v.NotChecked) != 1 || !strings.Contains(v.NotChecked[0], want) {
		t.Errorf("%q, want %q", v.NotChecked, want)
	}
	// A text that was changed is named, whoever chains it anew.
	rechain(t, file, func(rows [][]any) [][]any {
		payload := strings.Replace(rows[3][9].(string), "rm -rf", "ls -la", 1)
		sum := sha256.Sum256([]byte(payload))
		rows[3][9], rows[3][3] = payload, sum[:]
		return rows
	})
	says(exitBroken, ", row 4: the signature is not that of key ")
	// Of unsigned rows not even the text is protected.
	rechain(t, file, func(rows [][]any) [][]any {
		for _, r := range rows {
			r[4], r[5], r[10] = nil, "unsigned", nil
		}
		return rows
	})
	if r := must(t, 0, "", "verify", file); !strings.Contains(r.stdout, "not checked: who wrote 5 rows, and whether their text was changed and the chain made anew: they are unsigned\n") {
		t.Errorf("%s", r.stdout)
	}
	says(exitUnchecked, "they are unsigned, although a public key was given")
}

// A copy of the file alone, taken while the rows stand in its log, is no verified
// ledger.
func TestCopyWithoutItsLog(t *testing.T) {
	config := home(t)
	file, alone := ledgerOf(config), filepath.Join(t.TempDir(), "alone.db")
	copyFile(t, file, alone) // what the file is until the log is written back
	d := serve(t, config)
	d.post(t, "ledger", several("a", 5))
	r := must(t, exitUnchecked, "", "verify", alone)
	if !strings.HasPrefix(r.stdout, "NOT VERIFIED: "+alone+", 0 rows, ") || !strings.Contains(r.stdout, "they stand in its log "+alone+"-wal, which is not beside it: copy both\n") {
		t.Errorf("%s", r.stdout)
	}
	copyFile(t, file+"-wal", alone+"-wal")
	r = must(t, 0, "", "verify", alone, "--key", filepath.Join(filepath.Dir(config), "audit.pub"))
	if !strings.HasPrefix(r.stdout, "verified: "+alone+", 5 rows\n") {
		t.Errorf("%s", r.stdout)
	}
	d.stop(t, 0)
}

// A schema that changes under a running daemon: nothing is believed of what it
// shows, and it is told. Once mended, all goes on.
func TestSchemaChangesAtRun(t *testing.T) {
	config := home(t)
	d := serve(t, config)
	d.post(t, "ledger", refusal("a"))
	change(t, ledgerOf(config), "CREATE INDEX mine ON signed_events(agent_id)")
	d.post(t, "durable", refusal("b"))
	until(t, "ready says that it is not read, and that the head is not remembered", func() bool {
		text := string(d.request(t, "GET", "/-/ready", "", 503))
		if strings.Contains(text, "mine") {
			t.Fatalf("a name out of the file is told to everybody: %s", text)
		}
		return strings.Contains(text, "can't be read: audit-host verify tells why") && strings.Contains(text, "head can't be remembered: the log tells why")
	})
	if n := d.scrape(t)["audit_host_ledger_head_sequence"]; n > 1 {
		t.Errorf("the head %v was taken from a schema that is not believed", n)
	}
	change(t, ledgerOf(config), "DROP INDEX mine")
	d.post(t, "ledger", refusal("c"))
	until(t, "the head", func() bool { return d.scrape(t)["audit_host_ledger_head_sequence"] == 3 })
	if log := d.stop(t, 0); !strings.Contains(log, "the ledger's head can't be remembered") || !strings.Contains(log, "DROP INDEX mine") {
		t.Errorf("%s", log)
	}
	verified(t, config)
}
