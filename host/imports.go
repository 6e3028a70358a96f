package host

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
)

// errBadPointer is the one fault of an import that traps: everything else is
// a status.
var errBadPointer = errors.New("pointer outside the guest's memory")

// errStopped ends a guest in a host function when its time is up.
var errStopped = errors.New("stopped by the host")

// portion is how many bytes a host function works on before it looks at the
// time again: some of the work is machine code that Go can't interrupt.
const portion = 1 << 20

// call is what the host functions of one call into the guest collect.
type call struct {
	events    int
	arg       uint32
	verdicts  []abi.Verdict
	given     int // verdicts that are not OK
	reasonLen int // bytes of their reasons
	places    []abi.Place
	placed    bool // places were told
	message   string
	violation string // what the guest did against rule
	rule      string
	races     uint64
	logged    int // lines
	loggedLen int // bytes
	muted     bool
	panicked  string
	breaches  []Limit // reached in this call
	// complaints counts the failures of capabilities, logged or not.
	complaints int
}

func (c *call) begin(events int) {
	*c = call{events: events, verdicts: c.verdicts[:0], places: c.places[:0], breaches: c.breaches[:0]}
}

// violate notes the first breach of a rule.
func (c *call) violate(rule, format string, a ...any) {
	if c.violation == "" {
		c.rule, c.violation = rule, fmt.Sprintf(format, a...)
	}
}

// hostFunc adapts a host function to wazero's stack interface, which costs
// 38 ns a call against 1 us by reflection. Work in a host function costs no
// fuel, so each one looks at the time. A panic in it is noted, so that it is
// told from a guest's own trap.
func (s *Sink) hostFunc(module string, sig abi.Signature, f func(ctx context.Context, mod api.Module, stack []uint64)) api.GoModuleFunc {
	h := s.watch(module, sig)
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		defer func() {
			if p := recover(); p != nil {
				s.trace.unwound(p)
				if err, ok := p.(error); !ok || !errors.Is(err, errBadPointer) && !errors.Is(err, errStopped) && !isExit(err) {
					s.call.panicked = fmt.Sprint(p)
				}
				panic(p)
			}
		}()
		if !s.trace.on {
			mayGoOn(ctx)
			f(ctx, mod, stack)
			return
		}
		c := s.trace.enter(h, stack)
		mayGoOn(ctx)
		if s.player == nil || !s.player.play(&s.trace, h, mod, stack) {
			f(ctx, mod, stack)
		}
		s.trace.leave(c, mod, stack)
	}
}

// mayGoOn ends the guest when its time is up.
func mayGoOn(ctx context.Context) {
	if ctx.Err() != nil {
		panic(errStopped)
	}
}

// view returns n bytes of the guest's memory. They are its own: to be read
// before the host function returns.
func view(mod api.Module, ptr, n uint64) []byte {
	b, ok := mod.Memory().Read(uint32(ptr), uint32(n))
	if !ok {
		panic(fmt.Errorf("%w: %d bytes at %#x, it has %d", errBadPointer, uint32(n), uint32(ptr), mod.Memory().Size()))
	}
	return b
}

// text reads a guest's text, cut to a limit and to valid UTF-8 without control
// characters, so that nothing forges lines of a log.
func text(mod api.Module, ptr, n, limit uint64) string {
	b := view(mod, ptr, n)
	b = b[:min(uint64(len(b)), limit)]
	s := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(string(b), "\uFFFD"))
	if uint64(len(s)) <= limit {
		return s
	}
	// A replacement has three bytes.
	return strings.ToValidUTF8(s[:limit], "")
}

func (s *Sink) exportAudit(ctx context.Context) error {
	b := s.runtime.NewHostModuleBuilder(abi.ImportModule)
	functions := map[string]func(context.Context, api.Module, []uint64){
		abi.ImportVerdict: s.verdict, abi.ImportLog: s.log, abi.ImportMetric: s.metric, abi.ImportPlaces: s.places,
		abi.ImportSHA256: hashSHA256, abi.ImportSQL: s.runSQL, abi.ImportNow: now, abi.ImportRandom: random,
		abi.ImportAppend: s.appendRecord, abi.ImportHTTP: s.httpRequest,
		abi.ImportKVGet: s.kvGet, abi.ImportKVSet: s.kvSet, abi.ImportKVDel: s.kvDelete,
	}
	granted := s.granted()
	for _, sig := range abi.Imports() {
		if sig.Capability == "" || granted[sig.Capability] {
			export(b, sig, s.hostFunc(abi.ImportModule, sig, s.probed(sig, functions[sig.Name])))
		}
	}
	_, err := b.Instantiate(ctx)
	return err
}

func export(b wazero.HostModuleBuilder, sig abi.Signature, f api.GoModuleFunc) {
	types := func(names []abi.ValueType) []api.ValueType {
		out := make([]api.ValueType, len(names))
		for i, n := range names {
			out[i] = api.ValueTypeI32
			if n == abi.I64 {
				out[i] = api.ValueTypeI64
			}
		}
		return out
	}
	b.NewFunctionBuilder().WithGoModuleFunction(f, types(sig.Params), types(sig.Results)).Export(sig.Name)
}

func (s *Sink) verdict(ctx context.Context, mod api.Module, stack []uint64) {
	index, code := uint32(stack[0]), abi.Outcome(uint32(stack[1]))
	c := &s.call
	switch {
	case index == abi.WholeBatch:
		c.message = text(mod, stack[2], stack[3], abi.MaxVerdictText)
		return
	case c.violation != "":
		return
	case uint64(index) >= uint64(c.events):
		c.violate("R6", "verdict for event %d of a batch of %d", index, c.events)
		return
	case code != abi.Retry && code != abi.Reject:
		c.violate("R6", "verdict %s for event %d; it must be RETRY or REJECT", code, index)
		return
	}
	if len(c.verdicts) == 0 {
		c.verdicts = slices.Grow(c.verdicts, c.events)[:c.events]
		clear(c.verdicts)
	}
	if c.verdicts[index].Code != abi.OK {
		c.violate("R6", "two verdicts for event %d", index)
		return
	}
	// A batch may have 65,536 events: a reason for each is the guest's right,
	// memory of the host without a bound is not.
	reason := text(mod, stack[2], stack[3], abi.MaxVerdictText)
	if c.reasonLen += len(reason); c.reasonLen > s.o.VerdictBytes {
		// One text for all of them: the host holds it once.
		reason = "the reasons of this batch are longer than verdict_bytes, this one was dropped"
		s.breach(ctx, LimitVerdict)
	}
	c.verdicts[index] = abi.Verdict{Code: code, Reason: reason}
	c.given++
}

func (s *Sink) log(ctx context.Context, mod api.Module, stack []uint64) {
	c := &s.call
	b := view(mod, stack[1], stack[2]) // a bad pointer traps, whether it is logged or not
	size := min(len(b), abi.MaxLogText)
	switch {
	case c.muted:
		return
	case c.logged >= s.o.LogLines:
		c.muted = true
		s.breach(ctx, LimitLogLines)
		return
	case c.loggedLen+size > s.o.LogBytes:
		c.muted = true
		s.breach(ctx, LimitLogBytes)
		return
	}
	c.logged, c.loggedLen = c.logged+1, c.loggedLen+size
	level := [...]slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}[min(uint32(stack[0]), abi.LogError)]
	s.o.Log.Log(ctx, level, "plugin", "sink", s.o.Name, "plugin", s.manifest.Name, "text", text(mod, stack[1], stack[2], abi.MaxLogText))
}

func (s *Sink) metric(_ context.Context, _ api.Module, stack []uint64) {
	if uint32(stack[0]) == abi.MetricRaces {
		// No batch loses more races than this; a guest can't spoil the sum.
		s.call.races = min(s.call.races+min(stack[1], 1000), 1000)
	}
}

func hashSHA256(ctx context.Context, mod api.Module, stack []uint64) {
	b, out := view(mod, stack[0], stack[1]), view(mod, stack[2], abi.HashSize)
	if len(b) <= portion {
		h := sha256.Sum256(b)
		copy(out, h[:])
		return
	}
	h := sha256.New()
	for len(b) > 0 {
		mayGoOn(ctx)
		n := min(len(b), portion)
		_, _ = h.Write(b[:n]) // never fails
		b = b[n:]
	}
	var sum [abi.HashSize]byte
	copy(out, h.Sum(sum[:0]))
}

func now(_ context.Context, _ api.Module, stack []uint64) { stack[0] = uint64(time.Now().UnixNano()) }

func random(ctx context.Context, mod api.Module, stack []uint64) {
	fillRandom(ctx, rand.Reader, view(mod, stack[0], stack[1]))
}

// fillRandom fills b from a source that never fails.
func fillRandom(ctx context.Context, src io.Reader, b []byte) {
	for len(b) > 0 {
		mayGoOn(ctx)
		n := min(len(b), portion)
		_, _ = io.ReadFull(src, b[:n])
		b = b[n:]
	}
}
