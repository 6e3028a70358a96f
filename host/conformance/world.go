package conformance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
)

// world is one life of a sink with all that it is granted.
type world struct {
	*recorder
	k     *kit
	dir   string
	sink  *host.Sink
	bench host.Bench
	told  map[string]abi.Place // by the sink, of the events by their id
}

const (
	database = "sink.db"
	file     = "sink.jsonl"
	store    = "kv.db"
)

// usualWorld returns the world that cases share which want nothing special: to
// open a sink takes longer than most of them. Its instance is a fresh one.
func (k *kit) usualWorld(ctx context.Context) (*world, error) { return k.shared(ctx, &k.usualOne, nil) }

// bigWorld is one with as much memory as there can be.
func (k *kit) bigWorld(ctx context.Context) (*world, error) {
	return k.shared(ctx, &k.bigOne, func(o *host.Options) { o.Memory = 1<<32 - page })
}

func (k *kit) shared(ctx context.Context, place **world, tweak func(*host.Options)) (*world, error) {
	k.server.answers(reply{})
	if w := *place; w != nil {
		w.calm()
		w.order = nil
		return w, w.fresh(ctx)
	}
	w, err := k.openWorld(ctx, tweak)
	if err != nil {
		return nil, err
	}
	*place = w
	return w, nil
}

// leaveWorlds has the next case begin with a world of its own: after a breach
// the one that was is in no state to go on from.
func (k *kit) leaveWorlds(ctx context.Context) {
	for _, place := range []**world{&k.usualOne, &k.bigOne} {
		if w := *place; w != nil {
			*place = nil
			w.close(ctx)
		}
	}
}

// openWorld makes a world and opens the sink in it, after tweak has had the
// options. What keeps the sink from being opened is a breach.
func (k *kit) openWorld(ctx context.Context, tweak func(*host.Options)) (*world, error) {
	k.worlds++
	w := &world{k: k, dir: filepath.Join(k.dir, fmt.Sprint("world-", k.worlds)), recorder: newRecorder()}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return nil, err
	}
	if k.o.Database != "" {
		text, err := os.ReadFile(k.o.Database)
		if err == nil {
			err = os.WriteFile(filepath.Join(w.dir, database), text, 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("copy the database: %w", err)
		}
	}
	k.server.reset()
	return w, w.open(ctx, tweak)
}

// open opens the sink, in a world where it may have been before.
func (w *world) open(ctx context.Context, tweak func(*host.Options)) error {
	o := w.options()
	if tweak != nil {
		tweak(&o)
	}
	s, err := host.Open(ctx, w.k.wasm, o)
	var refused *host.ConfigError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &refused):
		return refusedConfig(w.k, refused.Detail)
	case err != nil:
		return &Breach{Rule: "R1", Sent: "the module, with all that its manifest asks for granted", Got: err.Error(),
			Wanted: "a sink that can be opened", Change: "what the message names"}
	}
	w.sink, w.bench = s, s.Bench()
	return nil
}

// patience bounds one call into a plugin: no batch of the kit takes a sound one a
// second.
const patience = 15 * time.Second

// options grant what the manifest asks for, and nothing beyond the world.
func (w *world) options() host.Options {
	k := w.k
	o := host.Options{Name: "check", Config: k.config, Cache: k.o.Cache, Log: k.o.Log, Probe: w.recorder, Deadline: patience}
	for _, name := range k.manifest.Capabilities {
		switch name {
		case abi.CapabilitySQL:
			o.SQL = &host.SQLGrant{Database: filepath.Join(w.dir, database), Create: true}
		case abi.CapabilityAppend:
			o.Append = &appendfile.Options{Path: filepath.Join(w.dir, file)}
		case abi.CapabilityHTTP:
			o.HTTP = k.policy()
		case abi.CapabilityKV:
			o.KV = &host.KVGrant{Path: filepath.Join(w.dir, store)}
		case abi.CapabilityNow:
			o.Now = true
		case abi.CapabilityRandom:
			o.Random = true
		}
	}
	return o
}

// policy grants the kit's server and nobody else, with a secret of each name
// that the configuration uses.
func (k *kit) policy() *egress.Policy {
	rule := egress.HostRule{Scheme: "http", Host: "127.0.0.1", Port: uint16(k.server.addr.Port),
		Methods: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}}
	p := &egress.Policy{Secrets: map[string]egress.Secret{}, MaxRequest: 64 << 20, Timeout: 5 * time.Second}
	for _, name := range secretNames(k.config) {
		if _, ok := p.Secrets[name]; !ok {
			rule.Secrets = append(rule.Secrets, name)
			p.Secrets[name] = egress.NewSecret("a secret of the conformance kit")
		}
	}
	p.Hosts = []egress.HostRule{rule}
	return p
}

// close closes the sink and removes its world, unless it is shared. It is for the
// end of a case that does not look at closing.
func (w *world) close(ctx context.Context) {
	if w == w.k.usualOne || w == w.k.bigOne {
		return
	}
	if w.sink != nil {
		// What the plugin answers is looked at in the case "close".
		_ = w.sink.Close(context.WithoutCancel(ctx))
	}
	_ = os.RemoveAll(w.dir) // Check removes what is left, and tells
}

// deliver hands a batch over.
func (w *world) deliver(ctx context.Context, b *abi.Batch) abi.Result {
	w.begin()
	r := w.sink.Deliver(ctx, b)
	if why := w.displaced(b, r); why != "" {
		r = abi.Result{Outcome: abi.BadABI, Rule: "R28", Detail: why}
	}
	w.ended(r.Outcome == abi.OK || r.Outcome == abi.Partial)
	return r
}

// displaced compares the places that came with an answer with those that came before:
// what an idempotent sink has at one place it has nowhere else, and not stored now.
func (w *world) displaced(b *abi.Batch, r abi.Result) string {
	for i := range r.Places {
		p, id := r.Places[i], b.Events[i].ID
		if p.Sequence == 0 || !w.k.manifest.Idempotent {
			continue
		}
		old, known := w.told[id]
		switch {
		case known && (old.Sequence != p.Sequence || old.RowHash != p.RowHash):
			return fmt.Sprintf("event %d of the batch was at sequence %d, and is at %d now", i, old.Sequence, p.Sequence)
		case known && p.StoredNow():
			return fmt.Sprintf("event %d of the batch was at sequence %d before, and is told to be stored now", i, old.Sequence)
		}
		if w.told == nil {
			w.told = map[string]abi.Place{}
		}
		w.told[id] = p
	}
	return ""
}

// fresh throws the instance away, so that the next batch meets another.
func (w *world) fresh(ctx context.Context) error { return w.bench.Kill(ctx) }

// tally counts how often events are found: by surface, then by id.
type tally map[string]map[string]int

func (t tally) add(surface string, b []byte) {
	eachMark(b, func(id string) {
		if t[surface] == nil {
			t[surface] = map[string]int{}
		}
		t[surface][id]++
	})
}

// look counts what is there. kept is what outlives the sink, written also what
// may: lines that nobody has promised to sync.
func (w *world) look(ctx context.Context) (kept, written tally, err error) {
	kept, written = tally{}, tally{}
	both := func(surface string, b []byte) { kept.add(surface, b); written.add(surface, b) }
	caps := w.k.manifest.Capabilities
	if slices.Contains(caps, abi.CapabilitySQL) {
		err := host.EachRow(ctx, filepath.Join(w.dir, database), func(table string, cells [][]byte) {
			for _, c := range cells {
				both("table "+table, c)
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("look at the database: %w", err)
		}
	}
	if slices.Contains(caps, abi.CapabilityHTTP) {
		w.k.server.seen(func(b []byte) { both("requests", b) })
	}
	for _, line := range w.synced {
		both("file", line)
	}
	for _, line := range w.stray {
		written.add("file", line)
	}
	for key, v := range w.values {
		both("kv", []byte(key))
		both("kv", v)
	}
	return kept, written, nil
}

// compare looks for events that have to be stored: those of which a surface has
// less than usual, and those of which it has more.
func (w *world) compare(ctx context.Context, events []abi.Event) (missing, doubled []string, err error) {
	if len(w.k.usual) == 0 {
		return nil, nil, nil
	}
	kept, written, err := w.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	for i := range events {
		id := markOf(events[i].ID)
		if seen[id] {
			continue
		}
		seen[id] = true
		less, more := false, false
		for surface, n := range w.k.usual {
			less = less || kept[surface][id] < n
			more = more || written[surface][id] > n
		}
		if less {
			missing = append(missing, id)
		}
		if more {
			doubled = append(doubled, id)
		}
	}
	return missing, doubled, nil
}

// places names the events of a list by their place in a batch, from 1.
func places(events []abi.Event, ids []string) string {
	var list []string
	named := map[string]bool{}
	for i := range events {
		if id := markOf(events[i].ID); slices.Contains(ids, id) && !named[id] {
			named[id] = true
			if len(list) == 8 {
				list = append(list, "…")
				break
			}
			list = append(list, fmt.Sprint(i+1))
		}
	}
	if len(list) == 1 {
		return "event " + list[0]
	}
	return "events " + strings.Join(list, ", ")
}

// stored returns the events that an answer counts as stored, and those that it
// wants again.
func stored(b *abi.Batch, r abi.Result) (done, later []abi.Event) {
	switch r.Outcome {
	case abi.OK:
		return b.Events, nil
	case abi.Partial:
		for i := range b.Events {
			switch r.Verdicts[i].Code {
			case abi.OK:
				done = append(done, b.Events[i])
			case abi.Retry:
				later = append(later, b.Events[i])
			}
		}
	}
	return done, later
}

// surfaces names where events are found, for a person.
func (k *kit) surfaces() string {
	var list []string
	for name := range k.usual {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
