// Package pipeline builds what lies between an accepted event and its final
// outcome, as a configuration says: state directory, compiled code, keys, dead
// letters, sinks, queue and recorder. The daemon and bulk ingestion use the
// same one.
//
// Guarantee: an [Open] that fails leaves nothing open and no lock behind, and
// its error says what to do. After [Pipeline.Close] nothing of the pipeline
// runs any more, and every sink has written out what it held.
package pipeline

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/statedir"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/queue"
	"github.com/audit-host/audit-host/sign"
)

// Options say what is built.
type Options struct {
	Config *config.Config
	Log    *slog.Logger
	// Bulk is for input that waits by itself: Submit waits for room, whatever
	// the configuration says, and a queue in memory is small.
	Bulk bool
}

// Pipeline is a recorder with all that it needs.
type Pipeline struct {
	Recorder *queue.Recorder
	Queue    queue.Queue
	Letters  *deadletter.Store
	// Level is the one at which an event survives a crash.
	Level queue.Level
	// Signed tells whether events are signed.
	Signed bool
	// Missing are the optional sinks that could not be loaded, with the reason.
	Missing map[string]string
	// Absent tells of queues on disk that took events and are not there.
	Absent []string

	cfg       *config.Config
	replaying sync.Mutex // held by Replay
	state     *statedir.Dir
	cache     *host.Cache
	lookup    *Lookup
	places    places // of the ledger's events
	log       *slog.Logger
	keyID     string        // "" if events are not signed
	keeper    *keeper       // nil if no sink is a ledger
	seats     []*seat       // the sinks that run, in the order of the configuration
	given     bool          // the recorder has the seats
	crashes   *host.Crashes // nil if none are kept
	reloads   *reloads
	refused   map[string]host.Limit
	chronicle *chronicle // nil if what becomes of plugins is not recorded
}

// CacheDir is the folder of compiled code of a configuration.
func CacheDir(cfg *config.Config) string { return cfg.StateDir + string(os.PathSeparator) + "cache" }

// Open builds the pipeline and starts the recorder. ctx bounds the start only.
func Open(ctx context.Context, o Options) (_ *Pipeline, err error) {
	p := &Pipeline{Missing: map[string]string{}, refused: map[string]host.Limit{}, cfg: o.Config, log: o.Log, reloads: newReloads(o.Config)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.release(context.WithoutCancel(ctx)))
		}
	}()
	cfg := o.Config
	if p.state, err = statedir.Open(cfg.StateDir); err != nil {
		return nil, err
	}
	if err = os.RemoveAll(trialDir(cfg)); err != nil { // of a process that was killed
		return nil, err
	}
	if p.cache, err = host.OpenCache(CacheDir(cfg)); err != nil {
		return nil, err
	}
	p.cache.Log = o.Log
	if p.crashes, err = openCrashes(cfg); err != nil {
		return nil, err
	}
	// The plugins' code is made ready while SQLite starts: each is a good part of
	// a start.
	plugins := p.prepareSinks(ctx, cfg)
	defer func() { err = errors.Join(err, plugins.close(context.WithoutCancel(ctx))) }()
	if err = host.StartSQLite(p.cache); err != nil {
		return nil, err
	}
	sealer, err := p.sealer(cfg, o.Log)
	if err != nil {
		return nil, err
	}
	_, remembered, _ := ReadHead(HeadFile(cfg)) // the error is that of the next call
	head, positions, err := ledgerAtStart(ctx, cfg, o.Log)
	if err != nil {
		return nil, err
	}
	if p.Letters, err = deadletter.Open(cfg.DeadLetters.Path); err != nil {
		return nil, err
	}
	sinks, err := p.openSinks(ctx, cfg, plugins, o.Log)
	if err != nil {
		return nil, err
	}
	if sink, ok := cfg.Ledger(); ok {
		if i := slices.IndexFunc(p.seats, func(s *seat) bool { return s.name == sink.Name }); i >= 0 {
			p.keeper = keep(p.seats[i].front, sink.Grant.SQL.Database, HeadFile(cfg), head, &p.places, o.Log.With(slog.String("sink", sink.Name)))
			p.seats[i].guard(p.keeper)
		}
	}
	var letters queue.DeadLetters = p.Letters
	if cfg.Record.PluginEvents {
		p.chronicle = newChronicle(p.seats, o.Log)
		letters = p.chronicle.letters(letters)
		for i := range sinks {
			sinks[i].Sink = p.chronicle.watch(sinks[i].Name, sinks[i].Sink)
			p.seats[i].story = p.chronicle.note
		}
	}
	if p.Queue, err = p.openQueue(ctx, cfg, o.Bulk, positions); err != nil {
		return nil, err
	}
	if sink, ok := cfg.Ledger(); ok {
		if !remembered {
			err = catchUp(ctx, p.Queue, sink.Name, sink.Required, positions[p.Queue.Caps().ID], o.Log)
		}
		// Remembered after that: a crash in between must leave it to be done.
		if err == nil && head.Sequence > 0 {
			err = head.save(HeadFile(cfg))
		}
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", sink.Name, err)
		}
	}
	p.Level = queue.Durable
	if cfg.Queue.Backend == "memory" {
		p.Level = queue.Committed
	}
	limits := EventOptions(cfg)
	p.Recorder, err = queue.NewRecorder(ctx, queue.RecorderOptions{
		Queue: p.Queue, Sinks: sinks, Sealer: sealer, DeadLetters: letters,
		Check: func(e abi.Event) error { return event.Check(e, limits) },
		Block: o.Bulk || cfg.Queue.WhenFull == "block",
		Log:   o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("start recorder: %w", err)
	}
	p.given = true
	for _, s := range p.seats {
		s.tune = func(m *member) {
			if err := p.Recorder.Retune(s.name, tuning(m.cfg, m.sink.Digest())); err != nil {
				o.Log.Error("serve a new plugin", slog.Any("error", err)) // it was checked as those before it
			}
		}
	}
	p.warnUnclaimed(o.Log)
	p.lookup = newLookup(cfg, p.Letters, &p.places)
	if p.chronicle != nil {
		p.chronicle.start(p.Recorder)
	}
	return p, nil
}

func (p *Pipeline) sealer(cfg *config.Config, log *slog.Logger) (*sign.Sealer, error) {
	var key ed25519.PrivateKey
	if cfg.Signing.Enabled() {
		var err error
		if key, err = sign.ReadPair(cfg.Signing.PrivateKey, cfg.Signing.PublicKey); err != nil {
			return nil, err
		}
		p.keyID = keyID(key)
		log.Info("events are signed", slog.String("key_id", p.keyID))
	} else {
		log.Warn("EVENTS ARE NOT SIGNED: who can write the ledger can forge it; make a pair with audit-host key new and name it in [signing]")
	}
	p.Signed = key != nil
	return sign.NewSealer(key), nil
}

func keyID(key ed25519.PrivateKey) string { return sign.KeyID(key.Public().(ed25519.PublicKey)) }

// ledgerAtStart looks at the configuration's ledger, if it has one.
func ledgerAtStart(ctx context.Context, cfg *config.Config, log *slog.Logger) (head Head, positions map[[16]byte]uint64, err error) {
	sink, ok := cfg.Ledger()
	if !ok {
		return head, nil, nil
	}
	head, positions, err = checkLedger(ctx, log.With(slog.String("sink", sink.Name)), sink.Grant.SQL.Database, sink.Grant.SQL.Create, HeadFile(cfg))
	if err != nil {
		err = fmt.Errorf("sink %s: %w", sink.Name, err)
	}
	return head, positions, err
}

// Ledger is what is known of the ledger; the zero value if there is none.
func (p *Pipeline) Ledger() LedgerState {
	if p.keeper == nil {
		return LedgerState{}
	}
	return p.keeper.State()
}

// Reachable says why the ledger can't be read; nil if it can, or if it is still
// to be made, by its first event: who sends none before the daemon is ready
// would wait for ever.
func (p *Pipeline) Reachable() error {
	err := p.lookup.reachable()
	if p.lookup.create && errors.Is(err, fs.ErrNotExist) && p.Ledger().Head.Sequence == 0 {
		return nil
	}
	return err
}

// Lookup tells where committed events stand.
func (p *Pipeline) Lookup() *Lookup { return p.lookup }

// Close stops accepting, lets the sinks take what is pending until ctx is
// done, writes everything out and frees it. The report tells what remained.
func (p *Pipeline) Close(ctx context.Context) (queue.Report, error) {
	// A view of the ledger would keep the sink from writing the log back.
	lookupErr := p.lookup.Close()
	p.chronicle.halt(ctx)
	p.reloads.end() // and joined below: one that compiles takes no time from the sinks
	report, err := p.Recorder.Close(ctx)
	return report, errors.Join(err, lookupErr, p.release(context.WithoutCancel(ctx)))
}

// release frees what is open, the last opened first.
func (p *Pipeline) release(ctx context.Context) error {
	p.reloads.halt()
	var errs []error
	if p.lookup != nil {
		errs = append(errs, p.lookup.Close())
	}
	if p.Queue != nil && p.Recorder == nil {
		errs = append(errs, closeUnused(ctx, p.Queue))
	}
	if p.keeper != nil {
		p.keeper.halt()
	}
	if !p.given {
		for _, s := range p.seats {
			errs = append(errs, s.Close(ctx))
		}
	}
	if p.Letters != nil {
		errs = append(errs, p.Letters.Close())
	}
	if p.cache != nil {
		errs = append(errs, p.cache.Close(ctx))
	}
	if p.state != nil {
		errs = append(errs, p.state.Close())
	}
	return errors.Join(errs...)
}

// closeUnused closes a queue that no recorder has. Nobody takes what it holds,
// so that it is not waited for.
func closeUnused(ctx context.Context, q queue.Queue) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := q.Close(ctx)
	var left *queue.RemainingError
	if errors.As(err, &left) && left.Kept {
		return nil
	}
	return err
}
