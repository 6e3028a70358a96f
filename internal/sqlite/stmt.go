package sqlite

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

// RefusedError is a statement that the authorizer or the host refuses.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// Stmt is a prepared statement.
type Stmt struct {
	s        *sqlite3.Stmt
	c        *Conn
	handle   uint64 // the engine's; 0 until raw needs it
	Params   int
	ReadOnly bool
}

// Prepare compiles exactly one statement.
func (c *Conn) Prepare(sql string) (stmt *Stmt, err error) {
	c.Refusal = ""
	defer func() {
		// The binding cuts the statement's text at the place of the error,
		// also if that is a place in SQL of SQLite's own (ALTER TABLE), and
		// so beyond its end. The engine is not to blame.
		if p := recover(); p != nil {
			if _, ok := p.(runtime.Error); !ok {
				panic(p)
			}
			if err = (&Error{Code: int(sqlite3.ERROR), Text: "the statement does not compile"}); c.Refusal != "" {
				err = &RefusedError{c.Refusal}
			}
		}
	}()
	s, tail, err := c.DB.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT)
	switch {
	case err != nil && c.Refusal != "":
		return nil, &RefusedError{c.Refusal}
	case err != nil:
		return nil, asError(err)
	case s == nil:
		return nil, &RefusedError{"a step without a statement"}
	}
	if strings.Trim(tail, "; \t\r\n") != "" {
		return nil, errors.Join(&RefusedError{"more than one statement in the text of a step"}, s.Close())
	}
	return &Stmt{s: s, c: c, Params: s.BindCount(), ReadOnly: s.ReadOnly()}, nil
}

// Columns counts the columns of a row. A change of the schema changes it.
func (s *Stmt) Columns() int { return s.s.ColumnCount() }

// Unbind frees the values of the parameters.
func (s *Stmt) Unbind() error { return asError(s.s.ClearBindings()) }

func (s *Stmt) Close() error { return asError(s.s.Close()) }

// Bind sets parameter i, counted from 1. b is copied.
func (s *Stmt) Bind(i int, typ uint32, n uint64, b []byte) error {
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
	return asError(err)
}

// Step goes to the next row; false at the end or with an error.
func (s *Stmt) Step() (bool, error) {
	if s.s.Step() {
		return true, nil
	}
	return false, asError(s.s.Err())
}

// Run steps to the end and makes the statement ready for the next run.
func (s *Stmt) Run() error { return asError(s.s.Exec()) }

// Reset makes the statement ready for the next run. It repeats the error of
// the last one, which has been seen.
func (s *Stmt) Reset() { _ = s.s.Reset() }

// Column returns column i of the row, counted from 0: its type, a number's
// bits, and the bytes of a text or blob, which are the engine's and valid
// until the next call.
func (s *Stmt) Column(i int) (typ uint32, n uint64, b []byte) {
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

// Set binds a Go value: nil, int64, string or []byte, of which nil is NULL.
func (s *Stmt) Set(i int, v any) error {
	switch v := v.(type) {
	case int64:
		return s.Bind(i, abi.SQLInt, uint64(v), nil)
	case string:
		return s.Bind(i, abi.SQLText, 0, unsafe.Slice(unsafe.StringData(v), len(v)))
	case []byte:
		if v != nil {
			return s.Bind(i, abi.SQLBlob, 0, v)
		}
	case nil:
	default:
		return fmt.Errorf("bind parameter %d: a %T", i, v)
	}
	return s.Bind(i, abi.SQLNull, 0, nil)
}

// Integer returns column i, or 0 if it is no INTEGER.
func (s *Stmt) Integer(i int) int64 {
	typ, n, _ := s.Column(i)
	if typ != abi.SQLInt {
		return 0
	}
	return int64(n)
}

// Text returns column i, or "" if it is no TEXT or BLOB.
func (s *Stmt) Text(i int) string {
	_, _, b := s.Column(i)
	return string(b)
}

// Bytes returns a copy of column i, or nil if it is no TEXT or BLOB.
func (s *Stmt) Bytes(i int) []byte {
	typ, _, b := s.Column(i)
	if typ != abi.SQLText && typ != abi.SQLBlob {
		return nil
	}
	return append([]byte{}, b...)
}
