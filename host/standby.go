package host

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/audit-host/audit-host/abi"
)

// Prepare is [Open] up to where code of the guest would run: the module is
// checked, metered and compiled. The sink holds no file, connection or
// instance, so it may stand beside another one that has the same grants, until
// [Sink.Start].
func Prepare(ctx context.Context, wasm []byte, o Options) (*Sink, error) {
	o.setDefaults()
	m, err := readModule(wasm, meterLimits(o))
	if err != nil {
		return nil, fmt.Errorf("sink %s: load plugin (sha256 %s): %w", o.Name, m.digest, err)
	}
	s := &Sink{o: o, turn: make(chan struct{}, 1), manifest: m.manifest, digest: m.digest, pages: pagesOf(o.Memory)}
	if s.trace.on = o.Crashes != nil; s.trace.on {
		s.wasm = wasm
	}
	if err := s.load(ctx, &m); err != nil {
		return nil, errors.Join(s.unloaded(err), s.Close(ctx))
	}
	o.Log.Debug("plugin loaded", "sink", o.Name, "plugin", m.manifest.Name, "version", m.manifest.Version, "sha256", s.digest,
		"functions", m.info.Functions, "charges", m.info.Charges)
	return s, nil
}

func (s *Sink) unloaded(err error) error {
	return fmt.Errorf("sink %s: load plugin %s %s: %w", s.o.Name, s.manifest.Name, oneWord(s.manifest.Version), err)
}

// Start opens what is granted, makes an instance and hands over the
// configuration. The result is that of audit_open. If it is not OK there is no
// instance, and the first [Sink.Deliver] makes one. After an error nothing is
// open, and Start may be called again: the module does not fit, a grant can't be
// opened, or the guest refuses its configuration, with a *[ConfigError].
func (s *Sink) Start(ctx context.Context) (abi.Result, error) {
	if err := s.wait(ctx); err != nil {
		return abi.Result{}, fmt.Errorf("sink %s: start plugin: %w", s.o.Name, err)
	}
	defer s.end()
	switch {
	case s.runtime == nil:
		return abi.Result{}, fmt.Errorf("sink %s: start plugin: it is closed", s.o.Name)
	case s.started:
		return abi.Result{Outcome: abi.OK}, nil
	}
	r, err := s.ready(ctx)
	if err != nil {
		err = errors.Join(err, s.release())
	}
	s.started = err == nil
	return r, err
}

// ready does what Start promises, and leaves the mess of an error.
func (s *Sink) ready(ctx context.Context) (abi.Result, error) {
	if s.o.SQL != nil {
		s.sql = newDatabase(*s.o.SQL, s.o.Cache)
	}
	if err := s.openGrants(ctx); err != nil {
		return abi.Result{}, fmt.Errorf("sink %s: %w", s.o.Name, err)
	}
	r, err := s.fresh(ctx)
	switch {
	case err != nil:
		return r, s.unloaded(err)
	case r.Outcome == abi.BadConfig:
		return r, &ConfigError{Sink: s.o.Name, Detail: r.Detail}
	case r.Outcome != abi.OK:
		s.o.Log.Warn("plugin is not ready, it is opened again with the first batch", "sink", s.o.Name, "plugin", s.manifest.Name,
			"outcome", r.Outcome.String(), "detail", r.Detail, "stderr", r.Stderr)
	}
	return r, nil
}

// Grant puts other files, hosts and stores behind the capabilities of a sink that is
// not started, and another log. Which capabilities there are can't be changed: they
// were compared with what the plugin asks for. What was counted is forgotten.
func (s *Sink) Grant(o Options) error {
	s.turn <- struct{}{} // nobody has it for long
	defer s.end()
	if s.started || s.runtime == nil {
		return fmt.Errorf("sink %s: grant: the plugin is started, or closed", s.o.Name)
	}
	had := s.granted()
	was := s.o
	s.o.SQL, s.o.Append, s.o.HTTP, s.o.KV, s.o.Log = o.SQL, o.Append, o.HTTP, o.KV, o.Log
	if !maps.Equal(had, s.granted()) {
		s.o = was
		return fmt.Errorf("sink %s: grant: other capabilities than before", s.o.Name)
	}
	s.o.setDefaults()
	if s.grants.http != nil {
		s.grants.http.Close()
		s.grants.http = nil
	}
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	s.counts.outcomes, s.counts.breaches = nil, nil
	return nil
}

// Stop ends the instance as [Sink.Close] does, and gives up all that Start has
// opened: another sink may have the same grants then. The compiled code stays,
// so that Start has this one back within milliseconds. The error tells what the
// guest or a file said about its end; all is given up nevertheless, unless ctx
// has ended before the call that runs.
func (s *Sink) Stop(ctx context.Context) error {
	if err := s.wait(ctx); err != nil {
		return fmt.Errorf("sink %s: stop plugin: %w", s.o.Name, err)
	}
	defer s.end()
	if s.sql != nil {
		// Whoever is next writes the log back, or the end does: a reader in the way
		// of that would be waited for, and with him all events.
		s.sql.file.HandOver = true
	}
	return s.stop(ctx)
}

// stop ends what Start began; the turn is this call's.
func (s *Sink) stop(ctx context.Context) error {
	var errs []error
	for _, name := range [...]string{abi.ExportFlush, abi.ExportClose} {
		if r := s.optional(ctx, name); r.Outcome != abi.OK {
			errs = append(errs, fmt.Errorf("sink %s: close plugin: %s answered %s: %s", s.o.Name, name, r.Outcome, r.Detail))
		}
	}
	s.started = false
	return errors.Join(errors.Join(errs...), s.release())
}

// release discards the instance and closes what is granted, but for the http
// client, which has no connection now and keeps its counters.
func (s *Sink) release() error {
	s.discard()
	var errs []error
	if s.sql != nil {
		if err := s.sql.close(); err != nil {
			errs = append(errs, fmt.Errorf("sink %s: %w", s.o.Name, err))
		}
		s.sql = nil
	}
	return errors.Join(append(errs, s.closeGrants())...)
}

// wait waits for the turn, also when ctx is done already.
func (s *Sink) wait(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a call into the guest is still running: %w", context.Cause(ctx))
	}
}
