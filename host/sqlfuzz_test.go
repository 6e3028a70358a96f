package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// FuzzSQLScript gives the sql import scripts of any bytes: it answers a status
// with a text or rows within the buffer, or traps on a bad pointer, and
// nothing else ever. The connection serves the next script.
func FuzzSQLScript(f *testing.F) {
	l := layout{base: 1024}
	at := l.script([]testStep{
		exec("INSERT INTO v VALUES (?, ?)", int64(1), "text"), guardStep("SELECT a FROM v", int64(1)), query("SELECT * FROM v WHERE b = ?", []byte{1}),
		{abi.SQLMany, "INSERT OR IGNORE INTO v VALUES", [][]any{{nil, 1.5}, {int64(2), ""}}},
	})
	f.Add(l.b, at, uint32(4), uint32(100), uint32(4000), uint32(1))
	f.Add(l.b, at, uint32(2), uint32(0), uint32(0), uint32(0))
	f.Add(l.b[:200], uint32(1024), uint32(300), uint32(1<<31), uint32(1<<31), uint32(2))
	l = layout{base: 1024}
	at = l.script([]testStep{query("PRAGMA user_version"), exec("PRAGMA user_version = 2"), query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT * FROM n")})
	f.Add(l.b, at, uint32(3), uint32(100), uint32(100), uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, at, n, out, size, mode uint32) {
		g := emptyDB(t, SQLGrant{TimeLimit: time.Minute})
		g.must(abi.SQLWrite, exec("CREATE TABLE v(a INTEGER PRIMARY KEY, b)"))
		if !g.mod.Memory().Write(1024, b) {
			return
		}
		g.sink.sql.grant.TimeLimit = 50 * time.Millisecond
		before, _ := g.mod.Memory().Read(0, g.mod.Memory().Size())
		before = bytes.Clone(before)
		func() {
			defer func() {
				if p := recover(); p != nil {
					if err, ok := p.(error); !ok || !errors.Is(err, errBadPointer) {
						panic(p)
					}
				}
			}()
			stack := []uint64{uint64(mode), uint64(at), uint64(n), uint64(out), uint64(size)}
			g.sink.runSQL(context.Background(), g.mod, stack)
			status, answered := abi.SQLStatus(stack[0]>>32), uint32(stack[0])
			if answered > size {
				t.Fatalf("%d bytes in a buffer of %d", answered, size)
			}
			answer, ok := g.mod.Memory().Read(out, answered)
			if !ok {
				t.Fatalf("an answer of %d bytes at %d", answered, out)
			}
			if status == abi.SQLDone || status == abi.SQLGuardFailed {
				decodeRows(t, answer)
			}
			copy(before[out:], answer)
		}()
		if after, _ := g.mod.Memory().Read(0, g.mod.Memory().Size()); !bytes.Equal(after, before) {
			t.Error("memory outside the answer was written")
		}
		g.sink.sql.grant.TimeLimit = time.Minute
		if status, answer := g.run(abi.SQLRead, query("SELECT 1")); status != abi.SQLDone || binary.LittleEndian.Uint32(answer) != 0 {
			t.Errorf("the next script: %#x %s", uint32(status), answer)
		}
	})
}
