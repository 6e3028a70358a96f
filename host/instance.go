package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/meter"
)

// instance is one life of a guest.
type instance struct {
	mod              api.Module
	memory           linearMemory
	reserve, deliver api.Function
	gauge            *meter.Gauge // nil until the module is instantiated
	inbox            uint32       // address, 0 until reserved
	inboxSize        int
	stderr           ring
	wasi             wasiState
	stack            [4]uint64 // parameters and result of a call
}

// errRefused is the guest's answer 0 to audit_reserve.
var errRefused = errors.New("audit_reserve returned 0: the guest has no memory for the batch; raise memory_limit or lower batch_bytes of this sink")

// errBadInbox is an answer of audit_reserve that can't be used.
var errBadInbox = errors.New("the inbox does not lie in the guest's memory")

// errUnfit is a module that can't be instantiated, whatever is delivered.
var errUnfit = errors.New("instantiate the module")

// put has the guest's inbox filled with n bytes. The address is asked for only
// when the inbox is too small: an allocation per batch costs a Go guest 2 us.
func (i *instance) put(ctx context.Context, n int, fill func([]byte)) error {
	if n > i.inboxSize {
		i.inboxSize = 0
		ptr, err := i.call(ctx, i.reserve, uint64(n))
		if err != nil {
			return err
		}
		if i.inbox = uint32(ptr); i.inbox == 0 {
			return errRefused
		}
		i.inboxSize = n
	}
	// The view is taken afresh each time: the memory may have moved.
	dst, ok := i.mod.Memory().Read(i.inbox, uint32(n))
	if !ok {
		return fmt.Errorf("%w: audit_reserve(%d) returned %#x, the memory has %d bytes", errBadInbox, n, i.inbox, i.mod.Memory().Size())
	}
	fill(dst)
	return nil
}

// call runs an export with at most one parameter and at most one result.
func (i *instance) call(ctx context.Context, f api.Function, args ...uint64) (uint64, error) {
	i.stack[0] = 0
	copy(i.stack[:], args)
	if err := f.CallWithStack(ctx, i.stack[:1]); err != nil {
		return 0, err
	}
	return i.stack[0], nil
}

// fresh makes an instance and opens it. Unless the result is OK there is none
// afterwards. The error is [errUnfit], of a module that will never run.
func (s *Sink) fresh(ctx context.Context) (abi.Result, error) {
	i := &instance{}
	i.memory.growth = uint64(s.o.growth)
	s.inst = i
	s.call.begin(0)
	s.trace.birth()
	s.trace.begin(abi.ExportOpen)
	var unfit error
	r := s.invoke(ctx, func(ctx context.Context) (uint64, error) {
		a, err := s.start(ctx, i)
		if errors.Is(err, errUnfit) {
			unfit = err
		}
		return a, err
	})
	switch {
	case unfit != nil:
		return r, unfit
	case r.Outcome.HostMade():
	case s.call.violation != "":
		r = s.broken(s.call.rule, s.call.violation)
	case r.Outcome == abi.OK:
	case r.Outcome == abi.Retry || r.Outcome == abi.Busy || r.Outcome == abi.BadConfig:
		s.discard()
	default:
		r = s.broken("R7", fmt.Sprintf("%s answered %s; it may answer OK, RETRY, BUSY or BAD_CONFIG", abi.ExportOpen, r.Outcome))
	}
	s.ended(r.Outcome)
	s.trace.keep(s.inst != nil, func() []byte { return s.o.Config })
	return s.settle(ctx, r, nil), nil
}

func (s *Sink) start(ctx context.Context, i *instance) (uint64, error) {
	// No start functions: _initialize is called below, when the meter is set
	// and the watchdog runs. No code of the guest runs in here.
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	mod, err := s.runtime.InstantiateModule(i.memory.with(ctx), s.compiled, cfg)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUnfit, err)
	}
	i.mod = mod
	i.reserve, i.deliver = mod.ExportedFunction(abi.ExportReserve), mod.ExportedFunction(abi.ExportDeliver)
	i.gauge, err = meter.Bind(func(name string) meter.Global {
		g, ok := mod.ExportedGlobal(name).(api.MutableGlobal)
		if !ok {
			return nil
		}
		return g
	})
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUnfit, err)
	}
	return s.guarded(ctx, i, func(ctx context.Context) (uint64, error) {
		if f := mod.ExportedFunction(abi.ExportInitialize); f != nil {
			if _, err := i.call(ctx, f); err != nil {
				return 0, err
			}
		}
		if err := i.put(ctx, len(s.o.Config), func(dst []byte) { copy(dst, s.o.Config) }); err != nil {
			return 0, err
		}
		return i.call(ctx, mod.ExportedFunction(abi.ExportOpen), uint64(len(s.o.Config)))
	})
}

// guarded sets the meter, runs f, and has the guest stopped at the end of ctx.
func (s *Sink) guarded(ctx context.Context, i *instance, f func(context.Context) (uint64, error)) (uint64, error) {
	i.gauge.Reset(s.player.fuel(s.o.Fuel), s.o.Stack)
	// Neither the next Reset nor the end of the instance may race with a late
	// Stop, so a watchdog that has begun is waited for.
	var watch sync.WaitGroup
	watch.Add(1)
	stop := context.AfterFunc(ctx, func() { defer watch.Done(); i.gauge.Stop() })
	defer func() {
		if stop() {
			watch.Done()
		}
		watch.Wait()
	}()
	return f(ctx)
}

// errLate is an answer that came after the deadline. It does not count: what
// the sink owes the queue by then is a decision, and a guest that is late by a
// little must not fare better than one that the meter stopped a little earlier.
var errLate = errors.New("the guest answered after the deadline")

// errDeadline is the cause of a context that ended by Options.Deadline.
var errDeadline = errors.New("deadline of the sink")

// invoke runs one call into the guest under its limits and makes the outcome.
// After a host-made one the instance is gone.
func (s *Sink) invoke(ctx context.Context, f func(context.Context) (uint64, error)) (r abi.Result) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.player.deadline(s.o.Deadline), errDeadline)
	defer cancel()
	defer func() {
		// wazero recovers what happens in a host function or in the guest.
		// What comes here is a panic in wazero or in this package: the guest
		// pays and not the process.
		if p := recover(); p != nil {
			r = s.fault(ctx, hostPanic(p))
		}
	}()
	i := s.inst
	var answer uint64
	var err error
	if i.gauge == nil {
		answer, err = f(ctx) // start, which guards itself once there is a meter
	} else {
		answer, err = s.guarded(ctx, i, f)
	}
	if err == nil && (context.Cause(ctx) == errDeadline || s.player.repeats(endLate)) {
		err = errLate
		s.trace.ending = ending{Kind: endLate, Text: err.Error()}
	}
	if err != nil {
		return s.fault(ctx, err)
	}
	o, why, arg := abi.SplitAnswer(answer)
	s.call.arg = arg
	r = abi.Result{Outcome: o, Reason: why.Known(), Detail: s.call.message, Races: s.call.races}
	switch {
	case o.HostMade():
		// A guest can't produce these: what it means is that it lies.
		return s.broken("R7", fmt.Sprintf("the guest answered %s, an outcome of the host", o))
	case why != abi.ReasonOther && (o == abi.OK || o == abi.Partial):
		return s.broken("R27", fmt.Sprintf("%s with the reason %d; a reason goes with RETRY, REJECT, BUSY and BAD_CONFIG", o, uint16(why)))
	case o == abi.Retry || o == abi.Busy:
		r.RetryAfter = time.Duration(arg) * time.Millisecond
	}
	return r
}

// panicError is a panic of the host's own code.
type panicError struct{ text string }

func (e *panicError) Error() string { return e.text }

func hostPanic(p any) error {
	if err, ok := p.(error); ok && errors.Is(err, errNoAddressSpace) {
		return err
	}
	return &panicError{text: fmt.Sprint(p)}
}

// fault makes the outcome of a call that did not return, and throws the
// instance away.
func (s *Sink) fault(ctx context.Context, err error) abi.Result {
	i := s.inst
	if i == nil {
		i = &instance{}
	}
	r := abi.Result{Outcome: abi.Trap, Detail: firstLines(err.Error(), 12), Stderr: i.stderr.String(), Races: s.call.races}
	cause := meter.CauseNone
	if i.gauge != nil {
		cause = i.gauge.Cause()
	}
	if cause == meter.CauseFuel && s.player.repeats(endMeter) {
		cause = meter.CauseStop
	}
	var exit *sys.ExitError
	var own *panicError
	ours := false // the host ends, and the guest is not to blame
	switch {
	case s.call.panicked != "" || errors.As(err, &own):
		r.Outcome = abi.HostPanic
	case errors.Is(err, errNoAddressSpace):
		r.Outcome = abi.Memory
	case errors.Is(err, errBadInbox):
		r.Outcome, r.Rule = abi.BadABI, "R7"
	case cause == meter.CauseFuel:
		s.breach(ctx, LimitFuel)
		r.Outcome, r.Detail = abi.Fuel, fmt.Sprintf("the call used up its %d units of fuel; raise fuel in [sink.limits] or lower batch_events of this sink", s.o.Fuel)
	case cause == meter.CauseStop, errors.Is(err, errStopped), errors.Is(err, errLate), ctx.Err() != nil:
		r.Outcome = abi.Deadline
		if cause == meter.CauseStop && s.trace.ending.Kind == "" {
			s.trace.ending = ending{Kind: endMeter, Text: "the meter stopped the guest at the deadline"}
		}
		r.Detail = fmt.Sprintf("the call was not finished within %s; raise deadline or lower batch_events of this sink", s.o.Deadline)
		if why := context.Cause(ctx); why != nil && !errors.Is(why, errDeadline) {
			r.Detail, ours = stopped(ctx), true
			break
		}
		s.breach(ctx, LimitDeadline)
		if errors.Is(err, errLate) {
			r.Detail = "the guest answered too late: " + r.Detail
		}
	case cause == meter.CauseStack:
		s.breach(ctx, LimitStack)
		r.Detail = fmt.Sprintf("the call used up its %d bytes of native stack; raise stack in [sink.limits] if the recursion is meant", s.o.Stack)
	case errors.Is(err, errRefused):
		s.breach(ctx, LimitMemory)
		r.Outcome = abi.Memory
	case saysOutOfMemory(r.Stderr):
		s.breach(ctx, LimitMemory)
		r.Outcome = abi.Memory
		r.Detail = fmt.Sprintf("the guest ran out of its %d bytes of memory; raise memory_limit or lower batch_bytes of this sink", int64(s.pages)*wasmPage)
	case errors.As(err, &exit) && exit.ExitCode() == 2 && goPanic(r.Stderr) != "":
		// So ends a Go guest whose panic is not inside a call of the host's.
		r.Detail = firstLines(goPanic(r.Stderr), 2)
	case errors.As(err, &exit):
		r.Outcome, r.Detail = abi.Exit, fmt.Sprintf("the guest called proc_exit(%d)", exit.ExitCode())
	case goPanic(r.Stderr) != "":
		r.Detail = firstLines(goPanic(r.Stderr), 2)
	case i.mod != nil && uint64(i.mod.Memory().Size()) >= uint64(s.pages)*wasmPage/2:
		// Guests of other languages trap when memory.grow fails.
		s.breach(ctx, LimitMemory)
		r.Detail += fmt.Sprintf("\nits memory has %d of at most %d bytes, see memory_limit of this sink", i.mod.Memory().Size(), int64(s.pages)*wasmPage)
	}
	note := s.leave(&r, err, !ours)
	r.Detail += note
	s.discard()
	return r
}

// goPanic returns what Go's runtime wrote to standard error before it ended in
// a trap, from the mark at the beginning of a line.
func goPanic(stderr string) string {
	for _, mark := range [...]string{"panic: ", "fatal error: "} {
		if at := strings.Index("\n"+stderr, "\n"+mark); at >= 0 {
			return stderr[at:]
		}
	}
	return ""
}

func saysOutOfMemory(stderr string) bool {
	return strings.Contains(stderr, "fatal error: out of memory") || strings.Contains(stderr, "fatal error: runtime: out of memory")
}

// discard throws the instance away. Whoever calls it has returned from the
// guest: closing a module frees memory that a running guest would go on using.
func (s *Sink) discard() {
	i := s.inst
	if i == nil {
		return
	}
	s.inst = nil
	if i.mod != nil {
		// Nothing of ours makes it fail, and there is nothing left to do.
		_ = i.mod.Close(context.Background())
	}
	i.memory.Free() // not freed by wazero when the instantiation failed
}

// firstLines cuts a text, whose length a guest decides, to what a person
// reads.
func firstLines(s string, n int) string {
	s = strings.TrimSpace(s[:min(len(s), 16<<10)])
	lines := strings.SplitN(s, "\n", n+1)
	if len(lines) > n {
		lines = lines[:n]
	}
	s = strings.Join(lines, "\n")
	if len(s) > abi.MaxVerdictText {
		s = s[:abi.MaxVerdictText] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
