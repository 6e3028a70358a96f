// Package conformance checks a sink plugin against the numbered rules of
// abi/README.md. It runs the plugin as the host does, in a throw-away world of
// its own (a database, a file, an HTTP server on loopback, a small store), has
// everything go wrong that may, and looks at what the plugin asked for at the
// boundary of its capabilities.
//
// What a sink has stored is found without knowing what it writes: each event
// carries an id that nothing else has, and an event is stored when its id has
// come out: in rows of the database, in lines of the file that were synced, in
// requests that the server took, in values of the small store. How often it has
// to be there is learnt from events that were delivered once, undisturbed.
//
// Guarantee: a breach that is reported happened, with what was sent and what
// came back; nothing outside a temporary folder and loopback is touched,
// whatever the configuration says. Not guaranteed: that a plugin without a
// breach is right. A sink without a capability is judged by its outcomes alone,
// and what a server makes of a request is known to the server alone.
package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/host"
)

// Options says how a plugin is checked. The zero value will do for a plugin
// that needs no configuration.
type Options struct {
	// Config is the sink's configuration. In each of its texts that is a URL
	// the origin is replaced by that of the kit's server. nil is made from the
	// manifest's schema.
	Config json.RawMessage
	// Only chooses cases by their name; nil runs all.
	Only *regexp.Regexp
	// Batches is how many the endurance case delivers; DefaultBatches if 0.
	Batches int
	// Answer is the body of the server's answers, {} if nil.
	Answer []byte
	// Database is a file that the sink's database begins as, for a sink that
	// does not make its tables; empty is an empty one.
	Database string
	// Cache keeps compiled code; nil keeps it for this check only.
	Cache *host.Cache
	// Log gets what the plugin and the host log; nil drops it.
	Log *slog.Logger
	// Done, if not nil, is called with each result as soon as it is there.
	Done func(Result)
}

// DefaultBatches is how many batches the endurance case delivers.
const DefaultBatches = 10_000

// Status is how a case ended.
type Status string

// The statuses.
const (
	Held Status = "held"
	// Broken: the plugin breaks a rule.
	Broken Status = "breach"
	// Inapplicable: there is nothing to check in this plugin.
	Inapplicable Status = "not_applicable"
	// Unchecked: it could not be checked, because of a breach before or for
	// lack of something; After or Note says which.
	Unchecked Status = "unchecked"
)

// Result is how one case ended.
type Result struct {
	// Case is its name, for [Options].Only; Rule is the rule of abi/README.md.
	Case   string `json:"case"`
	Rule   string `json:"rule"`
	Title  string `json:"title"`
	Status Status `json:"status"`
	Note   string `json:"note,omitempty"`
	// After names the case that has to hold before this one says anything.
	After  string  `json:"after,omitempty"`
	Breach *Breach `json:"breach,omitempty"`
	// Took is in nanoseconds.
	Took time.Duration `json:"took_ns"`
}

// Breach explains how a rule was broken, to the author of the plugin.
type Breach struct {
	// Rule replaces that of the case if it is another one.
	Rule string `json:"-"`
	// Sent is what the plugin was given, Got what it did, Wanted what it
	// should have done, Change what to look at.
	Sent   string `json:"sent"`
	Got    string `json:"got"`
	Wanted string `json:"wanted"`
	Change string `json:"change"`
}

// Error is the breach in one line.
func (b *Breach) Error() string { return "sent " + b.Sent + ", got " + b.Got + ", wanted " + b.Wanted }

// unchecked and inapplicable end a case without a judgement.
type (
	unchecked    string
	inapplicable string
)

func (u unchecked) Error() string    { return string(u) }
func (i inapplicable) Error() string { return string(i) }

// Report is the outcome of a check.
type Report struct {
	Plugin       string   `json:"plugin"`
	Version      string   `json:"version"`
	Digest       string   `json:"sha256"`
	Idempotent   bool     `json:"idempotent"`
	Capabilities []string `json:"capabilities"`
	Results      []Result `json:"results"`
	// Numbers of results by status.
	Held         int `json:"held"`
	Breaches     int `json:"breaches"`
	Inapplicable int `json:"not_applicable"`
	Unchecked    int `json:"unchecked"`
	// Took is in nanoseconds.
	Took time.Duration `json:"took_ns"`
}

// Err returns what is broken and what could not be checked, a line each; nil if
// there is none of it.
func (r *Report) Err() error {
	var errs []error
	for _, r := range r.Results {
		switch {
		case r.Breach != nil:
			errs = append(errs, fmt.Errorf("%s (%s): %w", r.Case, r.Rule, r.Breach))
		case r.Status == Unchecked:
			errs = append(errs, fmt.Errorf("%s (%s): not checked: %s%s", r.Case, r.Rule, r.After, r.Note))
		}
	}
	return errors.Join(errs...)
}

// probe is one case. needs names the case before it without which it says
// nothing.
type probe struct {
	name, rule, title, needs string
	run                      func(context.Context, *kit) (note string, err error)
}

// Case describes a case to people who choose some.
type Case struct{ Name, Rule, Title string }

// Cases lists all cases in the order in which they run.
func Cases() []Case {
	var list []Case
	for _, p := range probes() {
		list = append(list, Case{p.name, p.rule, p.title})
	}
	return list
}

// Check checks a plugin. The error is the kit's own or that of ctx: what is
// wrong with the plugin stands in the report.
func Check(ctx context.Context, wasm []byte, o Options) (rep *Report, err error) {
	dir, err := os.MkdirTemp("", "audit-host-check")
	if err != nil {
		return nil, fmt.Errorf("check plugin: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	k := &kit{wasm: wasm, o: o, dir: dir, rep: &Report{}}
	if k.o.Batches <= 0 {
		k.o.Batches = DefaultBatches
	}
	if k.o.Cache == nil {
		if k.o.Cache, err = host.OpenCache(filepath.Join(dir, "code")); err != nil {
			return nil, fmt.Errorf("check plugin: %w", err)
		}
		defer func() { err = errors.Join(err, k.o.Cache.Close(context.WithoutCancel(ctx))) }()
	}
	if k.server, err = startServer(o.Answer); err != nil {
		return nil, fmt.Errorf("check plugin: %w", err)
	}
	defer func() { err = errors.Join(err, k.server.stop()) }()
	begin := time.Now()
	if err := k.runAll(ctx); err != nil {
		return nil, fmt.Errorf("check plugin: %w", err)
	}
	k.rep.Took = time.Since(begin)
	return k.rep, nil
}

// kit is one check.
type kit struct {
	wasm   []byte
	o      Options
	dir    string // worlds lie in it
	worlds int
	// Worlds that cases share; nil until needed and after a breach.
	usualOne, bigOne *world
	server           *server
	manifest         manifest.Manifest
	schema           schema
	problems         map[string][]string // of the module, by case
	imported         []string            // capabilities that its imports need
	config           json.RawMessage
	made             bool // config was made from the schema
	next             int  // number of the next event
	batches          uint64
	// usual is how often an event is found on each surface; nil before the
	// case "one", empty for a sink of which nothing can be seen.
	usual map[string]int
	rep   *Report
}

// runAll runs the chosen cases, and those that they need.
func (k *kit) runAll(ctx context.Context) error {
	defer k.leaveWorlds(ctx)
	list := probes()
	status := map[string]Status{}
	wanted := map[string]bool{}
	for i := len(list) - 1; i >= 0; i-- {
		if p := &list[i]; wanted[p.name] || k.o.Only == nil || k.o.Only.MatchString(p.name) {
			wanted[p.name] = true
			if p.needs != "" {
				wanted[p.needs] = true
			}
		}
	}
	for i := range list {
		p := &list[i]
		if !wanted[p.name] {
			continue
		}
		r := Result{Case: p.name, Rule: p.rule, Title: p.title}
		begin := time.Now()
		// A sink of which nothing can be seen is judged by its outcomes.
		if before := status[p.needs]; before == Broken || before == Unchecked && k.usual == nil {
			r.Status, r.After = Unchecked, p.needs
		} else if err := k.runOne(ctx, p, &r); err != nil {
			return err
		}
		r.Took = time.Since(begin)
		status[p.name] = r.Status
		k.count(r)
	}
	return nil
}

// runOne runs a case and fills in how it ended.
func (k *kit) runOne(ctx context.Context, p *probe, r *Result) error {
	note, err := p.run(ctx, k)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u unchecked
	var i inapplicable
	switch {
	case err == nil:
		r.Status, r.Note = Held, note
	case errors.As(err, &r.Breach):
		r.Status = Broken
		k.leaveWorlds(ctx)
		if r.Breach.Rule != "" {
			r.Rule = r.Breach.Rule
		}
	case errors.As(err, &u):
		r.Status, r.Note = Unchecked, u.Error()
	case errors.As(err, &i):
		r.Status, r.Note = Inapplicable, i.Error()
	default:
		return fmt.Errorf("case %s: %w", p.name, err)
	}
	return nil
}

func (k *kit) count(r Result) {
	switch r.Status {
	case Held:
		k.rep.Held++
	case Broken:
		k.rep.Breaches++
	case Inapplicable:
		k.rep.Inapplicable++
	case Unchecked:
		k.rep.Unchecked++
	}
	k.rep.Results = append(k.rep.Results, r)
	if k.o.Done != nil {
		k.o.Done(r)
	}
}
