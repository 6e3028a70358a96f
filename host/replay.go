package host

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
)

// ReplayOptions configures a replay.
type ReplayOptions struct {
	// Config stands for the bundle's configuration, of which secrets were left
	// out; nil takes the bundle's.
	Config json.RawMessage
	Cache  *Cache
	Log    *slog.Logger // gets the guest's log lines
}

// Replayed is how a replay ended.
type Replayed struct {
	Outcome abi.Outcome
	Detail  string
	Trace   string
	Stderr  string
	// FuelLeft is what the call had left, in units.
	FuelLeft int64
	// Export is the call into the guest that ended it, Call its number from 1.
	Export string
	Call   int
	// Same tells that it is the crash of the bundle: the same outcome in the
	// same call, with the same first line of its detail.
	Same bool
	// Diverged says what the guest asked for otherwise than it did then; empty
	// if it asked for the same.
	Diverged string
}

// fits checks that a module is the bundle's.
func (b *Bundle) fits(wasm []byte) error {
	sum := sha256.Sum256(wasm)
	if got := hex.EncodeToString(sum[:]); got != b.Plugin.Digest {
		return fmt.Errorf("the bundle is about a plugin with sha256 %s, this one has %s", b.Plugin.Digest, got)
	}
	return nil
}

// Replay runs a crash again. The guest gets the same calls under the same
// limits, but no capability: clock, randomness and the answers of host
// functions come from the bundle, and nothing outside the process is touched.
// Time is not repeated: what the guest waited for it gets at once, and one that
// computed until its deadline is stopped in the same place by its fuel.
func Replay(ctx context.Context, b *Bundle, wasm []byte, o ReplayOptions) (Replayed, error) {
	if err := b.fits(wasm); err != nil {
		return Replayed{}, fmt.Errorf("replay: %w", err)
	}
	l := b.Limits
	s := &Sink{turn: make(chan struct{}, 1), player: &player{bundle: b}, digest: b.Plugin.Digest}
	s.o = Options{
		Name: b.Sink, Config: b.Config, Memory: l.Memory, Deadline: l.Deadline, Fuel: l.Fuel, Stack: l.Stack,
		LogLines: l.LogLines, LogBytes: l.LogBytes, VerdictBytes: l.VerdictBytes, Cache: o.Cache, Log: o.Log,
	}
	if o.Config != nil {
		s.o.Config = o.Config
	}
	s.o.setDefaults()
	// What is granted is what the guest may import; nothing stands behind it.
	for _, name := range b.Grants {
		switch name {
		case abi.CapabilitySQL:
			s.o.SQL = &SQLGrant{}
		case abi.CapabilityAppend:
			s.o.Append = &appendfile.Options{}
		case abi.CapabilityHTTP:
			s.o.HTTP = &egress.Policy{}
		case abi.CapabilityKV:
			s.o.KV = &KVGrant{}
		case abi.CapabilityNow:
			s.o.Now = true
		case abi.CapabilityRandom:
			s.o.Random = true
		}
	}
	m, err := readModule(wasm, meterLimits(s.o))
	if err != nil {
		return Replayed{}, fmt.Errorf("replay: load plugin: %w", err)
	}
	s.manifest, s.pages = m.manifest, pagesOf(s.o.Memory)
	s.trace.on = true
	err = s.load(ctx, &m)
	if err == nil {
		out := s.replay(ctx, b)
		s.discard()
		return out, errors.Join(ctx.Err(), s.Close(ctx))
	}
	return Replayed{}, errors.Join(fmt.Errorf("replay: load plugin: %w", err), s.Close(ctx))
}

// replay repeats the calls until one ends otherwise than by an answer.
func (s *Sink) replay(ctx context.Context, b *Bundle) Replayed {
	out := Replayed{}
	for i, e := range b.Life {
		out.Call, out.Export = i+1, e.Export
		s.player.begin(i)
		var r abi.Result
		switch e.Export {
		case abi.ExportOpen:
			var err error
			if r, err = s.fresh(ctx); err != nil {
				r.Detail = err.Error()
			}
		case abi.ExportDeliver:
			r = s.redeliver(ctx, e.Input)
		default:
			r = s.optional(ctx, e.Export)
		}
		out.Outcome, out.Detail, out.Trace, out.Stderr, out.FuelLeft = r.Outcome, r.Detail, s.player.trace, r.Stderr, s.player.left
		if r.Outcome.HostMade() || s.inst == nil {
			break
		}
	}
	out.Diverged = s.player.diverged
	out.Same = out.Call == len(b.Life) && out.Outcome.String() == b.Outcome && firstLines(out.Detail, 1) == firstLines(b.Detail, 1)
	return out
}

// redeliver hands over a frame as it stands.
func (s *Sink) redeliver(ctx context.Context, frame []byte) abi.Result {
	v, err := abi.Parse(frame)
	if err != nil {
		return abi.Result{Outcome: abi.Reject, Detail: err.Error()}
	}
	s.call.begin(v.Len())
	s.trace.begin(abi.ExportDeliver)
	i := s.inst
	return s.judge(s.invoke(ctx, func(ctx context.Context) (uint64, error) {
		if err := i.put(ctx, len(frame), func(dst []byte) { copy(dst, frame) }); err != nil {
			return 0, err
		}
		return i.call(ctx, i.deliver, uint64(len(frame)))
	}), v.Len(), func(i int) string { return string(v.At(i).ID()) })
}

// player answers for the host functions whose answers come from outside.
type player struct {
	bundle   *Bundle
	answers  map[string][]BundleAnswer // of the current call into the guest, by function
	last     bool                      // this is the call that crashed
	clock    uint64                    // the last time that was told, Unix nanoseconds
	trace    string
	left     int64 // fuel
	diverged string
}

// begin prepares the answers of a call into the guest.
func (p *player) begin(i int) {
	p.answers, p.last = map[string][]BundleAnswer{}, i == len(p.bundle.Life)-1
	for _, a := range p.bundle.Life[i].Answers {
		p.answers[a.Function] = append(p.answers[a.Function], a)
	}
}

// repeats tells that this call is to be ended as the crash was. Without a
// replay nothing is.
func (p *player) repeats(kind string) bool {
	return p != nil && p.last && p.bundle.Ending != nil && p.bundle.Ending.Kind == kind
}

// fuel is what a call gets. A guest that was stopped while it computed has
// just enough to come to the same place, and not further: that takes no time
// of waiting for a deadline, and ends where it ended.
func (p *player) fuel(given int64) int64 {
	if p.repeats(endMeter) {
		return min(given, max(0, p.bundle.Limits.Fuel-p.bundle.FuelLeft-1))
	}
	return given
}

// deadline is the time of a call. A replay may run on a slower machine: it ends
// a call where it ended, and not when.
func (p *player) deadline(given time.Duration) time.Duration {
	if p != nil {
		return 10*min(given, 24*time.Hour) + time.Minute
	}
	return given
}

// crashed notes what a host-made outcome leaves.
func (p *player) crashed(i *instance, err error) {
	if err != nil {
		p.trace = err.Error()
	}
	if i == nil || i.gauge == nil {
		return
	}
	if p.left = i.gauge.Left(); p.repeats(endMeter) {
		p.left += p.bundle.FuelLeft + 1
	}
}

// errReplayed is a panic of the host that is repeated.
type errReplayed string

func (e errReplayed) Error() string { return string(e) }

// play answers a host call, or leaves it to the host function. Where the host
// ended the guest in this very call it does so again.
func (p *player) play(t *trace, h *hostFn, mod api.Module, stack []uint64) bool {
	if e := p.bundle.Ending; p.last && e != nil && t.calls == p.bundle.HostCallCount {
		switch {
		case e.Kind == endStopped:
			panic(errStopped)
		case e.Kind == endPointer && h.outside:
			// The text begins with that of the error it wraps.
			panic(fmt.Errorf("%w%s", errBadPointer, strings.TrimPrefix(e.Text, errBadPointer.Error())))
		case e.Kind == endPanic:
			panic(errReplayed(e.Text))
		}
	}
	if !h.outside {
		return false
	}
	a := BundleAnswer{}
	if list := p.answers[h.name]; len(list) > 0 {
		a, p.answers[h.name] = list[0], list[1:]
	} else {
		a = p.invent(h, stack)
	}
	if h.filled != nil {
		args := [6]uint64{}
		copy(args[:], stack)
		ptr, _ := h.filled(&args, a.Result)
		if len(a.Data) > 0 && !mod.Memory().Write(ptr, a.Data) {
			p.note("%s was asked to fill other memory", h.name)
			panic(fmt.Errorf("%w: %d bytes at %#x", errBadPointer, len(a.Data), ptr))
		}
	}
	if len(h.Results) > 0 {
		stack[0] = a.Result
	}
	if len(h.Results) > 0 && strings.HasSuffix(h.name, "."+abi.ImportNow) {
		p.clock = a.Result
	} else if len(a.Data) == 8 && strings.HasSuffix(h.name, ".clock_time_get") {
		p.clock = binary.LittleEndian.Uint64(a.Data)
	}
	return true
}

// invent makes an answer that the bundle does not have: a clock that goes on,
// and zeros for randomness. What a database or a peer would have said can't be
// made up.
func (p *player) invent(h *hostFn, stack []uint64) BundleAnswer {
	p.note("%s was called more often", h.name)
	switch h.name {
	case abi.ImportModule + "." + abi.ImportNow:
		return BundleAnswer{Result: p.clock + 1000}
	case wasiModule + ".clock_time_get":
		return BundleAnswer{Data: binary.LittleEndian.AppendUint64(nil, p.clock+1000)}
	case abi.ImportModule + "." + abi.ImportRandom, wasiModule + ".random_get":
		return BundleAnswer{Data: make([]byte, min(uint32(stack[1]), maxAnswers))}
	}
	panic(errReplayed("the bundle has no further answer for " + h.name))
}

func (p *player) note(format string, args ...any) {
	if p.diverged == "" {
		p.diverged = fmt.Sprintf(format, args...) + " than in the crash"
	}
}
