package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// read takes a script apart. It checks every pointer, so that executing it
// meets none that is bad: one panics with errBadPointer here.
func (sc *script) read(mem []byte, mode, at, n uint32, maxSQL int) error {
	sc.mem, sc.write, sc.steps = mem, mode == abi.SQLWrite, sc.steps[:0]
	if mode > abi.SQLWrite {
		return fail(abi.SQLRefused, "mode %d is unknown", mode)
	}
	if n > maxSteps {
		return fail(abi.SQLTooLarge, "the script has %d steps, the limit is %d", n, maxSteps)
	}
	le := binary.LittleEndian
	steps := sc.bytes(uint64(at), uint64(n)*abi.SQLStepSize)
	for i := range int(n) {
		b := steps[i*abi.SQLStepSize:]
		columns, rows := le.Uint32(b[12:]), le.Uint32(b[16:])
		st := step{kind: le.Uint32(b), sql: sc.bytes(uint64(le.Uint32(b[4:])), uint64(le.Uint32(b[8:])))}
		switch {
		case st.kind > abi.SQLMany:
			return fail(abi.SQLRefused, "step %d: kind %d is unknown", i, st.kind)
		case len(st.sql) > maxSQL:
			return fail(abi.SQLTooLarge, "step %d: the text has %d bytes, the limit is %d", i, len(st.sql), maxSQL)
		case bytes.IndexByte(st.sql, 0) >= 0:
			return fail(abi.SQLRefused, "step %d: a NUL in the text", i)
		case columns > maxColumns:
			return fail(abi.SQLTooLarge, "step %d: %d columns, the limit is %d", i, columns, maxColumns)
		case rows > maxRows:
			return fail(abi.SQLTooLarge, "step %d: %d rows, the limit is %d", i, rows, maxRows)
		case st.kind != abi.SQLMany && rows > 1:
			return fail(abi.SQLRefused, "step %d: %d rows of cells, one is the most", i, rows)
		case st.kind == abi.SQLMany && rows > 0 && columns == 0:
			return fail(abi.SQLRefused, "step %d: many without columns", i)
		}
		st.columns, st.rows = int(columns), int(rows)
		st.cells = sc.bytes(uint64(le.Uint32(b[20:])), uint64(rows)*uint64(columns)*abi.SQLCellSize)
		for c := st.cells; len(c) > 0; c = c[abi.SQLCellSize:] {
			switch typ := le.Uint32(c); {
			case typ > abi.SQLBlob:
				return fail(abi.SQLRefused, "step %d: a cell of type %d", i, typ)
			case typ >= abi.SQLText:
				sc.bytes(le.Uint64(c[8:]), uint64(le.Uint32(c[4:])))
			}
		}
		sc.steps = append(sc.steps, st)
	}
	return nil
}

// bytes returns n bytes of the guest's memory. What is empty has no address.
func (sc *script) bytes(at, n uint64) []byte {
	if n == 0 {
		return nil
	}
	if size := uint64(len(sc.mem)); at > size || n > size-at {
		panic(fmt.Errorf("%w: %d bytes at %#x in a script, it has %d", errBadPointer, n, at, size))
	}
	return sc.mem[at : at+n : at+n]
}

// step runs step i of the script.
func (d *database) step(c *sqlite.Conn, i int, st *step) error {
	if st.kind == abi.SQLMany {
		return d.many(c, i, st)
	}
	s, err := d.statement(c, i, st, 0)
	if err != nil {
		return err
	}
	params := 0
	if st.kind != abi.SQLGuard && st.rows > 0 {
		params = st.columns
	}
	if params != s.Params {
		return fail(abi.SQLRefused, "step %d: the statement has %d parameters, the step brings %d", i, s.Params, params)
	}
	if err := d.bind(s, st, 0, params); err != nil {
		return err
	}
	switch st.kind {
	case abi.SQLExec:
		err = s.Run()
	case abi.SQLQuery:
		err = d.query(i, s)
	default:
		err = d.guard(i, st, s)
	}
	if params == 0 {
		return err
	}
	return errors.Join(err, s.Unbind())
}

// many runs an INSERT for all rows of a step.
func (d *database) many(c *sqlite.Conn, i int, st *step) error {
	for row := 0; row < st.rows; {
		n := min(rowsPerStatement, st.rows-row)
		s, err := d.statement(c, i, st, n)
		if err != nil {
			return err
		}
		if s.Params != n*st.columns {
			return fail(abi.SQLRefused, "step %d: the text of many has parameters of its own", i)
		}
		for row+n <= st.rows {
			if err := d.bind(s, st, row*st.columns, n*st.columns); err != nil {
				return err
			}
			if err := s.Run(); err != nil {
				return err
			}
			row += n
		}
		// A kept statement would keep its last rows too.
		if err := s.Unbind(); err != nil {
			return err
		}
	}
	return nil
}

// bind sets the statement's n parameters from the cells that begin with first.
func (d *database) bind(s *sqlite.Stmt, st *step, first, n int) error {
	for i := range n {
		typ, number, b := d.script.cell(st, first+i)
		if err := s.Bind(i+1, typ, number, b); err != nil {
			return err
		}
	}
	return nil
}

// query appends all rows of a query to the answer.
func (d *database) query(i int, s *sqlite.Stmt) error {
	defer s.Reset()
	for {
		ok, err := s.Step()
		if err != nil || !ok {
			return err
		}
		if !d.answer.row(i, s) {
			return fail(abi.SQLTooLarge, "step %d: the rows need more than the %d bytes there are for the answer", i, d.answer.limit)
		}
	}
}

// guard compares the first row of a query with the cells of the step.
func (d *database) guard(i int, st *step, s *sqlite.Stmt) error {
	defer s.Reset()
	ok, err := s.Step()
	if err != nil {
		return err
	}
	if !ok && st.rows == 0 || ok && st.rows == 1 && d.equal(st, s) {
		return nil
	}
	d.answer.b = d.answer.b[:0]
	if ok && !d.answer.row(i, s) {
		return fail(abi.SQLTooLarge, "step %d: the row that was found needs more than the %d bytes there are for the answer", i, d.answer.limit)
	}
	return errGuard
}

func (d *database) equal(st *step, s *sqlite.Stmt) bool {
	if s.Columns() != st.columns {
		return false
	}
	for i := range st.columns {
		typ, n, b := d.script.cell(st, i)
		t, m, have := s.Column(i)
		if typ != t || (typ == abi.SQLInt || typ == abi.SQLFloat) && n != m || !bytes.Equal(b, have) {
			return false
		}
	}
	return true
}

// stmtKey names a prepared statement: its text, and for many its rows.
type stmtKey struct {
	sql  string
	rows int
}

// statement returns the prepared statement of a step, for many with
// placeholders for n rows.
func (d *database) statement(c *sqlite.Conn, i int, st *step, n int) (*sqlite.Stmt, error) {
	s, ok := d.stmts[stmtKey{string(st.sql), n}]
	if !ok {
		if len(d.stmts) >= maxStatements {
			// A guest that makes its texts up as it goes gains nothing from
			// them: all go, the ones in use come back.
			for k, s := range d.stmts {
				delete(d.stmts, k)
				if err := s.Close(); err != nil {
					return nil, err
				}
			}
		}
		sql := string(st.sql)
		if n > 0 {
			sql += placeholders(st.columns, n)
		}
		var err error
		if s, err = c.Prepare(sql); err != nil {
			return nil, err
		}
		d.stmts[stmtKey{string(st.sql), n}] = s
	}
	if !s.ReadOnly && !d.script.write {
		return nil, fail(abi.SQLRefused, "step %d writes, and the script is of mode read", i)
	}
	return s, nil
}

func placeholders(columns, rows int) string {
	row := " (?" + strings.Repeat(",?", columns-1) + ")"
	return row + strings.Repeat(","+row, rows-1)
}

// answer is what a guest gets back: rows as abi/README.md lays them out. It is
// not written to the guest's memory before the script has ended, for the
// script lies there too.
type answer struct {
	b     []byte
	limit int
}

func (a *answer) reset(limit int) { a.b, a.limit = a.b[:0], limit }

// row appends the row that s stands on; false if it does not fit.
func (a *answer) row(step int, s *sqlite.Stmt) bool {
	le, columns := binary.LittleEndian, s.Columns()
	a.b = le.AppendUint32(le.AppendUint32(a.b, uint32(step)), uint32(columns))
	for i := range columns {
		typ, n, b := s.Column(i)
		size := len(b)
		if typ == abi.SQLInt || typ == abi.SQLFloat {
			size = 8
		}
		if len(a.b)+8+size > a.limit {
			return false
		}
		a.b = le.AppendUint32(le.AppendUint32(a.b, typ), uint32(size))
		if typ == abi.SQLInt || typ == abi.SQLFloat {
			a.b = le.AppendUint64(a.b, n)
		} else {
			a.b = append(a.b, b...)
		}
	}
	return len(a.b) <= a.limit
}
