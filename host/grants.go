package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
)

// grants are the capabilities of a sink but for sql, which has a field of its
// own, and now and random, which hold nothing. Each is nil if not granted.
type grants struct {
	append *appendGrant
	http   *egress.Client
	kv     *kvStore
}

// granted names every capability this host knows and whether it is granted.
func (s *Sink) granted() map[string]bool {
	return map[string]bool{
		abi.CapabilitySQL:    s.o.SQL != nil,
		abi.CapabilityAppend: s.o.Append != nil,
		abi.CapabilityHTTP:   s.o.HTTP != nil,
		abi.CapabilityKV:     s.o.KV != nil,
		abi.CapabilityNow:    s.o.Now,
		abi.CapabilityRandom: s.o.Random,
	}
}

// openGrants opens what the capabilities work on. A file that is locked or a
// disk that is full will be had later, so they are no reason not to start; a
// folder that does not exist is a slip of the pen.
func (s *Sink) openGrants(ctx context.Context) error {
	for _, name := range abi.Capabilities() {
		if s.granted()[name] && !slices.Contains(s.manifest.Capabilities, name) {
			s.o.Log.Warn("grant that the plugin does not ask for: take it out of audit.toml", "sink", s.o.Name, "plugin", s.manifest.Name, "grant", name)
		}
	}
	if s.o.Append != nil {
		a := &appendGrant{o: *s.o.Append}
		if a.o.Log == nil {
			a.o.Log = s.o.Log
		}
		s.grants.append = a
		if err := a.open(); errors.Is(err, appendfile.ErrLocked) || errors.Is(err, appendfile.ErrNoSpace) {
			s.o.Log.Warn("append-only file is not to be had, it is tried again", "sink", s.o.Name, "error", err)
		} else if err != nil {
			return fmt.Errorf("grant append: %w", err)
		}
	}
	if s.o.HTTP != nil && s.grants.http == nil {
		c, err := egress.New(*s.o.HTTP)
		if err != nil {
			return fmt.Errorf("grant http: %w", err)
		}
		s.grants.http = c
	}
	if s.o.KV != nil {
		s.grants.kv = newKVStore(*s.o.KV, s.o.Cache)
		if err := s.grants.kv.load(ctx); err != nil {
			return fmt.Errorf("grant kv: %w", err)
		}
	}
	return nil
}

// closeGrants gives up the files that openGrants opened. The http client has no
// connection between two calls, and keeps its counters.
func (s *Sink) closeGrants() error {
	g := &s.grants
	var errs []error
	if g.append != nil {
		errs = append(errs, g.append.close())
	}
	if g.kv != nil {
		errs = append(errs, g.kv.file.Close())
	}
	g.append, g.kv = nil, nil
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("sink %s: %w", s.o.Name, err)
		}
	}
	return errors.Join(errs...)
}

// Egress returns what the http capability has done so far; false if the sink
// has none. It may be called at any time.
func (s *Sink) Egress() (egress.Counters, bool) {
	if s.grants.http == nil {
		return egress.Counters{}, false
	}
	return s.grants.http.Counters(), true
}

// withGrants delivers a batch within the promises of append and kv. Events
// whose changes the kv store holds already are not delivered again.
func (s *Sink) withGrants(ctx context.Context, b *abi.Batch, deliver func(*abi.Batch) abi.Result) abi.Result {
	k := s.grants.kv
	if k == nil {
		return s.settle(ctx, deliver(b), b)
	}
	if err := k.load(ctx); err != nil {
		return abi.Result{Outcome: abi.Busy, Detail: firstLines("kv store: "+err.Error(), 4)}
	}
	part, at := k.uncovered(b)
	if len(part.Events) == 0 {
		return abi.Result{Outcome: abi.OK}
	}
	r := s.settle(ctx, deliver(part), part)
	if part != b {
		r = spread(r, at, len(b.Events))
	}
	return r
}

// spread turns the result of a part of a batch, the events at these indices,
// into that of the batch. The others are stored.
func spread(r abi.Result, at []int, events int) abi.Result {
	if r.Places != nil {
		all := make([]abi.Place, events)
		for k, i := range at {
			all[i] = r.Places[k]
		}
		r.Places = all
	}
	switch r.Outcome {
	case abi.Partial:
		all := make([]abi.Verdict, events)
		for k, i := range at {
			all[i] = r.Verdicts[k]
		}
		r.Verdicts = all
	case abi.Reject:
		// Not of those that are stored: what is left comes alone, and is then
		// refused alone.
		r.Outcome, r.Reason, r.Verdicts = abi.Partial, abi.ReasonOther, make([]abi.Verdict, events)
		for _, i := range at {
			r.Verdicts[i] = abi.Verdict{Code: abi.Retry, Reason: r.Detail}
		}
	}
	return r
}

// settle ends a call into the guest. b is nil unless it was a delivery. Only
// after it returned OK or PARTIAL may the caller take anything for stored.
//
// The order is the argument for a crash at any point. First the file is
// synced: from here on the lines are on disk, and nothing claims that they are.
// Then the kv transaction is committed, with the positions of the events that
// it belongs to: from here on a redelivery of them is answered without the
// guest. Then the caller acknowledges. A crash before the second step leaves
// the kv store as it was before the batch, and the batch comes again: lines may
// then be there twice, never not at all. A crash behind it leaves a batch that
// comes again and is known to be done.
//
// If a step fails the guest is told nothing of it, so what it remembers of the
// batch may be wrong: the instance is thrown away, and the batch comes again to
// a fresh one. It is BUSY and not unknown: waiting mends it, and no event is to
// blame.
func (s *Sink) settle(ctx context.Context, r abi.Result, b *abi.Batch) abi.Result {
	g := &s.grants
	ok := r.Outcome == abi.OK || r.Outcome == abi.Partial
	var err error
	if ok && g.append != nil {
		err = g.append.sync()
	}
	if g.kv != nil {
		if ok && err == nil {
			err = g.kv.commit(ctx, b, r.Verdicts)
		} else {
			g.kv.drop()
		}
	}
	if err == nil {
		return r
	}
	s.o.Log.Warn("plugin answered that its batch is stored, but it is not durable: it is delivered again", "sink", s.o.Name, "plugin", s.manifest.Name, "error", err)
	s.discard()
	return abi.Result{Outcome: abi.Busy, Detail: firstLines(err.Error(), 4), Races: r.Races}
}

// maxComplaints is how many failures of capabilities one call may have logged.
const maxComplaints = 10

// complain logs a failure of a capability, once for the operator: the guest
// gets a status. A guest that goes on and on fills no log.
func (s *Sink) complain(ctx context.Context, message string, attrs ...slog.Attr) {
	if s.call.complaints++; s.call.complaints > maxComplaints {
		return
	}
	attrs = append([]slog.Attr{slog.String("sink", s.o.Name), slog.String("plugin", s.manifest.Name)}, attrs...)
	if s.call.complaints == maxComplaints {
		attrs = append(attrs, slog.Bool("further_ones_of_this_batch_are_not_logged", true))
	}
	s.o.Log.LogAttrs(ctx, slog.LevelWarn, message, attrs...)
}

// GrantError is a plugin that asks for more than it is granted.
type GrantError struct {
	// Wants is what its manifest asks for and its imports need, Granted what
	// it is granted; both in the order of abi.Capabilities.
	Wants, Granted []string
	// Missing is the difference, with who asks for it.
	Missing []MissingGrant
}

// MissingGrant is a capability that is asked for and not granted.
type MissingGrant struct {
	Capability string
	// Manifest tells that the manifest asks for it, Imports names the
	// functions that need it.
	Manifest bool
	Imports  []string
}

// grantLines are what audit.toml needs under a sink to grant a capability.
var grantLines = map[string]string{
	abi.CapabilitySQL:    "[sink.grant.sql]\ndatabase = \"FILE.db\"",
	abi.CapabilityAppend: "[sink.grant.append]\npath = \"FILE.jsonl\"",
	abi.CapabilityHTTP:   "[sink.grant.http]\nhosts = [{ host = \"NAME\", methods = [\"POST\"] }]",
	abi.CapabilityKV:     "[sink.grant.kv]",
	abi.CapabilityNow:    "[sink.grant]\nnow = true",
	abi.CapabilityRandom: "[sink.grant]\nrandom = true",
}

// Error shows the difference, and the lines that would grant it.
func (e *GrantError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the plugin asks for more than it is granted:\n  it wants      %s\n  it is granted %s", words(e.Wants), words(e.Granted))
	for _, m := range e.Missing {
		var who []string
		if m.Manifest {
			who = append(who, "its manifest asks for it")
		}
		for _, name := range m.Imports {
			who = append(who, "it imports "+abi.ImportModule+"."+name)
		}
		fmt.Fprintf(&b, "\n  missing       %s: %s", m.Capability, strings.Join(who, ", "))
	}
	b.WriteString("\n  if it should have this, audit.toml needs, under this [[sink]]:")
	for _, m := range e.Missing {
		b.WriteString("\n    " + strings.ReplaceAll(grantLines[m.Capability], "\n", "\n    "))
	}
	return b.String()
}

func words(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}

// missingGrants compares what a module wants with what is granted; nil if it
// has all.
func missingGrants(m *module, granted map[string]bool) *GrantError {
	e := &GrantError{}
	for _, c := range abi.Capabilities() {
		miss := MissingGrant{Capability: c, Manifest: slices.Contains(m.manifest.Capabilities, c)}
		for _, i := range m.imports {
			if sig, known := importOf(i.module, i.name); known && sig.Capability == c && !slices.Contains(miss.Imports, i.name) {
				miss.Imports = append(miss.Imports, i.name)
			}
		}
		wanted := miss.Manifest || miss.Imports != nil
		if wanted {
			e.Wants = append(e.Wants, c)
		}
		if granted[c] {
			e.Granted = append(e.Granted, c)
		} else if wanted {
			e.Missing = append(e.Missing, miss)
		}
	}
	if e.Missing == nil {
		return nil
	}
	return e
}
