//go:build unix

package host

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/ledger"
)

// TestDatabaseThatIsAPipe: opening one would wait for ever.
func TestDatabaseThatIsAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.db")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	g := newSQLGuest(t, SQLGrant{Database: path, Create: true})
	g.expect(abi.SQLStatus(sqlite3.CANTOPEN), "not a regular file", abi.SQLWrite, makeTable)
	if l, err := ledger.Open(path); err == nil {
		t.Errorf("opened: %v", l.Close())
	}
}
