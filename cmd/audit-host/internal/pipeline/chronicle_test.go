package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/queue"
)

// told reads the events about plugins back from the ledger, in order.
func told(t *testing.T, database string) (list []event.Plugin, others int) {
	t.Helper()
	l, err := ledger.Open(database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	for row, err := range l.Rows(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(row.EventType, event.TypePlugin) {
			others++
			continue
		}
		var payload struct {
			Action event.Plugin `json:"action"`
		}
		if err := json.Unmarshal([]byte(row.Payload), &payload); err != nil {
			t.Fatal(err)
		}
		if p := payload.Action; row.EventType != event.TypePlugin+p.What || row.AgentID != event.HostAgent || row.Signature != nil {
			t.Errorf("%+v", row)
		}
		list = append(list, payload.Action)
	}
	return list, others
}

const chronicled = `
[http]
address = ""
[record]
plugin_events = true
[[sink]]
name = "ledger"
plugin = "sink-sqlite"
grant.sql = {database = "ledger.db", create = true}
[[sink]]
name = "mock"
plugin = "sink-mock"
required = false
`

// A load, a crash and a dead letter stand in the ledger, with the digest of the
// code.
func TestPluginEvents(t *testing.T) {
	cfg := parse(t, chronicled+`config.rules = [{ do = "trap", contains = "poison" }]`)
	p := open(t, cfg, false)
	if _, err := p.Recorder.Submit(t.Context(), refusal(t, "poison")); err != nil {
		t.Fatal(err)
	}
	for p.Recorder.Metrics().Sinks[1].DLQLanded == 0 {
		<-time.After(time.Millisecond)
	}
	digest := p.seats[1].State().Digest
	if report := closeAll(t, p); report.Remained != 0 {
		t.Errorf("%+v", report)
	}
	list, others := told(t, cfg.Sinks[0].Grant.SQL.Database)
	var kinds []string
	for _, e := range list {
		kinds = append(kinds, e.What+" "+e.Sink)
		if e.Sink == "mock" && (e.Name != "sink-mock" || e.Digest != digest || e.Version == "") {
			t.Errorf("%+v", e)
		}
	}
	slices.Sort(kinds)
	want := []string{"dead_letter mock", "loaded ledger", "loaded mock", "trapped mock", "trapped mock"}
	if others != 1 || len(slices.Compact(kinds)) != 4 || !slices.Equal(kinds[:4], slices.Compact(want)) {
		t.Errorf("%q, %d others", kinds, others)
	}
	for _, e := range list {
		switch {
		case e.What == event.PluginTrapped && (e.Outcome != "TRAP" || e.Detail != "panic: sink-mock: trap, as scripted" || e.Events == 0):
			t.Errorf("%+v", e)
		case e.What == event.PluginDeadLetter && (e.Outcome != "TRAP" || e.Events != 1 || !strings.HasPrefix(e.Detail, "first ")):
			t.Errorf("%+v", e)
		}
	}
}

// A sink that crashes on everything parks, and that is all there is to tell;
// after it was resumed it parks again.
func TestPluginEventsOfAParkedSink(t *testing.T) {
	cfg := parse(t, chronicled+"max_restarts = 1\nconfig.rules = [{ do = \"trap\" }]")
	p := open(t, cfg, false)
	parked := func() {
		for p.Recorder.Metrics().Sinks[1].Parked == "" {
			<-time.After(time.Millisecond)
		}
		<-time.After(chronicleLook + chronicleLook/2)
	}
	if _, err := p.Recorder.Submit(t.Context(), refusal(t, "x")); err != nil {
		t.Fatal(err)
	}
	parked()
	if err := p.Recorder.Resume("mock"); err != nil {
		t.Fatal(err)
	}
	parked()
	if _, err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, others := told(t, cfg.Sinks[0].Grant.SQL.Database)
	count := map[string]int{}
	for _, e := range list {
		count[e.What]++
		if e.What == event.PluginParked && e.Detail == "" {
			t.Errorf("%+v", e)
		}
	}
	if others != 1 || count[event.PluginParked] == 0 || count[event.PluginParked] > 2 || count[event.PluginTrapped] > 10 || len(list) > 20 {
		t.Errorf("%v, %d others", count, others)
	}
}

// Without the key nothing is told.
func TestNoPluginEventsByDefault(t *testing.T) {
	cfg := parse(t, sample)
	p := open(t, cfg, false)
	if _, err := p.Recorder.Submit(t.Context(), refusal(t, "x")); err != nil {
		t.Fatal(err)
	}
	closeAll(t, p)
	if list, others := told(t, cfg.Sinks[0].Grant.SQL.Database); list != nil || others != 1 {
		t.Errorf("%v, %d others", list, others)
	}
}

// answers is a sink that answers the same every time.
type answers abi.Result

func (a answers) Deliver(context.Context, *abi.Batch) abi.Result { return abi.Result(a) }
func (a answers) Close(context.Context) error                    { return nil }

// nowhere is where dead letters vanish, or are refused.
type nowhere struct{ err error }

func (n nowhere) Put(context.Context, []abi.DeadLetter) error { return n.err }

// quiet is a chronicle of one sink that submits into a list.
func quiet(list *[]event.Plugin, metrics *atomic.Pointer[queue.Metrics], fail *error) *chronicle {
	c := newChronicle([]*seat{{name: "ledger", state: PluginState{Sink: "ledger", Name: "p", Digest: "d"}}}, slog.New(slog.DiscardHandler))
	c.metrics = func() queue.Metrics { return *metrics.Load() }
	c.submit = func(_ context.Context, e abi.Event) error {
		var payload struct {
			Action event.Plugin `json:"action"`
		}
		if err := json.Unmarshal(e.Payload, &payload); err != nil {
			return err
		}
		if *fail == nil {
			*list = append(*list, payload.Action)
		}
		return *fail
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go c.run(ctx)
	return c
}

// There is no stream without an end: of what there is too much, a number is
// told.
func TestChronicleIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list []event.Plugin
		var metrics atomic.Pointer[queue.Metrics]
		metrics.Store(&queue.Metrics{})
		var fail error
		c := quiet(&list, &metrics, &fail)
		sink := c.watch("ledger", answers{Outcome: abi.Trap, Detail: "why\nwhere"})
		refused, own := refusal(t, "a"), abi.Event{EventType: event.TypePlugin + event.PluginTrapped}
		for range 1000 {
			sink.Deliver(t.Context(), &abi.Batch{Events: []abi.Event{own, refused}})
			synctest.Wait()
		}
		if len(list) != 1+chronicleBurst || list[0].What != event.PluginLoaded || list[1].Detail != "why" || list[1].Outcome != "TRAP" || list[1].Events != 2 {
			t.Fatalf("%+v", list)
		}
		<-time.After(chronicleEvery)
		sink.Deliver(t.Context(), &abi.Batch{Events: []abi.Event{refused}})
		synctest.Wait()
		if last := list[len(list)-1]; len(list) != 2+chronicleBurst || last.Suppressed != 1000-chronicleBurst {
			t.Errorf("%+v", last)
		}

		// Of a crash on such events alone nothing is told, nor of one that only
		// means that the host ends, nor of an answer.
		n := len(list)
		sink.Deliver(t.Context(), &abi.Batch{Events: []abi.Event{own, own}})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		sink.Deliver(ended, &abi.Batch{Events: []abi.Event{refused}})
		c.watch("ledger", answers{Outcome: abi.Reject}).Deliver(t.Context(), &abi.Batch{Events: []abi.Event{refused}})
		letters := c.letters(nowhere{})
		_ = letters.Put(t.Context(), []abi.DeadLetter{{Sink: "ledger", Event: own}, {Sink: "unknown", Event: refused}})
		if err := c.letters(nowhere{errors.New("full")}).Put(t.Context(), []abi.DeadLetter{{Sink: "ledger", Event: refused}}); err == nil {
			t.Error("a letter that could not be stored was told as stored")
		}
		synctest.Wait()
		if len(list) != n {
			t.Errorf("%+v", list[n:])
		}
		_ = letters.Put(t.Context(), []abi.DeadLetter{{Sink: "ledger", Event: refused}, {Sink: "ledger", Event: refused}, {Sink: "ledger", Event: own}})
		synctest.Wait()
		if len(list) != n+1 || list[n].What != event.PluginDeadLetter || list[n].Events != 2 {
			t.Errorf("%+v", list[n:])
		}

		// Parked and resumed, each once.
		n = len(list)
		for _, reason := range []string{"why", "", "again", ""} {
			metrics.Store(&queue.Metrics{Sinks: []queue.SinkMetrics{{Name: "ledger", Parked: reason}, {Name: "other", Parked: "x"}}})
			<-time.After(3 * chronicleLook)
			synctest.Wait()
		}
		if len(list) != n+4 || list[n].What != event.PluginParked || list[n].Detail != "why" || list[n+1].What != event.PluginResumed || list[n+3].Detail != "" {
			t.Errorf("%+v", list[n:])
		}

		// What could not be recorded is counted in the next.
		n, fail = len(list), errors.New("full")
		_ = letters.Put(t.Context(), []abi.DeadLetter{{Sink: "ledger", Event: refused}})
		synctest.Wait()
		fail = nil
		_ = letters.Put(t.Context(), []abi.DeadLetter{{Sink: "ledger", Event: refused}})
		c.halt(t.Context())
		if len(list) != n+1 || list[n].Suppressed != 1 {
			t.Errorf("%+v", list[n:])
		}
	})
}

// A sink is not held up by a queue that takes nothing, and neither is the end.
func TestChronicleNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list []event.Plugin
		var fail error
		c := newChronicle(nil, slog.New(slog.DiscardHandler))
		c.metrics = func() queue.Metrics { return queue.Metrics{} }
		c.seats = []*seat{{name: "ledger", state: PluginState{Sink: "ledger"}}}
		c.submit = func(ctx context.Context, _ abi.Event) error { <-ctx.Done(); return ctx.Err() }
		ctx, cancel := context.WithCancel(context.Background())
		c.cancel = cancel
		go c.run(ctx)
		sink := c.watch("ledger", answers{Outcome: abi.Trap})
		for range 10 * chronicleRoom {
			sink.Deliver(t.Context(), &abi.Batch{Events: []abi.Event{refusal(t, "a")}})
		}
		begin := time.Now()
		bound, cancelBound := context.WithTimeout(t.Context(), time.Second)
		defer cancelBound()
		c.halt(bound)
		if time.Since(begin) > time.Second || len(list) != 0 || fail != nil {
			t.Errorf("it took %v", time.Since(begin))
		}
		var none *chronicle
		none.halt(t.Context())
	})
}
