package host

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
)

// Bounds of what is remembered of an instance for the case that it crashes.
const (
	// maxAnswers bounds the recorded answers of one call into the guest in
	// bytes, and maxLife all calls of an instance but the last: what it was
	// given and what was answered to it.
	maxAnswers = 512 << 10
	maxLife    = 512 << 10
	// maxTold is how many of the last host calls a bundle shows.
	maxTold = 64
)

// trace remembers the life of an instance: which calls it got, and what came
// to it from outside. All other host functions answer a guest that does the
// same again the same, so that a replay runs them anew.
//
// It costs a host call some nanoseconds, and a batch nothing but the copies of
// the answers, as long as its life is longer than what is remembered of it.
type trace struct {
	on bool
	// open and past are the calls before this one, if whole; else only open is
	// there.
	open  episode
	past  []episode
	size  int // bytes of past
	whole bool

	current  episode
	batch    *abi.Batch // of the current call
	overflow bool       // its answers did not fit
	told     [maxTold]hostCall
	calls    uint64 // in the current call into the guest
	ending   ending
}

// episode is one call into the guest. Answers are records of function u8,
// result u64, length u32, bytes.
type episode struct {
	export  string
	input   []byte
	answers []byte
}

// hostCall is one call of a host function.
type hostCall struct {
	fn     *hostFn
	args   [6]uint64
	result uint64
	done   bool
}

// ending is how a call ended if it was the host that ended it.
type ending struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// Kinds of an ending. The first four are of a host call that did not return.
const (
	endStopped = "stopped" // by the deadline
	endPointer = "pointer"
	endExit    = "exit"
	endPanic   = "panic"
	endMeter   = "meter" // the deadline, while the guest computed
	endLate    = "late"  // the guest answered after the deadline
)

// hostFn is a host function as the trace knows it.
type hostFn struct {
	id   byte
	name string
	abi.Signature
	// outside tells that its answer comes from outside the guest; filled, if
	// not nil, says which region of the guest's memory it filled.
	outside bool
	filled  func(args *[6]uint64, result uint64) (ptr, n uint32)
}

// outsideFunctions are those with an answer from outside, in the order of
// their ids, which a bundle does not hold.
var outsideFunctions = []struct {
	name   string
	filled func(args *[6]uint64, result uint64) (ptr, n uint32)
}{
	{abi.ImportModule + "." + abi.ImportNow, nil},
	{abi.ImportModule + "." + abi.ImportRandom, func(a *[6]uint64, _ uint64) (uint32, uint32) { return uint32(a[0]), uint32(a[1]) }},
	{abi.ImportModule + "." + abi.ImportSQL, func(a *[6]uint64, r uint64) (uint32, uint32) { return uint32(a[3]), min(uint32(a[4]), uint32(r)) }},
	{abi.ImportModule + "." + abi.ImportAppend, nil},
	{abi.ImportModule + "." + abi.ImportHTTP, func(a *[6]uint64, r uint64) (uint32, uint32) { return uint32(a[4]), min(uint32(a[5]), uint32(r)) }},
	{abi.ImportModule + "." + abi.ImportKVGet, func(a *[6]uint64, r uint64) (uint32, uint32) { return uint32(a[2]), min(uint32(a[3]), uint32(r)) }},
	{abi.ImportModule + "." + abi.ImportKVSet, nil},
	{abi.ImportModule + "." + abi.ImportKVDel, nil},
	{wasiModule + ".clock_time_get", func(a *[6]uint64, _ uint64) (uint32, uint32) { return uint32(a[2]), 8 }},
	{wasiModule + ".random_get", func(a *[6]uint64, _ uint64) (uint32, uint32) { return uint32(a[0]), uint32(a[1]) }},
}

// watch describes a host function.
func (s *Sink) watch(module string, sig abi.Signature) *hostFn {
	name := module + "." + sig.Name
	h := &hostFn{name: name, Signature: sig}
	for i, f := range outsideFunctions {
		if f.name != name {
			continue
		}
		h.id, h.outside, h.filled = byte(i), true, f.filled
		// Without the grant these come from the host's own arithmetic.
		if name == wasiModule+".clock_time_get" && !s.o.Now || name == wasiModule+".random_get" && !s.o.Random {
			h.outside = false
		}
	}
	return h
}

// birth begins the trace of a fresh instance.
func (t *trace) birth() {
	t.open, t.past, t.size, t.whole = episode{}, nil, 0, true
}

// begin begins a call into the guest.
func (t *trace) begin(export string) {
	if !t.on {
		return
	}
	t.current = episode{export: export, answers: t.current.answers[:0]}
	t.batch, t.overflow, t.calls, t.ending = nil, false, 0, ending{}
}

// keep ends a call; alive tells that it left an instance behind. input is asked
// only if it is kept.
func (t *trace) keep(alive bool, input func() []byte) {
	batch := t.batch
	t.batch = nil // it is the caller's again
	if !t.on || !alive {
		return
	}
	if t.current.export == abi.ExportOpen {
		t.open = t.current.copy(input())
		t.whole = !t.overflow
		return
	}
	if !t.whole {
		return
	}
	room := maxLife - t.size - len(t.current.answers)
	if batch != nil {
		room -= batch.Size()
	}
	if t.overflow || room < 0 {
		t.past, t.size, t.whole = nil, 0, false
		return
	}
	e := t.current.copy(input())
	t.past, t.size = append(t.past, e), t.size+len(e.input)+len(e.answers)+64
}

func (e episode) copy(input []byte) episode {
	return episode{e.export, input, append([]byte(nil), e.answers...)}
}

func frameOf(b *abi.Batch) []byte {
	frame := make([]byte, b.Size())
	b.Encode(frame)
	return frame
}

// enter notes a host call, whether it returns or not.
func (t *trace) enter(h *hostFn, stack []uint64) *hostCall {
	c := &t.told[t.calls%maxTold]
	t.calls++
	c.fn, c.result, c.done = h, 0, false
	copy(c.args[:], stack)
	return c
}

// leave notes the answer.
func (t *trace) leave(c *hostCall, mod api.Module, stack []uint64) {
	c.done = true
	if len(c.fn.Results) > 0 {
		c.result = stack[0]
	}
	if !c.fn.outside || t.overflow {
		return
	}
	var b []byte
	if c.fn.filled != nil {
		ptr, n := c.fn.filled(&c.args, c.result)
		b, _ = mod.Memory().Read(ptr, n) // none if it pointed nowhere
	}
	if len(t.current.answers)+13+len(b) > maxAnswers {
		t.overflow = true
		return
	}
	a := append(t.current.answers, c.fn.id)
	a = binary.LittleEndian.AppendUint64(a, c.result)
	a = binary.LittleEndian.AppendUint32(a, uint32(len(b)))
	t.current.answers = append(a, b...)
}

// unwound notes why a host call did not return.
func (t *trace) unwound(p any) {
	if !t.on {
		return
	}
	err, ok := p.(error)
	switch {
	case ok && errors.Is(err, errStopped):
		t.ending = ending{endStopped, err.Error()}
	case ok && errors.Is(err, errBadPointer):
		t.ending = ending{endPointer, err.Error()}
	case ok && isExit(err):
		t.ending = ending{endExit, err.Error()}
	default:
		t.ending = ending{endPanic, firstLines(fmt.Sprint(p), 12)}
	}
}

// last returns the host calls that are remembered, the oldest first.
func (t *trace) last() []*hostCall {
	var list []*hostCall
	for i := t.calls - min(t.calls, maxTold); i < t.calls; i++ {
		list = append(list, &t.told[i%maxTold])
	}
	return list
}
