// Package guest is the SDK for sink plugins written in Go. A plugin registers
// itself from an init function and is built with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared
//
// The package exports the functions of the ABI (package abi), keeps one inbox
// that every batch reuses, and yields once before an export returns, without
// which Go's collector inside the guest would never finish a cycle.
//
// It imports the standard library only.
package guest

import (
	"encoding/binary"
	"math"
	"runtime"
	"time"
	"unsafe"

	"github.com/audit-host/audit-host/abi"
)

// Sink is what a plugin implements. The host calls it from one goroutine.
type Sink interface {
	// Open gets the sink's configuration as JSON, before the first batch. It
	// answers OK, BadConfig, Retry or Busy.
	Open(config []byte) Answer
	// Deliver stores a batch. The view is valid until Deliver returns. The
	// same events may come again, in the same batch or another: storing has
	// to be idempotent on the event's id.
	Deliver(batch abi.View) Answer
}

// Flusher is implemented by a sink that holds back what it has not yet made
// durable.
type Flusher interface{ Flush() Answer }

// Closer is implemented by a sink that has something to put in order before
// its instance goes away.
type Closer interface{ Close() Answer }

// Answer is an outcome with its argument.
type Answer struct {
	Outcome abi.Outcome
	Arg     uint32
	// Message is about the whole batch.
	Message string
}

// OK says that all n events are stored.
func OK(n int) Answer { return Answer{Outcome: abi.OK, Arg: uint32(n)} }

// Partial says that n events are stored and every other one got a [Verdict].
func Partial(n int) Answer { return Answer{Outcome: abi.Partial, Arg: uint32(n)} }

// Retry asks for the same batch again after a pause.
func Retry(after time.Duration, message string) Answer {
	return Answer{Outcome: abi.Retry, Arg: uint32(after.Milliseconds()), Message: message}
}

// Busy says that what the sink writes to is not to be had just now.
func Busy(after time.Duration, message string) Answer {
	return Answer{Outcome: abi.Busy, Arg: uint32(after.Milliseconds()), Message: message}
}

// Reject refuses the batch for good.
func Reject(message string) Answer { return Answer{Outcome: abi.Reject, Message: message} }

// BadConfig refuses the configuration.
func BadConfig(message string) Answer { return Answer{Outcome: abi.BadConfig, Message: message} }

var (
	registered Sink
	inbox      []byte
)

// Register makes s the plugin's sink. Call it once, from an init function.
func Register(s Sink) {
	if registered != nil {
		panic("guest: Register called twice")
	}
	registered = s
}

func reserve(n uint32) uint32 {
	if n > abi.MaxFrame {
		return 0
	}
	if uint64(cap(inbox)) < uint64(n) {
		// A quarter more than asked for, so that slowly growing batches do
		// not allocate each time.
		inbox = make([]byte, uint64(n)+uint64(n)/4)
	}
	inbox = inbox[:cap(inbox)]
	runtime.Gosched()
	return address(inbox)
}

func finish(a Answer) uint64 {
	if a.Message != "" {
		Verdict(abi.WholeBatch, a.Outcome, a.Message)
	}
	runtime.Gosched()
	return abi.Answer(a.Outcome, a.Arg)
}

func open(n uint32) uint64 { return finish(registered.Open(inbox[:n])) }

func deliver(n uint32) uint64 {
	batch, err := abi.Parse(inbox[:n])
	if err != nil {
		// The host wrote the frame, so this is a fault that no repetition
		// mends; the trap makes it visible.
		panic(err)
	}
	return finish(registered.Deliver(batch))
}

func flush() uint64 {
	if f, ok := registered.(Flusher); ok {
		return finish(f.Flush())
	}
	return finish(OK(0))
}

func closeSink() uint64 {
	if c, ok := registered.(Closer); ok {
		return finish(c.Close())
	}
	return finish(OK(0))
}

// Verdict says what became of one event that was not stored, or, with the
// index [abi.WholeBatch], gives the message about the batch.
func Verdict(index uint32, code abi.Outcome, message string) {
	hostVerdict(index, uint32(code), stringAddress(message), uint32(len(message)))
}

// Log writes a line to the host's log.
func Log(level uint32, message string) {
	hostLog(level, stringAddress(message), uint32(len(message)))
}

// Metric adds n to one of the counters named in package abi.
func Metric(id uint32, n uint64) { hostMetric(id, n) }

// SHA256 hashes data with the host's implementation, nine times faster than
// a Go guest's own.
func SHA256(out *[abi.HashSize]byte, data []byte) {
	hostSHA256(address(data), uint32(len(data)), uint32(uintptr(unsafe.Pointer(out))))
	runtime.KeepAlive(data)
}

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func stringAddress(s string) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.StringData(s)))) }

// Script is one transaction for the sql capability. Its cells point into the
// caller's memory: what was passed to it must not change before Run returns.
// A Script can be used again after Reset.
type Script struct {
	steps []byte
	cells []byte
	// first[i] is the offset of step i's cells; their address is only known
	// when no cell is added any more.
	first []uint32
	// keep holds every text and blob so that they live until Run returns.
	keepText []string
	keepBlob [][]byte
}

// Reset empties the script and keeps its memory.
func (s *Script) Reset() {
	s.steps, s.cells, s.first = s.steps[:0], s.cells[:0], s.first[:0]
	clear(s.keepText)
	clear(s.keepBlob)
	s.keepText, s.keepBlob = s.keepText[:0], s.keepBlob[:0]
}

// Step starts a step of the given kind; the cells that follow are its
// parameters, rows x columns of them.
func (s *Script) Step(kind uint32, sql string, columns, rows int) {
	le := binary.LittleEndian
	s.keepText = append(s.keepText, sql)
	s.first = append(s.first, uint32(len(s.cells)))
	for _, v := range [...]uint32{kind, stringAddress(sql), uint32(len(sql)), uint32(columns), uint32(rows), 0} {
		s.steps = le.AppendUint32(s.steps, v)
	}
}

func (s *Script) cell(typ, n uint32, v uint64) {
	s.cells = binary.LittleEndian.AppendUint32(s.cells, typ)
	s.cells = binary.LittleEndian.AppendUint32(s.cells, n)
	s.cells = binary.LittleEndian.AppendUint64(s.cells, v)
}

// Null adds a NULL.
func (s *Script) Null() { s.cell(abi.SQLNull, 0, 0) }

// Int adds an integer.
func (s *Script) Int(v int64) { s.cell(abi.SQLInt, 0, uint64(v)) }

// Float adds a floating-point number.
func (s *Script) Float(v float64) { s.cell(abi.SQLFloat, 0, math.Float64bits(v)) }

// Text adds a text.
func (s *Script) Text(b []byte) {
	s.keepBlob = append(s.keepBlob, b)
	s.cell(abi.SQLText, uint32(len(b)), uint64(address(b)))
}

// Blob adds a blob.
func (s *Script) Blob(b []byte) {
	s.keepBlob = append(s.keepBlob, b)
	s.cell(abi.SQLBlob, uint32(len(b)), uint64(address(b)))
}

// Run runs the script as one transaction and returns its status and the bytes
// of the answer, a part of out: rows ([Rows]) or the text of the error.
func (s *Script) Run(mode uint32, out []byte) (abi.SQLStatus, []byte) {
	le := binary.LittleEndian
	base := address(s.cells)
	for i, off := range s.first {
		le.PutUint32(s.steps[i*abi.SQLStepSize+20:], base+off)
	}
	a := hostSQL(mode, address(s.steps), uint32(len(s.first)), address(out), uint32(len(out)))
	runtime.KeepAlive(s)
	n := min(uint32(a), uint32(len(out)))
	return abi.SQLStatus(a >> 32), out[:n]
}

// Rows reads the answer of a script: rows one after the other, each a u32
// step, a u32 column count and its cells (type u32, length u32, then eight
// bytes for a number or length bytes for a text or blob).
type Rows struct{ b []byte }

// NewRows reads an answer.
func NewRows(answer []byte) *Rows { return &Rows{b: answer} }

// Next starts the next row and returns the step it belongs to and its number
// of columns.
func (r *Rows) Next() (step, columns int, ok bool) {
	if len(r.b) < 8 {
		return 0, 0, false
	}
	step, columns = int(binary.LittleEndian.Uint32(r.b)), int(binary.LittleEndian.Uint32(r.b[4:]))
	r.b = r.b[8:]
	return step, columns, true
}

// Int reads the next cell as an integer; 0 if it is not one.
func (r *Rows) Int() int64 {
	typ, b := r.next()
	if typ != abi.SQLInt {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b))
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
	if len(r.b) < 8 {
		return abi.SQLNull, nil
	}
	typ, n := binary.LittleEndian.Uint32(r.b), int(binary.LittleEndian.Uint32(r.b[4:]))
	r.b = r.b[8:]
	if n > len(r.b) {
		n = len(r.b)
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return typ, b
}
