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
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
)

// Defaults of [Options].
const (
	DefaultMemory   = 64 << 20
	DefaultDeadline = 30 * time.Second
	// DefaultFuel is in units of the meter: at least one an instruction is
	// charged, but a tight loop in a Go guest was charged 50 units a nanosecond,
	// since the meter charges the longest way through its jump table. So much
	// fuel lasts such a loop 20 s; for the rest the deadline comes first.
	DefaultFuel  = 1 << 40
	DefaultStack = 8 << 20
)

const wasmPage = 64 << 10

// Options configures a sink. The zero value grants nothing.
type Options struct {
	// Name is the sink's name in logs and errors.
	Name string
	// Config is handed to the guest's audit_open as JSON; nil is {}.
	Config json.RawMessage
	// Memory is the most linear memory of the guest in bytes, rounded up to
	// 64 KiB.
	Memory int64
	// Deadline bounds one call into the guest, host functions included.
	Deadline time.Duration
	// Fuel bounds the instructions of one call, Stack the native stack it
	// may use in bytes. Compiling is not bounded by time: the meter's limits
	// on a module bound it, and the operator chose the file.
	Fuel, Stack int64
	// SQL grants the sql capability on one database.
	SQL *SQLGrant
	// Now and Random grant the real clock and real randomness; without them
	// a guest sees a clock that only its own waiting moves, and the same
	// pseudo-random bytes in every instance.
	Now, Random bool
	// Cache keeps compiled code; nil compiles anew.
	Cache *Cache
	// Log gets the guest's log lines and the host's own; nil drops them.
	Log *slog.Logger
	// Interpreter runs the guest without compiling it: slow, for tests and
	// for machines that forbid executable memory.
	Interpreter bool
}

func (o *Options) setDefaults() {
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	if o.Deadline <= 0 {
		o.Deadline = DefaultDeadline
	}
	if o.Fuel <= 0 {
		o.Fuel = DefaultFuel
	}
	if o.Stack <= 0 {
		o.Stack = DefaultStack
	}
	if len(o.Config) == 0 {
		o.Config = json.RawMessage("{}")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// ConfigError is returned by [Open] when the guest refuses its configuration.
type ConfigError struct{ Sink, Detail string }

// Error names the sink and what it said.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("sink %s: the plugin refuses its configuration: %s; change config of this sink", e.Sink, e.Detail)
}

// Sink is one plugin with its configuration. Deliver, Flush and Close are for
// one goroutine at a time.
type Sink struct {
	o        Options
	manifest manifest.Manifest
	digest   string
	pages    uint32
	runtime  wazero.Runtime // nil once closed
	compiled wazero.CompiledModule
	sql      *database // nil if not granted
	inst     *instance // nil until needed and after a host-made outcome
	call     call      // what the host functions of the running call fill in
}

// Open loads a plugin: it checks the module, compiles it, makes an instance
// and hands over the configuration. It fails when the module does not fit,
// with what was wanted and what was found, and when the guest refuses its
// configuration, with a *[ConfigError]. Anything else that goes wrong in the
// guest (what it writes to is locked, it traps) is logged and leaves a sink
// without an instance: the first [Sink.Deliver] tries again, so that a lock
// held by another process does not keep a daemon from starting.
func Open(ctx context.Context, wasm []byte, o Options) (*Sink, error) {
	o.setDefaults()
	m, err := readModule(wasm)
	if err != nil {
		return nil, fmt.Errorf("sink %s: load plugin (sha256 %s): %w", o.Name, m.digest, err)
	}
	s := &Sink{o: o, manifest: m.manifest, digest: m.digest, pages: pagesOf(o.Memory)}
	if err := s.load(ctx, &m); err != nil {
		return nil, errors.Join(fmt.Errorf("sink %s: load plugin %s %s: %w", o.Name, m.manifest.Name, m.manifest.Version, err), s.Close(ctx))
	}
	o.Log.Debug("plugin loaded", "sink", o.Name, "plugin", m.manifest.Name, "version", m.manifest.Version, "sha256", s.digest,
		"functions", m.info.Functions, "charges", m.info.Charges)
	if o.SQL != nil {
		s.sql = newDatabase(*o.SQL, o.Cache)
	}
	var config *ConfigError
	switch r, err := s.fresh(ctx); {
	case err != nil:
		return nil, errors.Join(fmt.Errorf("sink %s: load plugin %s %s: %w", o.Name, m.manifest.Name, m.manifest.Version, err), s.Close(ctx))
	case r.Outcome == abi.OK:
	case r.Outcome == abi.BadConfig:
		config = &ConfigError{Sink: o.Name, Detail: r.Detail}
		return nil, errors.Join(config, s.Close(ctx))
	default:
		o.Log.Warn("plugin is not ready, it is opened again with the first batch", "sink", o.Name, "plugin", m.manifest.Name,
			"outcome", r.Outcome.String(), "detail", r.Detail, "stderr", r.Stderr)
	}
	return s, nil
}

// maxPages is a page less than 4 GiB, whose size has 33 bits.
const maxPages = 1<<16 - 1

// pagesOf is a limit in bytes as one in pages of 64 KiB.
func pagesOf(bytes int64) uint32 {
	if bytes <= 0 {
		bytes = DefaultMemory
	}
	return uint32(min((bytes-1)/wasmPage+1, maxPages))
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

// granted names every capability this host knows and whether it is granted.
func (s *Sink) granted() map[string]bool {
	return map[string]bool{
		abi.ImportSQL:    s.o.SQL != nil,
		abi.ImportNow:    s.o.Now,
		abi.ImportRandom: s.o.Random,
	}
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
	if r, ok := s.stopped(ctx); !ok {
		return r
	}
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
	i := s.inst
	r := s.invoke(ctx, func(ctx context.Context) (uint64, error) {
		if err := i.put(ctx, n, func(dst []byte) { b.Encode(dst) }); err != nil {
			return 0, err
		}
		return i.call(ctx, i.deliver, uint64(n))
	})
	return s.judge(r, len(b.Events))
}

// stopped answers for a sink that is not to run any more.
func (s *Sink) stopped(ctx context.Context) (abi.Result, bool) {
	if s.runtime == nil {
		return abi.Result{Outcome: abi.HostPanic, Detail: "the sink was called after Close"}, false
	}
	if ctx.Err() != nil {
		return abi.Result{Outcome: abi.Deadline, Detail: fmt.Sprintf("the host is stopping: %v", context.Cause(ctx))}, false
	}
	return abi.Result{}, true
}

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
func (s *Sink) Flush(ctx context.Context) abi.Result { return s.optional(ctx, abi.ExportFlush) }

// optional calls an export without parameters, if there is one.
func (s *Sink) optional(ctx context.Context, name string) abi.Result {
	if s.inst == nil {
		return abi.Result{Outcome: abi.OK}
	}
	if r, ok := s.stopped(ctx); !ok {
		return r
	}
	i := s.inst
	f := i.mod.ExportedFunction(name)
	if f == nil {
		return abi.Result{Outcome: abi.OK}
	}
	s.call.begin(0)
	r := s.invoke(ctx, func(ctx context.Context) (uint64, error) { return i.call(ctx, f) })
	switch {
	case r.Outcome.HostMade():
	case s.call.violation != "":
		return s.broken(s.call.violation)
	case r.Outcome == abi.Partial || r.Outcome >= abi.BadConfig:
		return s.broken(fmt.Sprintf("%s answered %s; it may answer OK, RETRY, REJECT or BUSY", name, r.Outcome))
	}
	return r
}

// Close lets the guest make durable what it holds back and put itself in
// order, commits and checkpoints what the capabilities hold, and frees
// everything. The sink can't be used again. Closing twice does nothing.
func (s *Sink) Close(ctx context.Context) error {
	var errs []error
	for _, name := range [...]string{abi.ExportFlush, abi.ExportClose} {
		if r := s.optional(ctx, name); r.Outcome != abi.OK {
			errs = append(errs, fmt.Errorf("sink %s: close plugin: %s answered %s: %s", s.o.Name, name, r.Outcome, r.Detail))
		}
	}
	s.discard()
	if s.sql != nil {
		if err := s.sql.close(); err != nil {
			errs = append(errs, fmt.Errorf("sink %s: %w", s.o.Name, err))
		}
		s.sql = nil
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

// judge checks the arithmetic of an answer to audit_deliver.
func (s *Sink) judge(r abi.Result, events int) abi.Result {
	if r.Outcome.HostMade() {
		return r
	}
	c := &s.call
	switch {
	case c.violation != "":
		return s.broken(c.violation)
	case r.Outcome >= abi.BadConfig:
		return s.broken(fmt.Sprintf("%s answered %s; it may answer OK, PARTIAL, RETRY, REJECT or BUSY", abi.ExportDeliver, r.Outcome))
	case r.Outcome == abi.Partial:
		if uint64(c.arg)+uint64(c.given) != uint64(events) {
			return s.broken(fmt.Sprintf("PARTIAL(%d) with %d verdicts for %d events", c.arg, c.given, events))
		}
		// Without any verdict all are stored: their codes are OK.
		r.Verdicts = make([]abi.Verdict, events)
		copy(r.Verdicts, c.verdicts)
	case c.given != 0:
		return s.broken(fmt.Sprintf("%s with %d verdicts; verdicts go with PARTIAL", r.Outcome, c.given))
	case r.Outcome == abi.OK && uint64(c.arg) != uint64(events):
		return s.broken(fmt.Sprintf("OK(%d) for %d events", c.arg, events))
	}
	return r
}

// broken is the outcome of a guest that broke a rule of the ABI.
func (s *Sink) broken(detail string) abi.Result {
	r := abi.Result{Outcome: abi.BadABI, Detail: detail, Stderr: s.inst.stderr.String(), Races: s.call.races}
	s.discard()
	return r
}
