package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/queue"
)

const (
	headEvery = time.Second      // how soon after a delivery the head is remembered
	idleEvery = 10 * time.Second // how often a ledger is looked at that gets nothing
	tellEvery = 30 * time.Second // how often a lasting fault is logged again
)

// leastSpace is what a file system has left that counts as full, in bytes.
const leastSpace = 1 << 20

// Fault is a class of what keeps the ledger from taking events. The classes are
// few, so that they can be a label.
type Fault string

// Faults of the ledger; docs/faults.md has a line for each.
const (
	FaultLocked   Fault = "locked"         // another process holds its lock
	FaultFull     Fault = "disk_full"      // no space, or a quota
	FaultIO       Fault = "io"             // the disk fails
	FaultReadOnly Fault = "read_only"      // file, folder or file system
	FaultAccess   Fault = "no_access"      // can't be opened
	FaultCorrupt  Fault = "corrupt"        // a page is damaged
	FaultFormat   Fault = "not_a_ledger"   // another database, another format
	FaultReplaced Fault = "replaced"       // another file has its name
	FaultWentBack Fault = "went_back"      // lacks the remembered head, or rows it had
	FaultSchema   Fault = "schema_changed" // does not take rows as they are given
	FaultOther    Fault = "other"
)

// Faults are all of them, in the order of docs/faults.md.
func Faults() []Fault {
	return []Fault{FaultLocked, FaultFull, FaultIO, FaultReadOnly, FaultAccess, FaultCorrupt, FaultFormat, FaultReplaced,
		FaultWentBack, FaultSchema, FaultOther}
}

// Trouble is what keeps the ledger from taking events; the zero value is nothing.
type Trouble struct {
	Fault Fault // "" if there is none
	Text  string
	Since time.Time
}

// LedgerState is what is known of the ledger.
type LedgerState struct {
	Head    Head // remembered
	Trouble Trouble
	// Unsaved is why the head is not on disk; "" if it is.
	Unsaved string
}

// keeper stands before the sink of the ledger. It remembers the head, delivers
// nothing to a ledger that lacks it, and tells what is wrong.
//
// The ledger is compared with the head before the first delivery and before each
// one that follows a failure: then the plugin may be a fresh instance that knows
// no head, and the file another one. As long as deliveries succeed the plugin
// compares the end of the chain inside each transaction, and the host that the
// file is the one it opened.
type keeper struct {
	queue.Sink
	path, file string // of the ledger, of the remembered head
	places     *places
	log        *slog.Logger
	stop       context.CancelFunc
	done       chan struct{}
	recent     chan struct{} // capacity 1: something was delivered

	doubt bool // look before the next delivery; owned by the drainer's goroutine

	look sync.Mutex // held while the ledger is looked at and the head saved

	mu       sync.Mutex // guards what follows
	state    LedgerState
	told     time.Time // when the trouble was logged last
	toldText string    // and what
}

// keep begins to look after a ledger whose head is that of the last run, or now.
// What the sink says of places goes to those of places.
func keep(sink queue.Sink, path, file string, head Head, places *places, log *slog.Logger) *keeper {
	ctx, stop := context.WithCancel(context.Background())
	k := &keeper{Sink: sink, path: path, file: file, places: places, log: log, stop: stop,
		done: make(chan struct{}), recent: make(chan struct{}, 1), doubt: true}
	k.state.Head = head
	go k.run(ctx) // joined by Close
	return k
}

func (k *keeper) run(ctx context.Context) {
	defer close(k.done)
	idle := time.NewTicker(idleEvery)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-idle.C:
		case <-k.recent:
			soon := time.NewTimer(headEvery)
			select {
			case <-soon.C:
			case <-ctx.Done():
				soon.Stop()
				return
			}
		}
		var back *WentBackError
		switch err := k.remember(ctx); {
		case errors.As(err, &back):
			k.failed(FaultWentBack, err.Error())
		case err == nil && k.State().Trouble.Fault == FaultWentBack:
			k.works() // it is back, though no event may come that would show it
		}
	}
}

// remember looks at the ledger and saves its head. A ledger that does not exist
// yet is no error.
func (k *keeper) remember(ctx context.Context) error {
	k.look.Lock()
	defer k.look.Unlock()
	was := k.State().Head
	now, err := lookAt(ctx, k.path, was)
	if errors.Is(err, fs.ErrNotExist) && was.Sequence == 0 {
		return nil
	}
	if info, e := os.Stat(k.path); e == nil && info.Size() == 0 && was.Sequence == 0 {
		return nil // about to be made
	}
	unsaved := ""
	var format *ledger.FormatError
	changed := errors.As(err, &format) && format.Changed
	k.places.hold(changed)
	switch {
	case changed:
		now, unsaved = was, err.Error() // nothing that it says is believed
	case err != nil:
		return err
	case now.Sequence > was.Sequence || now.Sequence > 0 && k.State().Unsaved != "":
		if err := now.save(k.file); err != nil {
			unsaved = err.Error()
		}
	}
	k.mu.Lock()
	news := unsaved != "" && k.state.Unsaved == ""
	k.state.Head, k.state.Unsaved = now, unsaved
	k.mu.Unlock()
	if news {
		k.log.Error("the ledger's head can't be remembered: what is committed from now on may go back unnoticed", slog.String("error", unsaved))
	}
	return err
}

// Deliver implements queue.Sink.
func (k *keeper) Deliver(ctx context.Context, b *abi.Batch) abi.Result {
	if k.doubt || k.State().Trouble.Fault == FaultWentBack {
		// What else is wrong with the file the plugin finds out itself.
		var back *WentBackError
		if err := k.remember(ctx); errors.As(err, &back) {
			k.doubt = true
			k.failed(FaultWentBack, err.Error())
			return abi.Result{Outcome: abi.Busy, Reason: abi.ReasonWentBack, RetryAfter: headEvery, Detail: err.Error()}
		}
	}
	r := k.Sink.Deliver(ctx, b)
	switch {
	case r.Outcome == abi.OK, r.Outcome == abi.Partial:
		k.doubt = false
		k.works()
		k.places.note(b, &r)
		select {
		case k.recent <- struct{}{}:
		default:
		}
	case r.Outcome.HostMade() && ctx.Err() != nil: // cut short
		k.doubt = true
	default:
		k.doubt = true
		fault, text := faultOf(r), r.Outcome.String()+": "+r.Detail
		// A write that fails for want of space is an I/O error like any other to
		// SQLite, depending on which file it was for.
		if free, ok := spaceAt(filepath.Dir(k.path)); ok && fault == FaultIO && free < leastSpace {
			fault, text = FaultFull, fmt.Sprintf("%s; the ledger's file system has %d bytes left: free some space on its disk", text, free)
		}
		k.failed(fault, text)
	}
	return r
}

// Close remembers the last head and closes the sink.
func (k *keeper) Close(ctx context.Context) error {
	k.halt()
	err := k.remember(ctx) // before the sink writes the log back, which a view would prevent
	var back *WentBackError
	if err != nil && !errors.As(err, &back) {
		k.log.Warn("the ledger's head was not remembered at the end", slog.Any("error", err))
	}
	return k.Sink.Close(ctx)
}

// halt ends the goroutine.
func (k *keeper) halt() {
	k.stop()
	<-k.done
}

// State is a snapshot.
func (k *keeper) State() LedgerState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// failed notes what is wrong, and logs it when that is news or was long ago.
func (k *keeper) failed(f Fault, text string) {
	now := time.Now()
	k.mu.Lock()
	t := &k.state.Trouble
	news := k.toldText != text
	if t.Fault == "" {
		t.Since = now
	}
	t.Fault, t.Text = f, text
	tell := news && now.Sub(k.told) >= time.Second || now.Sub(k.told) >= tellEvery
	if tell {
		k.told, k.toldText = now, text
	}
	since := t.Since
	k.mu.Unlock()
	if !tell {
		return
	}
	level := slog.LevelError
	if f == FaultLocked {
		level = slog.LevelWarn
	}
	message := "the ledger takes nothing: its events are kept in the queue"
	if f == FaultSchema {
		message = "the ledger refuses events as they are: those that it will never take become dead letters"
	}
	k.log.LogAttrs(context.Background(), level, message, slog.String("fault", string(f)),
		slog.Duration("for", now.Sub(since).Round(time.Millisecond)), slog.String("error", text))
}

// works notes that the ledger takes events.
func (k *keeper) works() {
	k.mu.Lock()
	was := k.state.Trouble
	k.state.Trouble, k.toldText = Trouble{}, ""
	k.mu.Unlock()
	if was.Fault != "" {
		k.log.LogAttrs(context.Background(), slog.LevelInfo, "the ledger takes events again", slog.String("fault", string(was.Fault)),
			slog.Duration("after", time.Since(was.Since).Round(time.Millisecond)))
	}
}

// faults are the faults by the reason that the sink gave; 0, and what a later plugin
// says, is FaultOther.
var faults = [...]Fault{
	abi.ReasonOther: FaultOther, abi.ReasonLocked: FaultLocked, abi.ReasonFull: FaultFull, abi.ReasonIO: FaultIO,
	abi.ReasonReadOnly: FaultReadOnly, abi.ReasonNoAccess: FaultAccess, abi.ReasonCorrupt: FaultCorrupt, abi.ReasonFormat: FaultFormat,
	abi.ReasonReplaced: FaultReplaced, abi.ReasonWentBack: FaultWentBack, abi.ReasonSchema: FaultSchema,
}

// faultOf sorts what the sink answered, by its numbers alone. A REJECT is about
// events and not about the ledger, but a ledger whose table was changed says so of
// each.
func faultOf(r abi.Result) Fault {
	if r.Outcome == abi.Reject && r.Reason == abi.ReasonOther {
		return FaultSchema
	}
	return faults[r.Reason.Known()]
}

// checkLedger looks at the ledger before anything is accepted: a path with a
// typing error should stop the start, not park a sink, and so should a ledger that
// went back in time. It returns the head to remember and how far the ledger has
// come in each queue. A ledger that can't be made durable now, for it is locked or
// its disk fails, is none of these: what it shows beyond the remembered head is not
// relied upon, and the sink says what is wrong.
func checkLedger(ctx context.Context, log *slog.Logger, path string, create bool, file string) (now Head, positions map[[16]byte]uint64, err error) {
	was, known, err := ReadHead(file)
	if err != nil {
		return now, nil, fmt.Errorf("%w; audit-host ledger accept-head writes it anew", err)
	}
	info, err := os.Stat(path)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case (missing || err == nil && info.Size() == 0) && known:
		return now, nil, &WentBackError{Was: was, Text: fmt.Sprintf("the ledger %s is gone or empty: it had %d rows at %s", path, was.Sequence, was.At.Format(time.RFC3339))}
	case (missing || err == nil && info.Size() == 0) && create:
		return now, nil, nil // it is about to be made
	case missing:
		return now, nil, fmt.Errorf("there is no ledger %s: audit-host init makes one; if it should be made here, set create = true in [sink.grant.sql] once", path)
	case err != nil:
		return now, nil, fmt.Errorf("look at ledger: %w", err)
	}
	now, positions, undone, err := openHead(ctx, log, path, was, true)
	if err == nil && undone != nil {
		log.Warn("the ledger shows rows that may not be on disk yet: they are written to disk again before the next event", slog.Any("error", undone))
		now = was
	}
	return now, positions, err
}

// openHead reads what checkLedger returns. undone is why what was read is not known
// to be on disk; with write that is mended first.
func openHead(ctx context.Context, log *slog.Logger, path string, was Head, write bool) (now Head, positions map[[16]byte]uint64, undone, err error) {
	l, err := ledger.Open(path)
	if err == nil && write && l.OnDisk() != nil {
		// Killed between a commit and its sync, or after the disk failed.
		if err = l.Close(); err == nil {
			undone = ledger.MakeDurable(ctx, path)
			l, err = ledger.Open(path)
		}
	}
	if err != nil {
		return now, nil, nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if foreign := l.Foreign(); len(foreign) > 0 {
		log.Warn("the ledger's file holds what is not a ledger's: audit-host verify does not call it verified", slog.String("ledger", path), slog.Any("foreign", foreign))
	}
	if now, err = lookInto(ctx, l, path, was); err != nil {
		return now, nil, nil, err
	}
	if positions, err = l.Positions(ctx); err != nil {
		return now, nil, nil, err
	}
	if undone == nil {
		undone = l.OnDisk()
	}
	return now, positions, undone, nil
}
