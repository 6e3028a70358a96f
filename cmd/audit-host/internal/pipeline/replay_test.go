package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/queue"
)

// twoSinks has a ledger and a mock with rules.
func twoSinks(t *testing.T, rules string) *config.Config {
	t.Helper()
	return parse(t, sample+"[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nconfig.rules = ["+rules+"]\n")
}

// ledgerIDs are the ids of the ledger's rows, in order.
func ledgerIDs(t *testing.T, cfg *config.Config) []string {
	t.Helper()
	l, err := ledger.Open(cfg.Sinks[0].Grant.SQL.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var ids []string
	for row, err := range l.Rows(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, row.ID)
	}
	return ids
}

// opaElement is what OPA sends; without an id one has to be made.
func opaElement(id, agent string) []byte {
	if id != "" {
		id = fmt.Sprintf(`"decision_id":%q,`, id)
	}
	return fmt.Appendf(nil, `{%s"input":{"caller":%q},"result":false}`, id, agent)
}

// seedLetters puts one letter of each kind: refused by the ledger, by the mock, by
// a sink that is gone, and four of OPA.
func seedLetters(t *testing.T, p *Pipeline) (ledger, mock abi.Event) {
	t.Helper()
	ledger, mock = refusal(t, "agent:ledger"), refusal(t, "agent:mock")
	failed := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	letter := func(e abi.Event, sink string) abi.DeadLetter {
		return abi.DeadLetter{Event: e, Sink: sink, Outcome: abi.Trap, Reason: "then", Attempts: 2, FailedAt: failed}
	}
	opa := func(raw []byte) abi.DeadLetter {
		return abi.DeadLetter{Raw: raw, Sink: RefusedSink("opa"), Outcome: abi.Reject, Reason: "then", FailedAt: failed}
	}
	if err := p.Letters.Put(t.Context(), []abi.DeadLetter{
		letter(ledger, "ledger"), letter(mock, "mock"), letter(refusal(t, "agent:gone"), "gone"),
		opa(opaElement("d1", "agent:opa")), opa(opaElement("", "agent:nameless")), opa([]byte("17")),
		opa([]byte(strings.Replace(string(opaElement("d2", "a")), "false", "true", 1))),
	}); err != nil {
		t.Fatal(err)
	}
	return ledger, mock
}

// withCaller has the configuration find the agent in what OPA sends.
func withCaller(cfg *config.Config) *config.Config {
	cfg.HTTP.OPA.Agent = []string{"/input/caller"}
	return cfg
}

func states(t *testing.T, p *Pipeline) string {
	t.Helper()
	all, err := p.Letters.List(t.Context(), deadletter.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range all {
		state := "open"
		if !all[i].ResolvedAt.IsZero() {
			state = "resolved"
		}
		out = append(out, state)
	}
	return strings.Join(out, " ")
}

func TestReplay(t *testing.T) {
	cfg := withCaller(twoSinks(t, ""))
	p := open(t, cfg, false)
	ledger, _ := seedLetters(t, p)
	var selected uint64
	fates := map[int64]string{}
	run := func(f deadletter.Filter) ReplaySummary {
		t.Helper()
		clear(fates)
		s, err := p.Replay(t.Context(), ReplayOptions{Filter: f, Begin: func(n uint64) { selected = n },
			Each: func(l LetterResult) { fates[l.DLQID] = string(l.Fate) + " " + l.Reason }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := p.Recorder.Metrics().Sinks
	if s := run(deadletter.Filter{IDs: []int64{1}}); s != (ReplaySummary{Selected: 1, Stored: 1}) || s.Left() != 0 {
		t.Errorf("one: %+v", s)
	}
	if got := ledgerIDs(t, cfg); !slices.Equal(got, []string{ledger.ID}) {
		t.Errorf("rows %q", got)
	}
	after := p.Recorder.Metrics().Sinks
	if after[0].Replayed != 1 || after[1].Replayed != 0 || after[0].Appended != before[0].Appended || after[1].Batches != before[1].Batches {
		t.Errorf("%+v", after)
	}
	s := run(deadletter.Filter{})
	if s != (ReplaySummary{Selected: 6, Stored: 3, Skipped: 1, Refused: 1, Later: 1}) || selected != 6 || s.Left() != 2 {
		t.Errorf("the rest: %+v of %d", s, selected)
	}
	for id, want := range map[int64]string{2: "stored ", 3: "later no sink of that name runs", 4: "stored ", 5: "stored ",
		6: "refused read decision-log element: byte 0: must be an object, found a number", 7: "skipped its decision is not recorded"} {
		if fates[id] != want {
			t.Errorf("letter %d: %q, want %q", id, fates[id], want)
		}
	}
	if got := states(t, p); got != "resolved resolved open resolved resolved open resolved" {
		t.Errorf("%s", got)
	}
	nameless, err := p.Letters.Get(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	if got := ledgerIDs(t, cfg); !slices.Equal(got, []string{ledger.ID, "d1", nameless.Event.ID}) {
		t.Errorf("rows %q", got)
	}
	if nameless.Resolution != "recorded, row 3 of the ledger" {
		t.Errorf("%+v", nameless)
	}
	// Once more: what is left is left, and nothing lands twice.
	if s := run(deadletter.Filter{Limit: 1}); s != (ReplaySummary{Selected: 1, Later: 1}) {
		t.Errorf("again: %+v", s)
	}
	if l, err := p.Letters.Get(t.Context(), 3); err != nil || l.Replays != 0 || l.Reason != "then" {
		t.Errorf("a letter that was not delivered: %+v, %v", l, err)
	}
	if l, err := p.Letters.Get(t.Context(), 6); err != nil || l.Replays != 1 || !strings.Contains(l.Reason, "found a number") {
		t.Errorf("a letter that was refused: %+v, %v", l, err)
	}
	closeAll(t, p)
}

// What is refused again keeps the new reason, and is counted.
func TestReplayRefusedAgain(t *testing.T) {
	cfg := twoSinks(t, `{do = "trap", text = "still"}`)
	p := open(t, cfg, false)
	_, mock := seedLetters(t, p)
	s, err := p.Replay(t.Context(), ReplayOptions{Filter: deadletter.Filter{Sink: "mock"}})
	if err != nil || s.Refused != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	l, err := p.Letters.Get(t.Context(), 2)
	if err != nil || l.Outcome != abi.Trap || l.Attempts != 3 || l.Replays != 1 || !strings.Contains(l.Stderr, "sink-mock: still") ||
		l.Reason == "then" || l.Plugin == "" || l.Event.ID != mock.ID || !l.ResolvedAt.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
	if m := p.Recorder.Metrics().Sinks[1]; m.ReplayRefused != 1 || m.Parked != "" || m.DLQLanded != 0 {
		t.Errorf("%+v", m)
	}
	closeAll(t, p)
}

// A sink that is busy is asked a few times; one that ends at everything is given
// up; neither takes long.
func TestReplayGivesUp(t *testing.T) {
	for rules, c := range map[string]struct{ replays, refused int }{
		`{do = "busy", pause_ms = 60000, text = "locked"}`: {1, 0},
		`{do = "trap"}`: {1, 5},
	} {
		p := open(t, twoSinks(t, rules), false)
		var letters []abi.DeadLetter
		for range 40 {
			letters = append(letters, abi.DeadLetter{Event: refusal(t, "agent:a"), Sink: "mock", FailedAt: time.Now()})
		}
		if err := p.Letters.Put(t.Context(), letters); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		reason := ""
		s, err := p.Replay(t.Context(), ReplayOptions{Each: func(l LetterResult) { reason = l.Reason }})
		if err != nil || int(s.Refused) != c.refused || int(s.Later) != 40-c.refused || s.Stored != 0 || reason == "" {
			t.Errorf("%s: %+v, %v, the last one: %q", rules, s, err, reason)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s: took %v", rules, took)
		}
		closeAll(t, p)
	}
}

// A drainer that waits for its sink has no turn for a replay: the letters are left.
func TestReplayHasNoTurn(t *testing.T) {
	p := open(t, twoSinks(t, `{do = "busy", pause_ms = 60000}`), false)
	_, mock := seedLetters(t, p)
	rc, err := p.Recorder.Submit(t.Context(), refusal(t, "agent:a"))
	if err != nil {
		t.Fatal(err)
	}
	for p.Recorder.Metrics().Sinks[1].Busies == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the mock was never asked")
		}
	}
	var got LetterResult
	s, err := p.Replay(t.Context(), ReplayOptions{Filter: deadletter.Filter{Sink: "mock"}, Each: func(l LetterResult) { got = l }, turn: 10 * time.Millisecond})
	if err != nil || s.Later != 1 || got.ID != mock.ID || !strings.Contains(got.Reason, "does not get on with its queue") {
		t.Errorf("%+v, %+v, %v", s, got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var left *queue.RemainingError
	if report, err := p.Close(ctx); !errors.As(err, &left) || report.Remained != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if err := rc.Wait(t.Context(), queue.Committed); err == nil {
		t.Error("committed")
	}
}

var errCrash = errors.New("crash")

// Killed before and after every commit point of a replay, and replayed by the
// next process: each event is in the ledger once and each letter is resolved.
func TestReplayCrashes(t *testing.T) {
	for n := 1; ; n++ {
		cfg := withCaller(twoSinks(t, ""))
		p := open(t, cfg, false)
		ledger, _ := seedLetters(t, p)
		points, crashed := 0, ""
		_, err := p.Replay(t.Context(), ReplayOptions{commit: func(point string) error {
			if points++; points == n {
				crashed = point
				return errCrash
			}
			return nil
		}})
		if (crashed != "") != errors.Is(err, errCrash) {
			t.Errorf("point %d: %v", n, err)
		}
		// The process is gone with all that it knew; what it had stored is there.
		closeAll(t, p)
		p = open(t, cfg, false)
		for range 2 {
			if _, err := p.Replay(t.Context(), ReplayOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if got := states(t, p); got != "resolved resolved open resolved resolved open resolved" {
			t.Errorf("crashed %s (%d): %s", crashed, n, got)
		}
		nameless, err := p.Letters.Get(t.Context(), 5)
		if err != nil {
			t.Fatal(err)
		}
		closeAll(t, p)
		if got := ledgerIDs(t, cfg); !slices.Equal(got, []string{ledger.ID, "d1", nameless.Event.ID}) {
			t.Errorf("crashed %s (%d): rows %q", crashed, n, got)
		}
		if crashed == "" {
			if n < 9 {
				t.Errorf("only %d points", n-1)
			}
			return
		}
	}
}

func TestReplayOneAtATime(t *testing.T) {
	p := open(t, withCaller(twoSinks(t, "")), false)
	seedLetters(t, p)
	if _, err := p.Replay(t.Context(), ReplayOptions{Begin: func(uint64) {
		if _, err := p.Replay(t.Context(), ReplayOptions{}); !errors.Is(err, ErrReplaying) {
			t.Errorf("a second one: %v", err)
		}
	}}); err != nil {
		t.Error(err)
	}
	closeAll(t, p)
}

// Interrupted after the sink has stored an event: that is noted all the same.
func TestReplayInterrupted(t *testing.T) {
	cfg := twoSinks(t, "")
	p := open(t, cfg, false)
	seedLetters(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := p.Replay(ctx, ReplayOptions{Filter: deadletter.Filter{IDs: []int64{1, 2}}, commit: func(point string) error {
		if point == "after the delivery" {
			cancel()
		}
		return nil
	}})
	if !errors.Is(err, context.Canceled) || s.Stored != 1 || s.Left() != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if got := states(t, p); !strings.HasPrefix(got, "resolved open") {
		t.Errorf("%s", got)
	}
	closeAll(t, p)
}

func TestReplayAtStart(t *testing.T) {
	p := open(t, twoSinks(t, `{do = "trap"}`), false)
	seedLetters(t, p)
	var b strings.Builder
	p.ReplayAtStart(t.Context(), slog.New(slog.NewTextHandler(&b, nil)))
	for _, want := range []string{"selected=7 stored=1 skipped=0 refused=5 later=1", "sink=mock fate=refused", "sink=gone fate=later"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in %s", want, b.String())
		}
	}
	b.Reset()
	if err := p.Letters.Close(); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	p.ReplayAtStart(gone, slog.New(slog.NewTextHandler(&b, nil)))
	if strings.Contains(b.String(), "level=ERROR") {
		t.Errorf("a shutdown is no error: %s", b.String())
	}
	closeAll(t, p)
}

// What a letter can come to is told without any sink.
func TestRevivable(t *testing.T) {
	cfg := withCaller(twoSinks(t, ""))
	revive, err := Revive(cfg)
	if err != nil {
		t.Fatal(err)
	}
	good := refusal(t, "agent:a")
	forged := good
	forged.EventType = "governance.allow"
	for i, c := range []struct {
		l        abi.DeadLetter
		recorded bool
		want     string
	}{
		{abi.DeadLetter{Event: good, Sink: "ledger"}, true, ""},
		{abi.DeadLetter{Event: forged, Sink: "ledger"}, true, "event_type"},
		{abi.DeadLetter{Event: good, Sink: "gone"}, true, `no sink named "gone"`},
		{abi.DeadLetter{Event: abi.Event{ID: good.ID}, Raw: abi.AppendRecord(nil, &good), Sink: "mock"}, true, ""},
		{abi.DeadLetter{Event: abi.Event{ID: "x"}, Raw: []byte("garbage"), Sink: "mock"}, true, "malformed event record"},
		{abi.DeadLetter{Raw: opaElement("d", "a"), Sink: RefusedSink("opa")}, true, ""},
		{abi.DeadLetter{Raw: []byte("17"), Sink: RefusedSink("opa")}, false, "must be an object"},
		{abi.DeadLetter{Raw: []byte("17"), Sink: RefusedSink("gone")}, false, `reads no format "gone"`},
		{abi.DeadLetter{Raw: []byte(strings.Repeat(" ", 1<<17)), Sink: RefusedSink("opa")}, false, "at most 64KiB are taken"},
	} {
		recorded, err := Revivable(cfg, revive, &deadletter.Letter{DeadLetter: c.l})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || recorded != c.recorded {
			t.Errorf("%d: %v, %v; want %v, %q", i, recorded, err, c.recorded, c.want)
		}
	}
	// Twice the same text is the same event, also without an id and a time.
	l := deadletter.Letter{DeadLetter: abi.DeadLetter{Raw: opaElement("", "a"), Sink: RefusedSink("opa"), FailedAt: time.Unix(1e9, 5)}}
	l.Event.ID = "sha256:x"
	one, _, err := revive(&l)
	two, _, err2 := revive(&l)
	if err != nil || err2 != nil || one.ID != l.Event.ID || string(one.Payload) != string(two.Payload) || one.Timestamp != "2001-09-09T01:46:40.000000005+00:00" {
		t.Errorf("%+v, %+v, %v", one, two, err)
	}
}
