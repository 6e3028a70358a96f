package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/ncruces/go-sqlite3"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// Limits of a script. The bytes are bounded by the grant and by the guest's
// memory.
const (
	maxSteps   = 256
	maxColumns = 128
	maxRows    = 1 << 16
	// maxValue is the largest text or blob in bytes.
	maxValue = 16 << 20
	// rowsPerStatement is how many rows of a many step one INSERT takes:
	// past 16 the gain is small.
	rowsPerStatement = 16
	// maxStatements is how many prepared statements are kept.
	maxStatements = 64
)

// script is a guest's transaction, as it lies in the guest's memory. Nothing
// is copied: the guest stands still until runSQL returns.
type script struct {
	write bool
	steps []step
	mem   []byte
}

type step struct {
	kind          uint32
	sql           []byte
	columns, rows int
	cells         []byte
}

// cell returns cell i of a step. Its pointer was checked by read.
func (sc *script) cell(st *step, i int) (typ uint32, n uint64, b []byte) {
	c := st.cells[i*abi.SQLCellSize : (i+1)*abi.SQLCellSize]
	typ, n = binary.LittleEndian.Uint32(c), binary.LittleEndian.Uint64(c[8:])
	if typ == abi.SQLText || typ == abi.SQLBlob {
		if size := uint64(binary.LittleEndian.Uint32(c[4:])); size > 0 {
			b = sc.mem[n : n+size]
		}
	}
	return typ, n, b
}

// statusError is an outcome of a script that is not one of SQLite's codes.
type statusError struct {
	status abi.SQLStatus
	text   string
}

func (e *statusError) Error() string { return e.text }

func fail(status abi.SQLStatus, format string, a ...any) error {
	return &statusError{status, fmt.Sprintf(format, a...)}
}

// errGuard is a guard that failed; the answer holds the row.
var errGuard = errors.New("guard failed")

// runSQL is the sql import. It traps on a bad pointer, before anything was
// run, and answers a status to everything else.
func (s *Sink) runSQL(ctx context.Context, mod api.Module, stack []uint64) {
	mode, at, n := uint32(stack[0]), uint32(stack[1]), uint32(stack[2])
	out := view(mod, stack[3], stack[4])
	size := uint64(mod.Memory().Size())
	if size == 0 {
		size = math.MaxUint32 // wazero's answer for 4 GiB
	}
	d := s.sql
	status, answer := abi.SQLRefused, []byte("the capability sql is not granted")
	if d != nil {
		status, answer = d.run(ctx, view(mod, 0, size), mode, at, n, len(out))
		d.script.mem = nil
		if status == abi.SQLTimeout && ctx.Err() == nil {
			s.breach(ctx, LimitSQLTime)
		}
		if d.over {
			s.breach(ctx, LimitSQLSize)
		}
	}
	stack[0] = uint64(status)<<32 | uint64(copy(out, answer))
}

// run executes a script and returns its status and its answer of at most size
// bytes, valid until the next run. It panics with errBadPointer before
// anything was run.
func (d *database) run(ctx context.Context, mem []byte, mode, at, n uint32, size int) (abi.SQLStatus, []byte) {
	d.over = false
	d.answer.reset(min(size, d.grant.MaxResult))
	err := d.script.read(mem, mode, at, n, d.grant.MaxSQL)
	if err == nil && d.script.write && d.grant.ReadOnly {
		err = fail(abi.SQLRefused, "the database is granted for reading only (read_only in [sink.grant.sql])")
	}
	if err == nil {
		err = d.room()
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, d.grant.TimeLimit)
		err = d.file.Transact(ctx, d.script.write, func(c *sqlite.Conn) error {
			return d.within(c, func() error { return d.execute(c) })
		})
		cancel()
	}
	if err == nil {
		return abi.SQLDone, d.answer.b
	}
	if errors.Is(err, errGuard) {
		return abi.SQLGuardFailed, d.answer.b
	}
	status, why := d.status(err)
	if len(why) > size {
		why = why[:size]
	}
	return status, []byte(why)
}

// execute runs all steps.
func (d *database) execute(c *sqlite.Conn) error {
	for i := range d.script.steps {
		c.Refusal = ""
		err := d.step(c, i, &d.script.steps[i])
		if e := (*sqlite.Error)(nil); errors.As(err, &e) && !e.Fatal() && c.Refusal != "" {
			// A kept statement was compiled again and is refused now.
			return &sqlite.RefusedError{Why: c.Refusal}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// status returns what the guest is told.
func (d *database) status(err error) (abi.SQLStatus, string) {
	var e *sqlite.Error
	var s *statusError
	var r *sqlite.RefusedError
	var m *sqlite.MovedError
	switch {
	case errors.As(err, &m) && !m.After:
		return abi.SQLReplaced, m.Text
	case m != nil:
		return abi.SQLBroken, m.Text
	case errors.As(err, &s):
		return s.status, s.text
	case errors.As(err, &r):
		return abi.SQLRefused, r.Why
	case !errors.As(err, &e):
		return abi.SQLBroken, err.Error()
	case d.file.Committed && e.Code&0xff == int(sqlite3.IOERR):
		return abi.SQLDiskFailed, "commit: " + e.Text
	case d.file.Committed && e.Fatal():
		return abi.SQLBroken, "commit: " + e.Text
	case e.Memory:
		return abi.SQLTooLarge, e.Text
	case e.Interrupted():
		return abi.SQLTimeout, fmt.Sprintf("not finished within %s, or the call's deadline has passed; raise time_limit in [sink.grant.sql]", d.grant.TimeLimit)
	case e.Code == 0:
		return abi.SQLBroken, e.Text
	}
	return abi.SQLStatus(e.Code), e.Text
}
