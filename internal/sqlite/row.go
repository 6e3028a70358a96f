package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/ncruces/go-sqlite3"
	"github.com/tetratelabs/wazero/api"
)

// rowColumns is the largest number of columns that a rawRow holds.
const rowColumns = 16

// RawRow is the present row of a statement, as it lies in the engine's memory.
// The binding would make a Go value on the heap of every column, and does not
// tell a text from a blob unless it does; so its function is called directly. It
// is valid until the next call of the engine.
type RawRow struct {
	columns api.Function
	memory  api.Memory
	at      uint32 // where the engine puts the types, and the values behind them
	stack   [4]uint64

	types  []byte // sqlite3.Datatype of each column
	values []byte // eight bytes each: a number, or an address and a length
}

// newRawRow finds the engine's function and its own piece of memory, which lives
// as long as the connection.
func (c *Conn) newRawRow() (*RawRow, error) {
	r := &RawRow{columns: c.mod.ExportedFunction("sqlite3_columns_go"), memory: c.mod.Memory()}
	malloc := c.mod.ExportedFunction("sqlite3_malloc64")
	if r.columns == nil || malloc == nil || r.memory == nil {
		return nil, errors.New("read a row: this version of SQLite's binding does it otherwise")
	}
	r.stack[0] = rowColumns * 9
	if err := malloc.CallWithStack(context.Background(), r.stack[:]); err != nil {
		panic(err) // the engine failed, see protect
	}
	if r.at = uint32(r.stack[0]); r.at == 0 {
		return nil, &Error{Code: int(sqlite3.NOMEM), Text: "no memory for a row", Memory: true}
	}
	return r, nil
}

// Raw reads the n columns of the row in one call of the engine.
func (s *Stmt) Raw(n int) (r *RawRow, err error) {
	if s.c.row == nil {
		if s.c.row, err = s.c.newRawRow(); err != nil {
			return nil, err
		}
	}
	if s.handle == 0 {
		f := reflect.ValueOf(s.s).Elem().FieldByName("handle")
		if !f.IsValid() || !f.CanUint() || n > rowColumns {
			return nil, errors.New("read a row: this version of SQLite's binding keeps the statement elsewhere")
		}
		s.handle = f.Uint()
	}
	r = s.c.row
	// The values are aligned, so they come first.
	r.stack = [4]uint64{s.handle, uint64(n), uint64(r.at + rowColumns*8), uint64(r.at)}
	if err := r.columns.CallWithStack(context.Background(), r.stack[:]); err != nil {
		panic(err) // the engine failed, see protect
	}
	if code := int(uint32(r.stack[0])); code != 0 {
		return nil, &Error{Code: code, Text: fmt.Sprintf("read a row: code %d", code), Memory: code == int(sqlite3.NOMEM)}
	}
	view, ok := r.memory.Read(r.at, rowColumns*9)
	if !ok {
		return nil, errors.New("read a row: its place is outside of the engine's memory")
	}
	r.values, r.types = view[:rowColumns*8], view[rowColumns*8:][:n]
	return r, nil
}

// What a column holds.
const (
	Integer = sqlite3.INTEGER
	Text    = sqlite3.TEXT
	Blob    = sqlite3.BLOB
	Null    = sqlite3.NULL
)

// Kind returns what column i holds.
func (r *RawRow) Kind(i int) sqlite3.Datatype { return sqlite3.Datatype(r.types[i]) }

// Integer returns column i, which is an INTEGER.
func (r *RawRow) Integer(i int) int64 { return int64(binary.LittleEndian.Uint64(r.values[8*i:])) }

// Bytes returns column i, which is a TEXT or BLOB; nil if it is empty.
func (r *RawRow) Bytes(i int) []byte {
	at, n := binary.LittleEndian.Uint32(r.values[8*i:]), binary.LittleEndian.Uint32(r.values[8*i+4:])
	if n == 0 {
		return nil
	}
	b, ok := r.memory.Read(at, n)
	if !ok {
		panic(fmt.Sprintf("a value of %d bytes at %d lies outside of the engine's memory", n, at)) // see protect
	}
	return b
}
