// Package host makes a sink of a WebAssembly module: it checks the module
// against ABI 1 (package abi), meters it, gives it an instance with bounded
// memory, serves the host functions and the granted capabilities, and turns
// whatever happens in it into an outcome.
//
// Guarantees:
//   - No guest stops, crashes or outlasts its host: a batch has its fuel, its
//     native stack, its memory and its time, and a running guest yields to Go.
//   - A guest reaches nothing but the functions of the ABI that it was granted
//     and a shim of WASI that denies: no files, no environment, no arguments,
//     no network.
//   - After an outcome that the host made the instance is thrown away and never
//     called again; the next batch meets a fresh one.
//
// Not guaranteed: that a batch with such an outcome was not stored. It is
// unknown, and the caller delivers it again.
//
// This is the only package that knows wazero and SQLite.
package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
)

// Sink is one plugin with its configuration. Its calls run one after the
// other; one that comes meanwhile waits for its turn or the end of its context.
type Sink struct {
	o Options
	// turn holds a token while a call runs. Freeing an instance under a
	// running guest would end the process, so nothing goes without it.
	turn     chan struct{}
	manifest manifest.Manifest
	digest   string
	pages    uint32
	runtime  wazero.Runtime // nil once closed
	compiled wazero.CompiledModule
	started  bool      // between Start and Stop
	sql      *database // nil if not granted
	grants   grants
	inst     *instance // nil until needed and after a host-made outcome
	counts   counts
	trace    trace   // what a crash bundle tells of the instance's life
	player   *player // nil but in a replay
	wasm     []byte  // the plugin's file, kept for crash bundles
	call     call    // what the host functions of the running call fill in
}

// Open loads a plugin: it checks the module, compiles it, makes an instance
// and hands over the configuration. It fails when the module does not fit,
// with what was wanted and what was found, and when the guest refuses its
// configuration, with a *[ConfigError]. Anything else that goes wrong in the
// guest (what it writes to is locked, it traps) is logged and leaves a sink
// without an instance: the first [Sink.Deliver] tries again, so that a lock
// held by another process does not keep a daemon from starting.
func Open(ctx context.Context, wasm []byte, o Options) (*Sink, error) {
	s, err := Prepare(ctx, wasm, o)
	if err != nil {
		return nil, err
	}
	if _, err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// load makes the runtime, the compiled module and the host modules.
func (s *Sink) load(ctx context.Context, m *module) error {
	var compiles bool
	var err error
	s.runtime, compiles, err = newRuntime(ctx, runtimeOptions{pages: s.pages, cache: s.o.Cache, interpreter: s.o.Interpreter})
	if err != nil {
		return err
	}
	if !compiles && !s.o.Interpreter {
		warnInterpreter(s.o.Log, s.o.Name)
	}
	if s.o.Cache != nil && s.o.Cache.unkept != nil {
		s.o.Log.Warn("compiled code is not kept, every start compiles again", "sink", s.o.Name, "error", s.o.Cache.unkept)
	}
	if s.compiled, err = compileModule(ctx, s.runtime, m.metered, s.pages); err != nil {
		if errors.Is(err, errAbandoned) {
			s.runtime = nil
		}
		return err
	}
	if err := check(m, s.compiled, s.granted()); err != nil {
		return err
	}
	if err := s.exportAudit(ctx); err != nil {
		return fmt.Errorf("make host functions: %w", err)
	}
	if err := s.exportWASI(ctx); err != nil {
		return fmt.Errorf("make the WASI shim: %w", err)
	}
	return nil
}

// Manifest returns what the plugin says about itself.
func (s *Sink) Manifest() manifest.Manifest { return s.manifest }

// Digest returns the SHA-256 of the plugin's file in hex.
func (s *Sink) Digest() string { return s.digest }

// Deliver hands a batch to the guest and returns what became of it. It never
// panics and returns at the latest shortly after the deadline or after ctx.
//
// Without an instance it makes one first. If that fails the batch was not
// delivered, which is known, so the outcome is BUSY with the reason in Detail
// and never one of the host's: no event is to blame.
func (s *Sink) Deliver(ctx context.Context, b *abi.Batch) abi.Result {
	if len(b.Events) == 0 {
		return abi.Result{Outcome: abi.OK}
	}
	r, ok := s.begin(ctx)
	if !ok {
		return r
	}
	defer s.end()
	return s.withGrants(ctx, b, func(b *abi.Batch) abi.Result { return s.deliver(ctx, b) })
}

// deliver hands a batch over; the turn is this call's.
func (s *Sink) deliver(ctx context.Context, b *abi.Batch) abi.Result {
	n := b.Size()
	if n > abi.MaxFrame {
		return abi.Result{Outcome: abi.Reject, Detail: fmt.Sprintf("the batch has %d bytes, a frame at most %d; lower batch_bytes of this sink", n, abi.MaxFrame)}
	}
	if s.inst == nil {
		if r, ok := s.reopen(ctx); !ok {
			return r
		}
	}
	s.call.begin(len(b.Events))
	s.trace.begin(abi.ExportDeliver)
	s.trace.batch = b
	i := s.inst
	r := s.invoke(ctx, func(ctx context.Context) (uint64, error) {
		if err := i.put(ctx, n, func(dst []byte) { b.Encode(dst) }); err != nil {
			return 0, err
		}
		return i.call(ctx, i.deliver, uint64(n))
	})
	r = s.judge(r, len(b.Events), func(i int) string { return b.Events[i].ID })
	s.ended(r.Outcome)
	s.trace.keep(s.inst != nil, func() []byte { return frameOf(b) })
	return r
}

// begin waits for the turn of a call. The result is of one that must not run;
// the guest has not seen it then.
func (s *Sink) begin(ctx context.Context) (abi.Result, bool) {
	if ctx.Err() == nil {
		select {
		case s.turn <- struct{}{}:
			if s.started {
				return abi.Result{}, true
			}
			s.end()
			return abi.Result{Outcome: abi.HostPanic, Detail: "the sink was called after Close or Stop"}, false
		case <-ctx.Done():
		}
	}
	return abi.Result{Outcome: abi.Deadline, Detail: stopped(ctx)}, false
}

func (s *Sink) end() { <-s.turn }

// reopen makes an instance for a batch that waits.
func (s *Sink) reopen(ctx context.Context) (abi.Result, bool) {
	r, err := s.fresh(ctx)
	switch {
	case err != nil:
		// It fitted when it was opened, so this is a lack of something.
		return abi.Result{Outcome: abi.Busy, Detail: "no instance: " + firstLines(err.Error(), 4)}, false
	case r.Outcome == abi.OK:
		return r, true
	case r.Outcome.HostMade():
		s.o.Log.Warn("plugin could not be opened, its batch waits", "sink", s.o.Name, "plugin", s.manifest.Name,
			"outcome", r.Outcome.String(), "detail", r.Detail, "stderr", r.Stderr)
		r.Outcome, r.Detail = abi.Busy, fmt.Sprintf("no instance: %s in %s: %s", r.Outcome, abi.ExportOpen, r.Detail)
	}
	return r, false
}

// Flush asks the guest to make durable what it holds back.
func (s *Sink) Flush(ctx context.Context) abi.Result {
	if r, ok := s.begin(ctx); !ok {
		return r
	}
	defer s.end()
	return s.optional(ctx, abi.ExportFlush)
}

// optional calls an export without parameters, if there is one.
func (s *Sink) optional(ctx context.Context, name string) abi.Result {
	i := s.inst
	if i == nil {
		return abi.Result{Outcome: abi.OK}
	}
	f := i.mod.ExportedFunction(name)
	if f == nil {
		return abi.Result{Outcome: abi.OK}
	}
	s.call.begin(0)
	s.trace.begin(name)
	r := s.invoke(ctx, func(ctx context.Context) (uint64, error) { return i.call(ctx, f) })
	switch {
	case r.Outcome.HostMade():
	case s.call.violation != "":
		r = s.broken(s.call.rule, s.call.violation)
	case r.Outcome == abi.Partial || r.Outcome >= abi.BadConfig:
		r = s.broken("R7", fmt.Sprintf("%s answered %s; it may answer OK, RETRY, REJECT or BUSY", name, r.Outcome))
	}
	s.ended(r.Outcome)
	s.trace.keep(s.inst != nil, func() []byte { return nil })
	return s.settle(ctx, r, nil)
}

// Close lets the guest make durable what it holds back and put itself in
// order, commits and checkpoints what the capabilities hold, and frees
// everything. The sink can't be used again. Closing twice does nothing. While
// a delivery runs it waits; when ctx ends before that, nothing is freed and the
// error says so.
func (s *Sink) Close(ctx context.Context) error {
	if err := s.wait(ctx); err != nil {
		return fmt.Errorf("sink %s: close plugin: %w", s.o.Name, err)
	}
	defer s.end()
	errs := []error{s.stop(ctx)}
	if s.grants.http != nil {
		s.grants.http.Close() // and stays, for Egress
	}
	// With a shared cache the code outlives the runtime unless it is given up.
	if s.compiled != nil {
		errs = append(errs, s.compiled.Close(context.WithoutCancel(ctx)))
		s.compiled = nil
	}
	if s.runtime != nil {
		errs = append(errs, s.runtime.Close(context.WithoutCancel(ctx)))
		s.runtime = nil
	}
	return errors.Join(errs...)
}

// judge checks the arithmetic of an answer to audit_deliver. id tells the id of an
// event of the batch, and is nil where nobody knows.
func (s *Sink) judge(r abi.Result, events int, id func(i int) string) abi.Result {
	if r.Outcome.HostMade() {
		return r
	}
	c := &s.call
	switch {
	case c.violation != "":
		return s.broken(c.rule, c.violation)
	case r.Outcome >= abi.BadConfig:
		return s.broken("R7", fmt.Sprintf("%s answered %s; it may answer OK, PARTIAL, RETRY, REJECT or BUSY", abi.ExportDeliver, r.Outcome))
	case r.Outcome == abi.Partial:
		if uint64(c.arg)+uint64(c.given) != uint64(events) {
			return s.broken("R6", fmt.Sprintf("PARTIAL(%d) with %d verdicts for %d events", c.arg, c.given, events))
		}
		// Without any verdict all are stored: their codes are OK.
		r.Verdicts = make([]abi.Verdict, events)
		copy(r.Verdicts, c.verdicts)
	case c.given != 0:
		return s.broken("R6", fmt.Sprintf("%s with %d verdicts; verdicts go with PARTIAL", r.Outcome, c.given))
	case r.Outcome == abi.OK && uint64(c.arg) != uint64(events):
		return s.broken("R5", fmt.Sprintf("OK(%d) for %d events", c.arg, events))
	}
	if !c.placed {
		return r
	}
	if r.Outcome != abi.OK && r.Outcome != abi.Partial {
		return s.broken("R28", fmt.Sprintf("%s with places; places go with OK and PARTIAL", r.Outcome))
	}
	if why := misplaced(c.places, &r, id); why != "" {
		return s.broken("R28", why)
	}
	r.Places = c.places
	return r
}

// broken is the outcome of a guest that broke a rule of the ABI.
func (s *Sink) broken(rule, detail string) abi.Result {
	r := abi.Result{Outcome: abi.BadABI, Rule: rule, Detail: detail, Stderr: s.inst.stderr.String(), Races: s.call.races}
	note := s.leave(&r, nil, true)
	r.Detail += note
	s.discard()
	return r
}
