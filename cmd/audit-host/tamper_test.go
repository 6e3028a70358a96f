package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

// change runs SQL on a ledger, as somebody would who may write the file.
func change(t *testing.T, file, sql string, args ...any) {
	t.Helper()
	db, err := sqlite3.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for sql != "" {
		s, tail, err := db.Prepare(sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		for i := range min(len(args), s.BindCount()) {
			switch v := args[i].(type) {
			case []byte:
				err = s.BindBlob(i+1, v)
			case string:
				err = s.BindText(i+1, v)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for s.Step() {
		}
		if err := s.Close(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		sql = tail
	}
}

func TestTampering(t *testing.T) {
	config := home(t)
	const rows = 6
	var text strings.Builder
	for i := range rows {
		text.WriteString(strings.Replace(refusal(fmt.Sprint("e", i+1)), "rm -rf /", fmt.Sprint("rm -rf /", i+1), 1))
	}
	must(t, 0, text.String(), "ingest", "-c", config, "-")
	head := verified(t, config).Head
	dir := filepath.Dir(config)
	whole, err := os.ReadFile(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "audit.pub")

	// check tampers with a copy and wants row to be named.
	check := func(t *testing.T, row uint64, tamper func(file string), more ...string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "ledger.db")
		if err := os.WriteFile(file, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		tamper(file)
		var v verdict
		decode(t, []byte(must(t, exitBroken, "", append([]string{"verify", file, "--key", key, "--json"}, more...)...).stdout), &v)
		if v.Verified || v.BrokenAt == nil || *v.BrokenAt != row || v.Reason == "" {
			t.Errorf("verify names row %v, want %d: %+v", v.BrokenAt, row, v)
		}
		if v.Rows != row-1 {
			t.Errorf("%d rows before the break, want %d", v.Rows, row-1)
		}
		people := must(t, exitBroken, "", append([]string{"verify", file, "--key", key}, more...)...).stdout
		if !strings.HasPrefix(people, fmt.Sprintf("BROKEN: %s, row %d: ", file, row)) {
			t.Errorf("people read: %s", people)
		}
	}
	sql := func(format string, args ...any) func(string) {
		return func(file string) { change(t, file, fmt.Sprintf(format, args...)) }
	}

	t.Run("columns", func(t *testing.T) {
		for name := range strings.SplitSeq(chain.Columns, ", ") {
			for _, row := range []uint64{1, 3, rows} {
				t.Run(fmt.Sprint(name, row), func(t *testing.T) {
					switch name {
					case "sequence":
						check(t, row, sql("UPDATE signed_events SET sequence = sequence + 100 WHERE sequence = %d", row))
					case "payload_hash", "signature", "prev_hash", "row_hash":
						// One bit of the last byte.
						check(t, row, func(file string) {
							db, err := sqlite3.Open(file)
							if err != nil {
								t.Fatal(err)
							}
							s, _, err := db.Prepare(fmt.Sprintf("SELECT %s FROM signed_events WHERE sequence = %d", name, row))
							if err != nil || !s.Step() {
								t.Fatal("no row", err)
							}
							blob := s.ColumnBlob(0, nil)
							if err := s.Close(); err != nil {
								t.Fatal(err)
							}
							if err := db.Close(); err != nil {
								t.Fatal(err)
							}
							blob[len(blob)-1] ^= 1
							change(t, file, fmt.Sprintf("UPDATE signed_events SET %s = ? WHERE sequence = %d", name, row), blob)
						})
					default:
						check(t, row, sql("UPDATE signed_events SET %s = replace(substr(%s, 1, 1), '{', ' ') || 'x' || substr(%s, 2) WHERE sequence = %d", name, name, name, row))
					}
				})
			}
		}
	})
	t.Run("swapped", func(t *testing.T) {
		check(t, 2, sql("UPDATE signed_events SET sequence = 99 WHERE sequence = 2; UPDATE signed_events SET sequence = 2 WHERE sequence = 3; UPDATE signed_events SET sequence = 3 WHERE sequence = 99"))
	})
	t.Run("deleted", func(t *testing.T) {
		check(t, 3, sql("DELETE FROM signed_events WHERE sequence = 3"))
		check(t, 1, sql("DELETE FROM signed_events WHERE sequence = 1"))
	})
	t.Run("cut off the end", func(t *testing.T) {
		check(t, rows, sql("DELETE FROM signed_events WHERE sequence = %d", rows))
		check(t, 1, sql("DELETE FROM signed_events"))
		// With SQLite's counter set back a remembered head is needed.
		back := sql("DELETE FROM signed_events WHERE sequence = %d; UPDATE sqlite_sequence SET seq = %d", rows, rows-1)
		check(t, rows, back, "--head", fmt.Sprintf("%d:%s", head.Sequence, head.RowHash))
		check(t, rows+1, sql("DELETE FROM sqlite_sequence"))
	})
	t.Run("unsigned", func(t *testing.T) {
		// A signature taken away, the row's hash not mended.
		check(t, 4, sql("UPDATE signed_events SET signature = NULL, key_id = NULL, attest_level = 'unsigned' WHERE sequence = 4"))
		check(t, 4, sql("UPDATE signed_events SET signature = NULL WHERE sequence = 4"))
	})
	t.Run("another row in its place", func(t *testing.T) {
		check(t, 2, sql("CREATE TEMP TABLE x AS SELECT * FROM signed_events WHERE sequence = 5; DELETE FROM signed_events WHERE sequence IN (2, 5); UPDATE x SET sequence = 2; INSERT INTO signed_events SELECT * FROM x"))
	})
	t.Run("rewritten with the next link mended", func(t *testing.T) {
		// By somebody without the key: the signature is another event's.
		check(t, 3, func(file string) { rewrite(t, file, 3, nil) })
	})
	t.Run("rewritten by another key", func(t *testing.T) {
		_, other, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		check(t, 4, func(file string) { rewrite(t, file, 3, other) })
	})
	t.Run("a byte of the file", func(t *testing.T) {
		// Past SQLite altogether: the agent of the third row.
		check(t, 3, func(file string) {
			at := strings.Index(string(whole), "rm -rf /3")
			if at < 0 {
				t.Fatal("the payload is not in the file")
			}
			bad := append([]byte{}, whole...)
			bad[at] = 'R'
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// rewrite makes row n say another command, gives it hashes of its own, and
// mends the link of the next row. Signed by key, or with the old signature.
func rewrite(t *testing.T, file string, n int, key ed25519.PrivateKey) {
	t.Helper()
	db, err := sqlite3.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := db.Prepare(fmt.Sprintf("SELECT id, agent_id, event_type, timestamp, prev_hash, signature, key_id, payload FROM signed_events WHERE sequence = %d", n))
	if err != nil || !s.Step() {
		t.Fatal("no row", err)
	}
	id, agent, kind, at := s.ColumnText(0), s.ColumnText(1), s.ColumnText(2), s.ColumnText(3)
	prev, signature, keyID := s.ColumnBlob(4, nil), s.ColumnBlob(5, nil), s.ColumnText(6)
	payload := strings.Replace(s.ColumnText(7), "rm -rf", "ls -la", 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256([]byte(payload))
	digest := sign.Digest(id, agent, kind, hash, at)
	if key != nil {
		signature, keyID = ed25519.Sign(key, digest[:]), sign.KeyID(key.Public().(ed25519.PublicKey))
	}
	row := sha256.Sum256(chain.AppendRowPreimage(nil, prev, uint64(n), digest[:], signature, []byte("daemon_signed"), []byte(keyID)))
	change(t, file, fmt.Sprintf("UPDATE signed_events SET payload = ?, payload_hash = ?, signature = ?, key_id = ?, row_hash = ? WHERE sequence = %d", n),
		payload, hash[:], signature, keyID, row[:])
	change(t, file, fmt.Sprintf("UPDATE signed_events SET prev_hash = ? WHERE sequence = %d", n+1), row[:])
}

func TestVersionOfSQLite(t *testing.T) {
	db, err := sqlite3.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, _, err := db.Prepare("SELECT sqlite_version()")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Step() || s.ColumnText(0) != sqliteVersion {
		t.Errorf("SQLite is %s, sqliteVersion says %s", s.ColumnText(0), sqliteVersion)
	}
}
