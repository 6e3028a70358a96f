//go:build !wasip1

package guest

import (
	"bytes"
	"crypto/sha256"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/audit-host/audit-host/abi"
)

// probe is a sink that does what the test says.
type probe struct {
	open    func([]byte) Answer
	deliver func(abi.View) Answer
}

func (p *probe) Open(config []byte) Answer     { return p.open(config) }
func (p *probe) Deliver(batch abi.View) Answer { return p.deliver(batch) }

type closer struct{ probe }

func (c *closer) Flush() Answer { return Retry(time.Second, "not yet") }
func (c *closer) Close() Answer { return Busy(time.Second, "") }

// use registers s for one test.
func use(t *testing.T, s Sink) {
	registered = nil
	Register(s)
	t.Cleanup(func() { registered, inbox = nil, nil })
}

// write puts b where the host would: at the address that reserve gave.
func write(t *testing.T, b []byte) uint32 {
	t.Helper()
	p := reserve(uint32(len(b)))
	if p == nil {
		t.Fatalf("reserve(%d) refused", len(b))
	}
	copy(unsafe.Slice((*byte)(p), len(b)), b)
	return uint32(len(b))
}

func mustPanic(t *testing.T, says string, f func()) {
	t.Helper()
	defer func() {
		if p := recover(); p == nil || !strings.Contains(text(p), says) {
			t.Errorf("panic %v, wanted one that says %q", p, says)
		}
	}()
	f()
}

func text(p any) string {
	if err, ok := p.(error); ok {
		return err.Error()
	}
	s, _ := p.(string)
	return s
}

func TestExportsReachTheSink(t *testing.T) {
	messages := map[uint32]string{}
	t.Cleanup(UseHost(Host{Verdict: func(i uint32, code abi.Outcome, m string) { messages[i] = code.String() + ": " + m }}))
	var config string
	var ids []string
	use(t, &probe{
		open: func(c []byte) Answer { config = string(c); return BadConfig("no") },
		deliver: func(b abi.View) Answer {
			ids = nil
			for i := range b.Len() {
				ids = append(ids, string(b.At(i).ID()))
			}
			Verdict(1, abi.Reject, "this one")
			return Partial(b.Len() - 1)
		},
	})
	if a := open(write(t, []byte(`{"a":1}`))); a != abi.Answer(abi.BadConfig, abi.ReasonOther, 0) || config != `{"a":1}` {
		t.Errorf("open: %#x with %s", a, config)
	}
	if messages[abi.WholeBatch] != "BAD_CONFIG: no" {
		t.Errorf("messages %v", messages)
	}
	// A larger batch, then a smaller one, in the same inbox.
	for _, n := range []int{50, 2} {
		b := abi.Batch{ID: 1, Attempt: 1}
		var want []string
		for i := range n {
			id := strings.Repeat("x", i+1)
			b.Events, want = append(b.Events, abi.Event{ID: id, Payload: bytes.Repeat([]byte("p"), 1000)}), append(want, id)
		}
		raw := make([]byte, b.Size())
		b.Encode(raw)
		if a := deliver(write(t, raw)); a != abi.Answer(abi.Partial, abi.ReasonOther, uint32(n-1)) || !slices.Equal(ids, want) {
			t.Errorf("deliver: %#x with %v", a, ids)
		}
		if messages[1] != "REJECT: this one" {
			t.Errorf("messages %v", messages)
		}
		// The same of a later version of the ABI, and of one that never was.
		if a := deliver(write(t, abi.Resize(raw, 80, 264, 0xff))); a != abi.Answer(abi.Partial, abi.ReasonOther, uint32(n-1)) || !slices.Equal(ids, want) {
			t.Errorf("deliver of larger entries: %#x with %v", a, ids)
		}
		mustPanic(t, "malformed batch frame", func() { deliver(write(t, abi.Resize(raw, 64, 192, 0xff))) })
	}
	if a := flush(); a != abi.Answer(abi.OK, abi.ReasonOther, 0) {
		t.Errorf("flush of a sink without one: %#x", a)
	}
	if a := closeSink(); a != abi.Answer(abi.OK, abi.ReasonOther, 0) {
		t.Errorf("close of a sink without one: %#x", a)
	}
	mustPanic(t, "malformed batch frame", func() { deliver(write(t, []byte("nonsense"))) })
}

func TestFlushAndClose(t *testing.T) {
	var message string
	t.Cleanup(UseHost(Host{Verdict: func(_ uint32, _ abi.Outcome, m string) { message = m }}))
	use(t, &closer{})
	if a := flush(); a != abi.Answer(abi.Retry, abi.ReasonOther, 1000) || message != "not yet" {
		t.Errorf("flush: %#x, %q", a, message)
	}
	if a := closeSink(); a != abi.Answer(abi.Busy, abi.ReasonOther, 1000) {
		t.Errorf("close: %#x", a)
	}
}

func TestRegisterOnce(t *testing.T) {
	use(t, &probe{})
	mustPanic(t, "twice", func() { Register(&probe{}) })
	registered = nil
	mustPanic(t, "guest.Register", func() { open(0) })
}

func TestReserve(t *testing.T) {
	t.Cleanup(func() { inbox = nil })
	if reserve(abi.MaxFrame+1) != nil {
		t.Error("a frame beyond the ABI's limit was not refused")
	}
	p := reserve(0)
	if p == nil {
		t.Fatal("reserve(0) refused")
	}
	if reserve(minInbox) != p {
		t.Error("the inbox moved although it was large enough")
	}
	q := reserve(100_000)
	if len(inbox) < 100_000 || reserve(110_000) != q {
		t.Errorf("an inbox of %d bytes has no room to grow", len(inbox))
	}
}

// TestDeliveryAllocatesNothing: what the SDK itself does for a batch.
func TestDeliveryAllocatesNothing(t *testing.T) {
	use(t, &probe{deliver: func(b abi.View) Answer { return OK(b.Len()) }})
	b := abi.Batch{ID: 1, Attempt: 1, Events: []abi.Event{{ID: "a"}}}
	raw := make([]byte, b.Size())
	b.Encode(raw)
	n := write(t, raw)
	if got := testing.AllocsPerRun(100, func() { reserve(n); deliver(n) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestPausesAreWholeMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		0: 0, -time.Second: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Second: 1000, math.MaxInt64: math.MaxUint32,
	} {
		if a := Retry(d, ""); a.Arg != want {
			t.Errorf("%v is %d ms, wanted %d", d, a.Arg, want)
		}
	}
}

func TestHostFunctions(t *testing.T) {
	var got []any
	t.Cleanup(UseHost(Host{
		Log:    func(level uint32, m string) { got = append(got, level, m) },
		Metric: func(id uint32, n uint64) { got = append(got, id, n) },
		Now:    func() int64 { return 1_500_000_000_000_000_123 },
		Random: func(b []byte) { copy(b, "random") },
	}))
	Log(abi.LogWarn, "careful")
	Metric(abi.MetricRaces, 7)
	if !slices.Equal(got, []any{abi.LogWarn, "careful", abi.MetricRaces, uint64(7)}) {
		t.Errorf("the host got %v", got)
	}
	if now := Now(); now.Format(time.RFC3339Nano) != "2017-07-14T02:40:00.000000123Z" {
		t.Errorf("now is %s", now)
	}
	b := make([]byte, 6)
	if Random(b); string(b) != "random" {
		t.Errorf("random bytes %q", b)
	}
	var h [abi.HashSize]byte
	for _, data := range [][]byte{nil, []byte("abc")} {
		if SHA256(&h, data); h != sha256.Sum256(data) {
			t.Errorf("SHA-256 of %q is %x", data, h)
		}
	}
}

// TestNativeNeedsAStandIn: without a host a test stops and says what to do.
func TestNativeNeedsAStandIn(t *testing.T) {
	t.Cleanup(UseHost(Host{}))
	for name, f := range map[string]func(){
		"verdict": func() { Verdict(0, abi.Retry, "") }, "log": func() { Log(0, "") }, "metric": func() { Metric(0, 0) },
		"sql": func() { new(Script).Run(0, nil) }, "now": func() { Now() }, "random": func() { Random(nil) },
	} {
		mustPanic(t, name+" is a function of the host", f)
	}
}

func TestScript(t *testing.T) {
	answer := []byte("the answer is longer")
	var got []Step
	var mode uint32
	t.Cleanup(UseHost(Host{SQL: func(m uint32, steps []Step, size int) (abi.SQLStatus, []byte) {
		mode, got = m, steps
		return abi.SQLStatus(2067), answer
	}}))
	var s Script
	for range 2 { // the second time in the same memory
		s.Reset()
		s.Step(abi.SQLExec, "one", 0, 0)
		s.Step(abi.SQLMany, "two", 3, 2)
		for i := range 2 {
			s.Int(int64(i) - 1)
			s.Text([]byte("text"))
			s.Null()
		}
		s.Step(abi.SQLGuard, "three", 2, 1)
		s.Float(1.5)
		s.Blob([]byte{1, 2})
		out := make([]byte, 10)
		status, text := s.Run(abi.SQLWrite, out)
		if status != 2067 || string(text) != "the answer"[:10] || mode != abi.SQLWrite {
			t.Errorf("mode %d: status %d, %q", mode, status, text)
		}
		want := []Step{
			{Kind: abi.SQLExec, SQL: "one"},
			{Kind: abi.SQLMany, SQL: "two", Columns: 3, Rows: 2, Cells: []any{int64(-1), "text", nil, int64(0), "text", nil}},
			{Kind: abi.SQLGuard, SQL: "three", Columns: 2, Rows: 1, Cells: []any{1.5, []byte{1, 2}}},
		}
		if len(got) != len(want) {
			t.Fatalf("%d steps", len(got))
		}
		for i, w := range want {
			g := got[i]
			same := slices.EqualFunc(g.Cells, w.Cells, func(a, b any) bool {
				x, blob := a.([]byte)
				y, blob2 := b.([]byte)
				return blob == blob2 && (blob && bytes.Equal(x, y) || !blob && a == b)
			})
			if g.Kind != w.Kind || g.SQL != w.SQL || g.Columns != w.Columns || g.Rows != w.Rows || !same {
				t.Errorf("step %d is %+v, wanted %+v", i, g, w)
			}
		}
	}
}

// row encodes a row as the host does.
func row(step uint32, cells ...any) []byte {
	var b []byte
	u32 := func(v uint32) { b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24)) }
	u64 := func(v uint64) { u32(uint32(v)); u32(uint32(v >> 32)) }
	u32(step)
	u32(uint32(len(cells)))
	for _, c := range cells {
		switch c := c.(type) {
		case nil:
			u32(abi.SQLNull)
			u32(0)
		case int:
			u32(abi.SQLInt)
			u32(8)
			u64(uint64(c))
		case float64:
			u32(abi.SQLFloat)
			u32(8)
			u64(math.Float64bits(c))
		case string:
			u32(abi.SQLText)
			u32(uint32(len(c)))
			b = append(b, c...)
		}
	}
	return b
}

func TestRows(t *testing.T) {
	answer := slices.Concat(row(0, 1, "passed over"), row(2, nil, -5, 2.5, "text"), row(3), row(4, "last"))
	r := NewRows(answer)
	if step, columns, ok := r.Next(); step != 0 || columns != 2 || !ok || r.Int() != 1 {
		t.Error("row 1")
	}
	if step, columns, ok := r.Next(); step != 2 || columns != 4 || !ok {
		t.Errorf("row 2 has %d columns, of step %d", columns, step)
	}
	if b := r.Bytes(); b != nil {
		t.Errorf("NULL as bytes is %v", b)
	}
	if n := r.Int(); n != -5 {
		t.Errorf("int %d", n)
	}
	if f := r.Float(); f != 2.5 {
		t.Errorf("float %v", f)
	}
	if n := r.Int(); n != 0 {
		t.Errorf("a text as int is %d", n)
	}
	if b := r.Bytes(); b != nil {
		t.Errorf("a cell beyond the row's: %q", b)
	}
	if step, columns, ok := r.Next(); step != 3 || columns != 0 || !ok {
		t.Error("row 3")
	}
	if step, _, ok := r.Next(); step != 4 || !ok || string(r.Bytes()) != "last" {
		t.Error("row 4")
	}
	if _, _, ok := r.Next(); ok {
		t.Error("a fifth row")
	}
	// An answer cut anywhere ends; nothing is read beyond it.
	for n := range answer {
		r := NewRows(answer[:n:n])
		for rows := 0; ; rows++ {
			if _, _, ok := r.Next(); !ok {
				break
			}
			if rows > 4 {
				t.Fatalf("cut to %d bytes it has more rows than whole", n)
			}
		}
	}
}
