//go:build !wasip1

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/internal/plugintest"
)

var cache *host.Cache

// TestMain keeps compiled code for the whole run.
func TestMain(m *testing.M) { os.Exit(plugintest.Main(m, &cache)) }

// recorded collects what the plugin says that it stored, and counts its other
// lines.
type recorded struct {
	mu    sync.Mutex
	ids   []string
	other int
}

func (r *recorded) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorded) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorded) WithGroup(string) slog.Handler            { return r }
func (r *recorded) Handle(_ context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec.Attrs(func(a slog.Attr) bool {
		if a.Key == "text" {
			if lines := strings.Split(a.Value.String(), "\n"); lines[0] == "stored" {
				r.ids = append(r.ids, lines[1:]...)
			} else {
				r.other++
			}
		}
		return true
	})
	return nil
}

func openMock(t *testing.T, config string, change func(*host.Options)) (*host.Sink, *recorded, error) {
	t.Helper()
	r := &recorded{}
	o := host.Options{Name: "mock", Cache: cache, Config: []byte(config), Log: slog.New(r)}
	if change != nil {
		change(&o)
	}
	s, err := plugintest.Open(t, "sink-mock", o)
	return s, r, err
}

func batch(attempt uint32, from, to int) *abi.Batch {
	b := &abi.Batch{ID: 1, Attempt: attempt}
	for i := from; i <= to; i++ {
		b.Events = append(b.Events, abi.Event{ID: fmt.Sprint("id-", i), Seq: uint64(i), Payload: fmt.Appendf(nil, `{"n":"n%d"}`, i)})
	}
	return b
}

// TestEveryBehaviourHasItsOutcome delivers four events under each script.
func TestEveryBehaviourHasItsOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		rules   string
		change  func(*host.Options)
		outcome abi.Outcome
		detail  string
		stored  int
	}{
		"record":            {``, nil, abi.OK, "", 4},
		"store":             {`{"do":"store"},{"do":"trap"}`, nil, abi.OK, "", 4},
		"trap":              {`{"do":"trap","text":"of the test"}`, nil, abi.Trap, "of the test", 0},
		"fault":             {`{"do":"fault"}`, nil, abi.Trap, "out of bounds", 0},
		"store then trap":   {`{"do":"store-then-trap"}`, nil, abi.Trap, "", 4},
		"poison":            {`{"do":"trap","contains":"n3"}`, nil, abi.Trap, "", 0},
		"no poison":         {`{"do":"trap","contains":"n5"}`, nil, abi.OK, "", 4},
		"exit":              {`{"do":"exit","n":42}`, nil, abi.Exit, "42", 0},
		"exit 0":            {`{"do":"exit"}`, nil, abi.Exit, "0", 0},
		"spin out of fuel":  {`{"do":"spin"}`, func(o *host.Options) { o.Fuel = 100_000_000 }, abi.Fuel, "", 0},
		"spin out of time":  {`{"do":"spin"}`, func(o *host.Options) { o.Deadline = 300 * time.Millisecond }, abi.Deadline, "", 0},
		"sleep out of time": {`{"do":"delay","pause_ms":60000}`, func(o *host.Options) { o.Deadline = 300 * time.Millisecond }, abi.Deadline, "", 0},
		"grow":              {`{"do":"grow"}`, func(o *host.Options) { o.Memory = 32 << 20 }, abi.Memory, "memory_limit", 0},
		"grow a little":     {`{"do":"grow","n":4}`, nil, abi.OK, "", 4},
		"reject":            {`{"do":"reject","text":"never"}`, nil, abi.Reject, "never", 0},
		"retry":             {`{"do":"retry","pause_ms":20}`, nil, abi.Retry, "as scripted", 0},
		"busy":              {`{"do":"busy","pause_ms":20}`, nil, abi.Busy, "as scripted", 0},
		"lie":               {`{"do":"lie"}`, nil, abi.BadABI, "OK(5) for 4", 4},
		"unknown outcome":   {`{"do":"garbage","n":77}`, nil, abi.BadABI, "", 0},
		"host's outcome":    {`{"do":"garbage","n":256}`, nil, abi.BadABI, "TRAP", 0},
		"open's outcome":    {`{"do":"garbage","n":5}`, nil, abi.BadABI, "BAD_CONFIG", 0},
		"verdict":           {`{"do":"verdict","ids":["id-1","id-4"],"text":"not this"}`, nil, abi.Partial, "", 2},
		"delay":             {`{"do":"delay","pause_ms":5}`, nil, abi.OK, "", 4},
		"flood":             {`{"do":"flood","n":50}`, nil, abi.OK, "", 4},
	} {
		t.Run(name, func(t *testing.T) {
			s, got, err := openMock(t, `{"rules":[`+c.rules+`]}`, c.change)
			if err != nil {
				t.Fatal(err)
			}
			r := s.Deliver(t.Context(), batch(1, 1, 4))
			if r.Outcome != c.outcome || !strings.Contains(r.Detail, c.detail) {
				t.Errorf("%s: %s\n%s; wanted %s", r.Outcome, r.Detail, r.Stderr, c.outcome)
			}
			if len(got.ids) != c.stored {
				t.Errorf("stored %v, wanted %d", got.ids, c.stored)
			}
			if (r.Outcome == abi.Retry || r.Outcome == abi.Busy) && r.RetryAfter != 20*time.Millisecond {
				t.Errorf("after %s", r.RetryAfter)
			}
			if name == "verdict" && (len(r.Verdicts) != 4 || r.Verdicts[0] != (abi.Verdict{Code: abi.Reject, Reason: "not this"}) ||
				r.Verdicts[1].Code != abi.OK || r.Verdicts[3].Code != abi.Reject || !slices.Equal(got.ids, []string{"id-2", "id-3"})) {
				t.Errorf("verdicts %+v, stored %v", r.Verdicts, got.ids)
			}
			if name == "flood" && got.other != 50 {
				t.Errorf("%d lines of the flood", got.other)
			}
			// Whatever it was: the sink goes on.
			if r := s.Deliver(t.Context(), batch(1, 7, 7)); r.Outcome.HostMade() && !c.outcome.HostMade() {
				t.Errorf("the next batch: %s: %s", r.Outcome, r.Detail)
			}
		})
	}
}

func TestFloodIsCut(t *testing.T) {
	s, got, err := openMock(t, `{"rules":[{"do":"flood","n":100000,"attempt":1}]}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Deliver(t.Context(), batch(1, 1, 1)); r.Outcome != abi.OK {
		t.Fatalf("%s: %s", r.Outcome, r.Detail)
	}
	if got.other != 100 {
		t.Errorf("%d lines came through, the bound is 100", got.other)
	}
}

// TestOpening: a refused configuration is an error of host.Open; what may pass
// is told when there is a batch.
func TestOpening(t *testing.T) {
	for open, c := range map[string]struct {
		outcome abi.Outcome
		detail  string
	}{
		"retry": {abi.Retry, "as scripted"}, "busy": {abi.Busy, "as scripted"},
		"trap": {abi.Busy, "TRAP"}, "exit": {abi.Busy, "EXIT"}, "spin": {abi.Busy, "FUEL"},
	} {
		s, _, err := openMock(t, `{"open":"`+open+`"}`, func(o *host.Options) { o.Fuel = 200_000_000 })
		if err != nil {
			t.Errorf("open %s: %v", open, err)
			continue
		}
		if r := s.Deliver(t.Context(), batch(1, 1, 1)); r.Outcome != c.outcome || !strings.Contains(r.Detail, c.detail) {
			t.Errorf("open %s: %s: %s", open, r.Outcome, r.Detail)
		}
	}
	var refused *host.ConfigError
	if _, _, err := openMock(t, `{"open":"bad-config"}`, nil); !errors.As(err, &refused) || refused.Detail != "as scripted" {
		t.Errorf("open bad-config: %v", err)
	}
}

// TestTrapAtSevenOfAHundred is the script of the issue: single events, a trap
// at the seventh, once.
func TestTrapAtSevenOfAHundred(t *testing.T) {
	s, got, err := openMock(t, `{"rules":[{"do":"trap","position":7,"attempt":1}]}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	traps := 0
	for i := 1; i <= 100; i++ {
		for attempt := uint32(1); ; attempt++ {
			r := s.Deliver(t.Context(), batch(attempt, i, i))
			if r.Outcome == abi.OK {
				break
			}
			if r.Outcome != abi.Trap || attempt > 1 {
				t.Fatalf("event %d, attempt %d: %s: %s", i, attempt, r.Outcome, r.Detail)
			}
			traps++
		}
	}
	if traps != 1 || len(got.ids) != 100 || got.ids[6] != "id-7" {
		t.Errorf("%d traps, %d stored", traps, len(got.ids))
	}
}

// TestTwoRetriesThenStored: RETRY and BUSY leave the instance as it is, so
// both the attempt and the instance's own count of calls can be used.
func TestTwoRetriesThenStored(t *testing.T) {
	for _, rule := range []string{`{"do":"retry","attempt":"1-2"}`, `{"do":"busy","call":"1-2"}`} {
		s, got, err := openMock(t, `{"rules":[`+rule+`]}`, nil)
		if err != nil {
			t.Fatal(err)
		}
		var outcomes []abi.Outcome
		for attempt := uint32(1); attempt <= 3; attempt++ {
			outcomes = append(outcomes, s.Deliver(t.Context(), batch(attempt, 1, 2)).Outcome)
		}
		if outcomes[0] != outcomes[1] || outcomes[2] != abi.OK || !slices.Equal(got.ids, []string{"id-1", "id-2"}) {
			t.Errorf("%s: %v, stored %v", rule, outcomes, got.ids)
		}
	}
}

// TestInterpreter: the plugin does the same without a compiler.
func TestInterpreter(t *testing.T) {
	s, got, err := openMock(t, `{"rules":[{"do":"trap","position":2,"attempt":1}]}`, func(o *host.Options) { o.Interpreter = true; o.Cache = nil })
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []abi.Outcome
	for attempt := uint32(1); attempt <= 2; attempt++ {
		outcomes = append(outcomes, s.Deliver(t.Context(), batch(attempt, 1, 3)).Outcome)
	}
	if !slices.Equal(outcomes, []abi.Outcome{abi.Trap, abi.OK}) || len(got.ids) != 3 {
		t.Errorf("%v, stored %v", outcomes, got.ids)
	}
}
