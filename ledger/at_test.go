package ledger

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/internal/sqlite"
)

// changedLedger is a ledger on which the SQL was run, with one row if it takes
// one.
func changedLedger(t *testing.T, sql string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "l.db")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	f := sqlite.File{Path: path}
	if err := f.Transact(t.Context(), true, func(c *sqlite.Conn) error { return c.Exec(sql) }); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHashAt(t *testing.T) {
	insert := "INSERT INTO signed_events (id, agent_id, event_type, payload_hash, timestamp, prev_hash, payload, row_hash) VALUES ('a', 'b', 'c', x'', 'd', x'', 'e', "
	l, err := Open(changedLedger(t, insert+"x'"+strings.Repeat("ab", 32)+"'); "+strings.Replace(insert, "'a'", "'b'", 1)+"x'ab')"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if h, err := l.HashAt(t.Context(), 1); err != nil || h[0] != 0xab || h[31] != 0xab {
		t.Errorf("%x, %v", h, err)
	}
	var row *RowError
	if _, err := l.HashAt(t.Context(), 2); !errors.As(err, &row) || row.Sequence != 2 {
		t.Errorf("a short one: %v", err)
	}
	if _, err := l.HashAt(t.Context(), 3); !errors.Is(err, ErrNoRow) {
		t.Errorf("none: %v", err)
	}
}
