package host

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/abi"
)

// refusedError is a statement that the authorizer or the host refuses.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return e.why }

// dbStmt is a prepared statement.
type dbStmt struct {
	s        *sqlite3.Stmt
	c        *dbConn
	handle   uint64 // the engine's; 0 until raw needs it
	params   int
	readOnly bool
}

// prepare compiles exactly one statement.
func (c *dbConn) prepare(sql string) (stmt *dbStmt, err error) {
	c.refusal = ""
	defer func() {
		// The binding cuts the statement's text at the place of the error,
		// also if that is a place in SQL of SQLite's own (ALTER TABLE), and
		// so beyond its end. The engine is not to blame.
		if p := recover(); p != nil {
			if _, ok := p.(runtime.Error); !ok {
				panic(p)
			}
			if err = (&dbError{code: int(sqlite3.ERROR), text: "the statement does not compile"}); c.refusal != "" {
				err = &refusedError{c.refusal}
			}
		}
	}()
	s, tail, err := c.db.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT)
	switch {
	case err != nil && c.refusal != "":
		return nil, &refusedError{c.refusal}
	case err != nil:
		return nil, asDBError(err)
	case s == nil:
		return nil, &refusedError{"a step without a statement"}
	}
	if strings.Trim(tail, "; \t\r\n") != "" {
		return nil, errors.Join(&refusedError{"more than one statement in the text of a step"}, s.Close())
	}
	return &dbStmt{s: s, c: c, params: s.BindCount(), readOnly: s.ReadOnly()}, nil
}

// columns counts the columns of a row. A change of the schema changes it.
func (s *dbStmt) columns() int { return s.s.ColumnCount() }

// unbind frees the values of the parameters.
func (s *dbStmt) unbind() error { return asDBError(s.s.ClearBindings()) }

func (s *dbStmt) close() error { return asDBError(s.s.Close()) }

// bind sets parameter i, counted from 1. b is copied.
func (s *dbStmt) bind(i int, typ uint32, n uint64, b []byte) error {
	var err error
	switch typ {
	case abi.SQLNull:
		err = s.s.BindNull(i)
	case abi.SQLInt:
		err = s.s.BindInt64(i, int64(n))
	case abi.SQLFloat:
		err = s.s.BindFloat(i, math.Float64frombits(n))
	case abi.SQLText:
		// The binding copies the text before it returns; making a string of
		// it first would copy it twice.
		err = s.s.BindText(i, unsafe.String(unsafe.SliceData(b), len(b)))
	default:
		err = s.s.BindBlob(i, b)
	}
	return asDBError(err)
}

// step goes to the next row; false at the end or with an error.
func (s *dbStmt) step() (bool, error) {
	if s.s.Step() {
		return true, nil
	}
	return false, asDBError(s.s.Err())
}

// run steps to the end and makes the statement ready for the next run.
func (s *dbStmt) run() error { return asDBError(s.s.Exec()) }

// reset makes the statement ready for the next run. It repeats the error of
// the last one, which has been seen.
func (s *dbStmt) reset() { _ = s.s.Reset() }

// column returns column i of the row, counted from 0: its type, a number's
// bits, and the bytes of a text or blob, which are the engine's and valid
// until the next call.
func (s *dbStmt) column(i int) (typ uint32, n uint64, b []byte) {
	switch s.s.ColumnType(i) {
	case sqlite3.INTEGER:
		return abi.SQLInt, uint64(s.s.ColumnInt64(i)), nil
	case sqlite3.FLOAT:
		return abi.SQLFloat, math.Float64bits(s.s.ColumnFloat(i)), nil
	case sqlite3.TEXT:
		return abi.SQLText, 0, s.s.ColumnRawText(i)
	case sqlite3.BLOB:
		return abi.SQLBlob, 0, s.s.ColumnRawBlob(i)
	}
	return abi.SQLNull, 0, nil
}

// set binds a Go value: nil, int64, string or []byte, of which nil is NULL.
func (s *dbStmt) set(i int, v any) error {
	switch v := v.(type) {
	case int64:
		return s.bind(i, abi.SQLInt, uint64(v), nil)
	case string:
		return s.bind(i, abi.SQLText, 0, unsafe.Slice(unsafe.StringData(v), len(v)))
	case []byte:
		if v != nil {
			return s.bind(i, abi.SQLBlob, 0, v)
		}
	case nil:
	default:
		return fmt.Errorf("bind parameter %d: a %T", i, v)
	}
	return s.bind(i, abi.SQLNull, 0, nil)
}

// integer, string and bytes return column i, or the zero value where it is of
// another type. bytes returns a copy, nil for NULL only.
func (s *dbStmt) integer(i int) int64 {
	typ, n, _ := s.column(i)
	if typ != abi.SQLInt {
		return 0
	}
	return int64(n)
}

func (s *dbStmt) string(i int) string {
	_, _, b := s.column(i)
	return string(b)
}

func (s *dbStmt) bytes(i int) []byte {
	typ, _, b := s.column(i)
	if typ != abi.SQLText && typ != abi.SQLBlob {
		return nil
	}
	return append([]byte{}, b...)
}
