//go:build !wasip1

package guest

import (
	"bytes"
	"crypto/sha256"
	"math"
	"unsafe"

	"github.com/audit-host/audit-host/abi"
)

// Host stands in for audit-host in tests that run outside WebAssembly, where
// alone it exists. A function that is nil stops the test that needs it.
type Host struct {
	Verdict func(index uint32, code abi.Outcome, message string)
	// Places gets a list that is valid until it returns.
	Places func(list []abi.Place)
	Log    func(level uint32, message string)
	Metric func(id uint32, n uint64)
	// SQL runs a script and returns the status and the answer, which is cut
	// to size bytes.
	SQL    func(mode uint32, steps []Step, size int) (abi.SQLStatus, []byte)
	Now    func() int64 // nanoseconds since 1970
	Random func([]byte)
	// Append gets a record that is valid until it returns.
	Append func(record []byte) abi.Status
	// HTTP answers a request; the text is the reason of another status than
	// abi.StatusDone.
	HTTP func(r Request) (answer abi.HTTPAnswer, status abi.Status, text string)
	// KV is the store of the capability kv, without limits and without
	// transactions; nil stops the test that needs one.
	KV map[string][]byte
}

// Step is a step of a script as a [Host] gets it. A cell is nil, int64,
// float64, string or []byte.
type Step struct {
	Kind          uint32
	SQL           string
	Columns, Rows int
	Cells         []any
}

// standIn is the host of the running test, as the imports of a module are
// those of its instance.
var standIn Host

// UseHost makes h the host until restore is called. Tests that use one must
// not run in parallel.
func UseHost(h Host) (restore func()) {
	old := standIn
	standIn = h
	return func() { standIn = old }
}

func noHost(what string) {
	panic("guest: " + what + " is a function of the host: give the test one with guest.UseHost")
}

func hostVerdict(index, code uint32, message string) {
	if standIn.Verdict == nil {
		noHost("verdict")
	}
	standIn.Verdict(index, abi.Outcome(code), message)
}

func hostPlaces(list unsafe.Pointer, n uint32) {
	if standIn.Places == nil {
		noHost("places")
	}
	standIn.Places(unsafe.Slice((*abi.Place)(list), n))
}

func hostLog(level uint32, message string) {
	if standIn.Log == nil {
		noHost("log")
	}
	standIn.Log(level, message)
}

func hostMetric(id uint32, n uint64) {
	if standIn.Metric == nil {
		noHost("metric")
	}
	standIn.Metric(id, n)
}

func hostSHA256(data unsafe.Pointer, n uint32, out unsafe.Pointer) {
	*(*[abi.HashSize]byte)(out) = sha256.Sum256(unsafe.Slice((*byte)(data), n))
}

func hostNow() uint64 {
	if standIn.Now == nil {
		noHost("now")
	}
	return uint64(standIn.Now())
}

func hostRandom(b unsafe.Pointer, n uint32) {
	if standIn.Random == nil {
		noHost("random")
	}
	standIn.Random(unsafe.Slice((*byte)(b), n))
}

func runScript(mode uint32, s *Script, out []byte) uint64 {
	if standIn.SQL == nil {
		noHost("sql")
	}
	status, answer := standIn.SQL(mode, s.list(), len(out))
	return uint64(status)<<32 | uint64(copy(out, answer))
}

// list decodes the script.
func (s *Script) list() []Step {
	values := s.values
	steps := make([]Step, len(s.steps))
	for i, st := range s.steps {
		d := Step{Kind: st.kind, SQL: s.sql[i], Columns: int(st.columns), Rows: int(st.rows)}
		for _, c := range s.cells[st.cells:][:d.Columns*d.Rows] {
			var v any
			switch c.typ {
			case abi.SQLInt:
				v = int64(c.value)
			case abi.SQLFloat:
				v = math.Float64frombits(c.value)
			case abi.SQLText:
				v, values = string(unsafe.Slice((*byte)(values[0]), c.length)), values[1:]
			case abi.SQLBlob:
				v, values = unsafe.Slice((*byte)(values[0]), c.length), values[1:]
			}
			d.Cells = append(d.Cells, v)
		}
		steps[i] = d
	}
	return steps
}

func hostAppend(record unsafe.Pointer, n uint32) uint64 {
	if standIn.Append == nil {
		noHost("append")
	}
	return abi.StatusAnswer(standIn.Append(unsafe.Slice((*byte)(record), n)), 0)
}

func runHTTP(r *Request, out []byte) uint64 {
	if standIn.HTTP == nil {
		noHost("http")
	}
	a, status, text := standIn.HTTP(*r)
	switch {
	case status != abi.StatusDone:
		return abi.StatusAnswer(status, uint32(copy(out, text)))
	case len(out) < abi.HTTPAnswerSize:
		return abi.StatusAnswer(abi.StatusTooLarge, 0)
	}
	return abi.StatusAnswer(status, uint32(a.Put(out)))
}

func hostKVGet(key string, out unsafe.Pointer, size uint32) uint64 {
	if standIn.KV == nil {
		noHost("kv")
	}
	v, ok := standIn.KV[key]
	switch {
	case !ok:
		return abi.StatusAnswer(abi.StatusAbsent, 0)
	case uint64(len(v)) > uint64(size):
		return abi.StatusAnswer(abi.StatusTooLarge, uint32(len(v)))
	}
	return abi.StatusAnswer(abi.StatusDone, uint32(copy(unsafe.Slice((*byte)(out), size), v)))
}

func hostKVSet(key string, value unsafe.Pointer, n uint32) uint64 {
	if standIn.KV == nil {
		noHost("kv")
	}
	standIn.KV[key] = bytes.Clone(unsafe.Slice((*byte)(value), n))
	return abi.StatusAnswer(abi.StatusDone, 0)
}

func hostKVDelete(key string) uint64 {
	if standIn.KV == nil {
		noHost("kv")
	}
	if _, ok := standIn.KV[key]; !ok {
		return abi.StatusAnswer(abi.StatusAbsent, 0)
	}
	delete(standIn.KV, key)
	return abi.StatusAnswer(abi.StatusDone, 0)
}
