package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// memoryModule is a module with 64 pages of memory and nothing else: all that
// the sql import needs of a guest.
var memoryModule = []byte("\x00asm\x01\x00\x00\x00" + "\x05\x03\x01\x00\x40" + "\x07\x0a\x01\x06memory\x02\x00")

// sqlGuest calls the sql import as a guest would.
type sqlGuest struct {
	t    testing.TB
	mod  api.Module
	sink *Sink
	out  uint32 // size of the answer buffer
}

// newSQLGuest returns a guest with the capability on the grant's database.
// When the test ends the database must be sound.
func newSQLGuest(t testing.TB, g SQLGrant) *sqlGuest {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	mod, err := r.Instantiate(ctx, memoryModule)
	if err != nil {
		t.Fatal(err)
	}
	s := &sqlGuest{t: t, mod: mod, sink: &Sink{sql: newDatabase(g, nil)}, out: 64 << 10}
	t.Cleanup(func() {
		if err := s.sink.sql.close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := r.Close(ctx); err != nil {
			t.Errorf("close runtime: %v", err)
		}
	})
	return s
}

// checkSound has a file checked by a connection of its own.
func checkSound(t testing.TB, path string) {
	t.Helper()
	c, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		t.Errorf("open %s to check it: %v", path, err)
		return
	}
	v := ""
	if err := c.Protect(func() (err error) { v, err = c.Value("PRAGMA integrity_check"); return err }); err != nil || v != "ok" {
		t.Errorf("integrity check of %s: %q, %v", path, v, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// testStep is a step of a script; rows holds nil, int64, float64, string or
// []byte.
type testStep struct {
	kind uint32
	sql  string
	rows [][]any
}

func exec(sql string, args ...any) testStep  { return testStep{abi.SQLExec, sql, oneRow(args)} }
func query(sql string, args ...any) testStep { return testStep{abi.SQLQuery, sql, oneRow(args)} }
func guardStep(sql string, want ...any) testStep {
	return testStep{abi.SQLGuard, sql, oneRow(want)}
}

func oneRow(args []any) [][]any {
	if args == nil {
		return nil
	}
	return [][]any{args}
}

// layout is a script in guest memory, as abi/README.md describes it.
type layout struct {
	b    []byte
	base uint32
}

func (l *layout) add(b []byte) uint32 {
	at := l.base + uint32(len(l.b))
	l.b = append(l.b, b...)
	for len(l.b)%8 != 0 {
		l.b = append(l.b, 0)
	}
	return at
}

func (l *layout) script(steps []testStep) uint32 {
	le := binary.LittleEndian
	var table []byte
	for _, st := range steps {
		columns, cells := 0, []byte(nil)
		for _, row := range st.rows {
			columns = len(row)
			for _, v := range row {
				typ, n, p := abi.SQLNull, uint32(0), uint64(0)
				switch v := v.(type) {
				case nil:
				case int64:
					typ, p = abi.SQLInt, uint64(v)
				case float64:
					typ, p = abi.SQLFloat, math.Float64bits(v)
				case string:
					typ, n, p = abi.SQLText, uint32(len(v)), uint64(l.add([]byte(v)))
				case []byte:
					typ, n, p = abi.SQLBlob, uint32(len(v)), uint64(l.add(v))
				default:
					panic(fmt.Sprintf("a cell of %T", v))
				}
				cells = le.AppendUint64(le.AppendUint32(le.AppendUint32(cells, typ), n), p)
			}
		}
		for _, v := range []uint32{st.kind, l.add([]byte(st.sql)), uint32(len(st.sql)), uint32(columns), uint32(len(st.rows)), l.add(cells)} {
			table = le.AppendUint32(table, v)
		}
	}
	return l.add(table)
}

// run runs a script and returns its status and answer.
func (g *sqlGuest) run(mode uint32, steps ...testStep) (abi.SQLStatus, []byte) {
	g.t.Helper()
	return g.runContext(context.Background(), mode, steps...)
}

func (g *sqlGuest) runContext(ctx context.Context, mode uint32, steps ...testStep) (abi.SQLStatus, []byte) {
	g.t.Helper()
	l := layout{base: 1024}
	at := l.script(steps)
	if !g.mod.Memory().Write(l.base, l.b) {
		g.t.Fatalf("a script of %d bytes does not fit into the guest", len(l.b))
	}
	return g.call(ctx, mode, at, uint32(len(steps)), g.mod.Memory().Size()-g.out, g.out)
}

func (g *sqlGuest) call(ctx context.Context, mode, at, n, out, size uint32) (abi.SQLStatus, []byte) {
	stack := []uint64{uint64(mode), uint64(at), uint64(n), uint64(out), uint64(size)}
	g.sink.runSQL(ctx, g.mod, stack)
	b, ok := g.mod.Memory().Read(out, uint32(stack[0]))
	if !ok || uint32(stack[0]) > size {
		g.t.Fatalf("an answer of %d bytes for a buffer of %d", uint32(stack[0]), size)
	}
	return abi.SQLStatus(stack[0] >> 32), b
}

// must runs a script that has to succeed and returns its rows.
func (g *sqlGuest) must(mode uint32, steps ...testStep) [][]any {
	g.t.Helper()
	status, answer := g.run(mode, steps...)
	if status != abi.SQLDone {
		g.t.Fatalf("status %#x: %s", uint32(status), answer)
	}
	return decodeRows(g.t, answer)
}

// decodeRows reads an answer; the first value of each row is its step.
func decodeRows(t testing.TB, b []byte) (rows [][]any) {
	t.Helper()
	le := binary.LittleEndian
	for len(b) > 0 {
		row := []any{int(le.Uint32(b))}
		n := le.Uint32(b[4:])
		b = b[8:]
		for range n {
			typ, size := le.Uint32(b), le.Uint32(b[4:])
			v := b[8 : 8+size]
			b = b[8+size:]
			switch typ {
			case abi.SQLNull:
				row = append(row, nil)
			case abi.SQLInt:
				row = append(row, int64(le.Uint64(v)))
			case abi.SQLFloat:
				row = append(row, math.Float64frombits(le.Uint64(v)))
			case abi.SQLText:
				row = append(row, string(v))
			default:
				row = append(row, append([]byte{}, v...))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// emptyDB returns a guest with an empty database that it may create.
func emptyDB(t testing.TB, g SQLGrant) *sqlGuest {
	t.Helper()
	g.Database, g.Create = filepath.Join(t.TempDir(), "test.db"), true
	guest := newSQLGuest(t, g)
	t.Cleanup(func() { checkSound(t, g.Database) })
	return guest
}
