package guest

import (
	"encoding/binary"
	"math"
	"slices"
	"unsafe"

	"github.com/audit-host/audit-host/abi"
)

// Script is one transaction for the sql capability: steps with their cells. It
// is built anew for each, after Reset, and keeps its memory. The cells point
// at the caller's texts and blobs: these must not change before Run returns.
type Script struct {
	steps []step
	cells []cell
	// What the addresses in them stand for, so that it lives, on the heap,
	// until Run returns.
	sql    []string
	values []unsafe.Pointer
}

// step and cell have the layout of the ABI, whose byte order is that of
// WebAssembly: fields are written whole, where bytes would be written singly.
type step struct {
	kind uint32
	//lint:ignore U1000 an address, which only the WebAssembly build can set
	text                  uint32
	length, columns, rows uint32
	// cells is the index of the first cell and becomes, when no cell is added
	// any more, its address.
	cells uint32
}

type cell struct {
	typ, length uint32
	value       uint64
}

// These fail to compile if a size is not the ABI's.
var (
	_ [abi.SQLStepSize]struct{} = [unsafe.Sizeof(step{})]struct{}{}
	_ [abi.SQLCellSize]struct{} = [unsafe.Sizeof(cell{})]struct{}{}
)

// Reset empties the script.
func (s *Script) Reset() {
	clear(s.sql)
	clear(s.values)
	s.steps, s.cells, s.sql, s.values = s.steps[:0], s.cells[:0], s.sql[:0], s.values[:0]
}

// Step starts a step of the given kind of package abi; the cells that follow
// are its parameters, row by row. [abi.SQLMany] takes any number of rows, the
// others one, or none if they have no parameters; [abi.SQLGuard] takes the
// row it wants, or none for no row.
func (s *Script) Step(kind uint32, sql string, columns, rows int) {
	s.sql = append(s.sql, sql)
	s.steps = append(s.steps, step{kind: kind, length: uint32(len(sql)), columns: uint32(columns), rows: uint32(rows), cells: uint32(len(s.cells))})
	s.cells = slices.Grow(s.cells, columns*rows)
	s.values = slices.Grow(s.values, columns*rows)
}

// Null adds a NULL.
func (s *Script) Null() { s.cells = append(s.cells, cell{}) }

// Int adds an integer.
func (s *Script) Int(v int64) { s.cells = append(s.cells, cell{typ: abi.SQLInt, value: uint64(v)}) }

// Float adds a floating-point number.
func (s *Script) Float(v float64) {
	s.cells = append(s.cells, cell{typ: abi.SQLFloat, value: math.Float64bits(v)})
}

// Text adds a text; it should be valid UTF-8.
func (s *Script) Text(b []byte) { s.value(abi.SQLText, b) }

// Blob adds a blob.
func (s *Script) Blob(b []byte) { s.value(abi.SQLBlob, b) }

func (s *Script) value(typ uint32, b []byte) {
	p := unsafe.Pointer(unsafe.SliceData(b))
	s.values = append(s.values, p)
	s.cells = append(s.cells, cell{typ: typ, length: uint32(len(b)), value: uint64(uintptr(p))})
}

// Run runs the script as one transaction of the given mode of package abi. It
// returns the status and the bytes of the answer, a part of out: rows
// ([Rows]) or the text of the error. It needs the capability "sql".
func (s *Script) Run(mode uint32, out []byte) (abi.SQLStatus, []byte) {
	a := runScript(mode, s, out)
	return abi.SQLStatus(a >> 32), out[:min(uint32(a), uint32(len(out)))]
}

// Rows reads the answer of a script.
type Rows struct {
	b    []byte
	left int // cells of the current row
}

// NewRows reads an answer.
func NewRows(answer []byte) *Rows { return &Rows{b: answer} }

// Next starts the next row and returns the step it belongs to and its number
// of columns. What was not read of the row before is passed over.
func (r *Rows) Next() (step, columns int, ok bool) {
	for r.left > 0 {
		r.next()
	}
	if len(r.b) < 8 {
		return 0, 0, false
	}
	step, columns = int(binary.LittleEndian.Uint32(r.b)), int(binary.LittleEndian.Uint32(r.b[4:]))
	r.b, r.left = r.b[8:], columns
	return step, columns, true
}

// Int reads the next cell as an integer; 0 if it is not one.
func (r *Rows) Int() int64 {
	typ, b := r.next()
	if typ != abi.SQLInt || len(b) != 8 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b))
}

// Float reads the next cell as a floating-point number; 0 if it is not one.
func (r *Rows) Float() float64 {
	typ, b := r.next()
	if typ != abi.SQLFloat || len(b) != 8 {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

// Bytes reads the next cell as a text or blob, a part of the answer; nil for
// anything else.
func (r *Rows) Bytes() []byte {
	typ, b := r.next()
	if typ != abi.SQLText && typ != abi.SQLBlob {
		return nil
	}
	return b
}

func (r *Rows) next() (uint32, []byte) {
	if r.left == 0 || len(r.b) < 8 {
		r.left = 0
		return abi.SQLNull, nil
	}
	r.left--
	typ, n := binary.LittleEndian.Uint32(r.b), uint64(binary.LittleEndian.Uint32(r.b[4:]))
	r.b = r.b[8:]
	n = min(n, uint64(len(r.b)))
	b := r.b[:n:n]
	r.b = r.b[n:]
	return typ, b
}
