package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/queue"
)

// ErrReplaying is wrapped by the error of a replay that finds another one under
// way.
var ErrReplaying = errors.New("dead letters are being replayed already; try again when that has ended")

const (
	// replayPage is how many letters are read, replayed and noted at a time.
	replayPage = 256
	// replayTries is how often a letter is offered to a sink that is busy, with a
	// pause of replayPause in between, which doubles.
	replayTries = 6
	replayPause = 50 * time.Millisecond
	// replayTurn bounds the wait for a sink's drainer, which may be waiting itself,
	// and for what it then delivers.
	replayTurn = 2 * time.Minute
	// replayCommit bounds the wait for what goes through the queue.
	replayCommit = 10 * time.Second
)

// Fate is what became of a letter in a replay.
type Fate string

// Fates of letters.
const (
	FateStored  Fate = "stored"  // its sink has the event; the letter is resolved
	FateSkipped Fate = "skipped" // its decision is not recorded; the letter is resolved
	FateRefused Fate = "refused" // refused again, and still open
	FateLater   Fate = "later"   // it could not be said; still open
)

// LetterResult says what became of one letter.
type LetterResult struct {
	DLQID  int64  `json:"dlq_id"`
	Sink   string `json:"sink"`
	ID     string `json:"id"`
	Fate   Fate   `json:"fate"`
	Reason string `json:"reason"` // empty if it was stored
}

// ReplaySummary counts letters.
type ReplaySummary struct {
	Selected uint64 `json:"selected"`
	Stored   uint64 `json:"stored"`
	Skipped  uint64 `json:"skipped"`
	Refused  uint64 `json:"refused"`
	Later    uint64 `json:"later"`
}

// Left is how many of the selected letters are still open.
func (s ReplaySummary) Left() uint64 { return s.Selected - s.Stored - s.Skipped }

// Add counts one letter.
func (s *ReplaySummary) Add(f Fate) {
	switch f {
	case FateStored:
		s.Stored++
	case FateSkipped:
		s.Skipped++
	case FateRefused:
		s.Refused++
	default:
		s.Later++
	}
}

// ReplayOptions say which dead letters are replayed.
type ReplayOptions struct {
	// Filter selects open letters; its State, After and UpTo are not looked at.
	// Limit is how many at most, 0 for all.
	Filter deadletter.Filter
	// Begin is told how many letters there are; Each what became of one, when
	// that is on disk. Both may be nil.
	Begin func(selected uint64)
	Each  func(LetterResult)

	// commit, for tests, comes before and after every step that changes
	// something, and its error ends the replay as a crash would.
	commit func(point string) error
	turn   time.Duration // for tests; 0 is replayTurn
}

// Replay delivers open dead letters to the sinks that refused them. What was
// never an event, because nothing could be made of a client's text, is read again with
// the present configuration and goes through the queue to every sink, for none
// has seen it.
//
// Commit points. An event is first stored by its sink, which knows its id, and
// then its letter is marked. Killed before the first, nothing has happened.
// Killed in between, the letter is open and the event stored: the next replay
// delivers it again, the sink recognises it, and the letter is marked then. Such
// a text gets its id, and its time if it has none, from the letter, so that
// this holds for it too. Letters that come while a replay runs are left to the
// next one.
//
// The summary is true also with an error. The error is about the replay as a
// whole; a sink that is parked or not configured leaves its letters for later and
// is no error.
func (p *Pipeline) Replay(ctx context.Context, o ReplayOptions) (s ReplaySummary, err error) {
	if !p.replaying.TryLock() {
		return s, ErrReplaying
	}
	defer p.replaying.Unlock()
	if o.commit == nil {
		o.commit = func(string) error { return nil }
	}
	if o.turn == 0 {
		o.turn = replayTurn
	}
	f := o.Filter
	f.State, f.After, f.UpTo = deadletter.StateOpen, 0, 0
	tally, err := p.Letters.Tally(ctx, f)
	if err != nil {
		return s, err
	}
	s.Selected = tally.Open
	if f.Limit > 0 {
		s.Selected = min(s.Selected, uint64(f.Limit))
	}
	if o.Begin != nil {
		o.Begin(s.Selected)
	}
	r := replayer{p: p, o: o, s: &s, given: map[string]string{}}
	if r.revive, err = Revive(p.cfg); err != nil {
		return s, err
	}
	f.UpTo = tally.Last
	for left := int(s.Selected); left > 0; {
		f.Limit = min(left, replayPage)
		page, err := p.Letters.List(ctx, f)
		if ctx.Err() != nil {
			return s, ctx.Err() // SQLite's word for it tells nobody what to do
		}
		if err != nil || len(page) == 0 {
			return s, err
		}
		if err := r.page(ctx, page); err != nil {
			return s, err
		}
		f.After = page[len(page)-1].DLQID
		left -= len(page)
	}
	return s, nil
}

// replayer is a replay under way.
type replayer struct {
	p      *Pipeline
	o      ReplayOptions
	s      *ReplaySummary
	revive func(*deadletter.Letter) (abi.Event, bool, error)
	// given are the sinks that are not asked any more, with the reason.
	given map[string]string
}

// attempt is one letter of a page on its way.
type attempt struct {
	letter *deadletter.Letter
	fate   Fate
	note   deadletter.Replay
}

// page replays some letters and notes what became of them. Those of one sink go
// together, in their order.
func (r *replayer) page(ctx context.Context, page []deadletter.Letter) error {
	all := make([]attempt, len(page))
	of := map[string][]*attempt{}
	var sinks []string
	for i := range page {
		l := &page[i]
		all[i] = attempt{letter: l, fate: FateLater}
		if of[l.Sink] == nil {
			sinks = append(sinks, l.Sink)
		}
		of[l.Sink] = append(of[l.Sink], &all[i])
	}
	for _, sink := range sinks {
		if err := r.o.commit("before the delivery"); err != nil {
			return err
		}
		var err error
		if strings.HasPrefix(sink, refusedOf) {
			err = r.submit(ctx, of[sink])
		} else {
			err = r.deliver(ctx, sink, of[sink])
		}
		if err == nil {
			err = r.o.commit("after the delivery")
		}
		if err != nil {
			return err
		}
	}
	var notes []deadletter.Replay
	now := time.Now()
	for i := range all {
		a := &all[i]
		a.note.DLQID, a.note.At, a.note.Refused = a.letter.DLQID, now, a.fate == FateRefused
		if a.fate != FateLater || a.note.Attempts > 0 {
			notes = append(notes, a.note)
		}
	}
	// What was done must be noted also when the caller has gone.
	if err := r.p.Letters.RecordReplays(context.WithoutCancel(ctx), notes); err != nil {
		return err
	}
	if err := r.o.commit("after the mark"); err != nil {
		return err
	}
	for i := range all {
		a := &all[i]
		r.s.Add(a.fate)
		if r.o.Each != nil {
			res := LetterResult{DLQID: a.letter.DLQID, Sink: a.letter.Sink, ID: a.letter.Event.ID, Fate: a.fate, Reason: a.note.Reason}
			if a.fate == FateSkipped {
				res.Reason = a.note.Resolution
			}
			r.o.Each(res)
		}
	}
	return ctx.Err()
}

// deliver replays letters of one sink. It asks a busy sink a few times more.
func (r *replayer) deliver(ctx context.Context, sink string, some []*attempt) error {
	for try, pause := 1, replayPause; len(some) > 0; try, pause = try+1, 2*pause {
		if ctx.Err() != nil {
			r.given[sink] = "interrupted" // nothing more is handed over
		}
		if why, gone := r.given[sink]; gone {
			for _, a := range some {
				a.note.Outcome, a.note.Reason = abi.Retry, why
			}
			return nil
		}
		letters := make([]abi.DeadLetter, len(some))
		for i, a := range some {
			letters[i] = a.letter.DeadLetter
		}
		turn, cancel := context.WithTimeout(ctx, r.o.turn)
		results, err := r.p.Recorder.Replay(turn, sink, letters)
		cancel()
		switch {
		case err == nil:
		case errors.Is(err, queue.ErrParked):
			r.given[sink] = "the sink is parked: audit-host sink resume " + sink
		case errors.Is(err, queue.ErrNoSink):
			r.given[sink] = "no sink of that name runs"
		case ctx.Err() != nil || errors.Is(err, queue.ErrClosed):
			r.given[sink] = "interrupted" // and what was stored so far is noted
		case errors.Is(err, context.DeadlineExceeded):
			r.given[sink] = "the sink does not get on with its queue, see audit-host sink list"
		default:
			return err
		}
		some = r.sort(sink, some, results)
		if len(some) == 0 || try == replayTries {
			return nil
		}
		if _, gone := r.given[sink]; gone {
			continue
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return nil
}

// sort notes results and returns the letters that have none yet. A sink that
// ends at letter after letter and stores none is given up.
func (r *replayer) sort(sink string, some []*attempt, results []queue.Replayed) (left []*attempt) {
	stored, ended := 0, ""
	for i, a := range some {
		res := &results[i]
		a.note.Attempts += res.Attempts
		a.note.Outcome, a.note.Reason, a.note.Stderr, a.note.Plugin = res.Outcome, res.Reason, res.Stderr, res.Plugin
		switch res.Fate {
		case queue.ReplayStored:
			a.fate, a.note.Resolution = FateStored, "stored by the sink"
			stored++
		case queue.ReplayRefused:
			a.fate = FateRefused
			if res.Outcome.HostMade() {
				ended = res.Outcome.String() + ": " + res.Reason
			}
		default:
			left = append(left, a)
		}
	}
	if ended != "" && stored == 0 && len(left) > 0 {
		r.given[sink] = "the sink ends at every letter, the last time with " + ended
	}
	return left
}

// submit sends what a client sent through the queue, now that it may be readable.
func (r *replayer) submit(ctx context.Context, some []*attempt) error {
	type waiting struct {
		a  *attempt
		e  abi.Event
		rc queue.Receipt
	}
	var sent []waiting
	for _, a := range some {
		e, recorded, err := r.revive(a.letter)
		if err != nil {
			a.fate, a.note.Outcome, a.note.Reason = FateRefused, abi.Reject, err.Error()
			continue
		}
		if !recorded {
			a.fate, a.note.Resolution = FateSkipped, "its decision is not recorded"
			continue
		}
		rc, err := r.p.Recorder.Submit(ctx, e)
		switch {
		case err == nil:
			sent = append(sent, waiting{a, e, rc})
		case errors.Is(err, queue.ErrFull), errors.Is(err, queue.ErrClosed), errors.Is(err, queue.ErrFailed), ctx.Err() != nil:
			a.note.Outcome, a.note.Reason = abi.Busy, err.Error()
		default:
			a.fate, a.note.Outcome, a.note.Reason = FateRefused, abi.Reject, err.Error()
		}
	}
	wait, cancel := context.WithTimeout(ctx, replayCommit)
	defer cancel()
	for _, w := range sent {
		if err := w.rc.Wait(wait, queue.Committed); err != nil {
			w.a.note.Outcome, w.a.note.Reason = abi.Busy, fmt.Sprintf("it is in the queue and not committed yet: %v", err)
			continue
		}
		at, _ := w.rc.Seq()
		landed, found, err := r.p.lookup.Find(ctx, at, w.e.ID, sha256.Sum256(w.e.Payload))
		switch {
		case err != nil:
			w.a.note.Outcome, w.a.note.Reason = abi.Busy, err.Error()
		case found && landed.DeadLetter != "":
			w.a.fate, w.a.note.Resolution = FateStored, "recorded; now a dead letter of its sink: "+landed.DeadLetter
		case found:
			w.a.fate, w.a.note.Resolution = FateStored, fmt.Sprintf("recorded, row %d of the ledger", landed.Sequence)
		default:
			w.a.fate, w.a.note.Resolution = FateStored, "recorded"
		}
		if w.a.fate == FateStored {
			w.a.note.Attempts = 1
		}
	}
	return nil
}

// Bounds of the replay at the start.
const (
	startLetters = 10_000
	startTime    = time.Minute
)

// ReplayAtStart replays what [dead_letters] replay_at_start asks for and logs
// what came of it. It is bounded, in letters and in time, and what it can't do
// stops nobody.
func (p *Pipeline) ReplayAtStart(ctx context.Context, log *slog.Logger) {
	bounded, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	s, err := p.Replay(bounded, ReplayOptions{
		Filter: deadletter.Filter{Limit: startLetters},
		Each: func(l LetterResult) {
			if l.Fate != FateStored {
				log.Warn("dead letter not replayed at the start", slog.Int64("dlq_id", l.DLQID), slog.String("sink", l.Sink),
					slog.String("fate", string(l.Fate)), slog.String("reason", l.Reason))
			}
		},
	})
	attrs := []any{slog.Uint64("selected", s.Selected), slog.Uint64("stored", s.Stored), slog.Uint64("skipped", s.Skipped),
		slog.Uint64("refused", s.Refused), slog.Uint64("later", s.Later)}
	if err != nil && ctx.Err() == nil {
		log.Error("replay of dead letters at the start was cut short", append(attrs, slog.Any("error", err))...)
		return
	}
	log.Info("replayed dead letters at the start", attrs...)
}
