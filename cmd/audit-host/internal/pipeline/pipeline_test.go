package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline/compiled"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/statedir"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/queue"
)

const sample = `
[http]
max_event = "64KiB"
[[sink]]
name = "ledger"
plugin = "sink-sqlite"
grant.sql = {database = "ledger.db", create = true}
`

// everyPlugin is compiled once, for all tests.
const everyPlugin = `
[[sink]]
name = "file"
plugin = "sink-file"
grant.append.path = "events.jsonl"
[[sink]]
name = "siem"
plugin = "sink-http"
config.url = "https://collector.example/"
grant.http.hosts = [{ host = "collector.example", methods = ["POST"] }]
[[sink]]
name = "mock"
plugin = "sink-mock"
`

func TestMain(m *testing.M) {
	code, err := prepared(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

// warmState names the variable that has a state directory with compiled code.
const warmState = "AUDIT_HOST_TEST_STATE"

func prepared(m *testing.M) (code int, err error) {
	if err := compiled.Check(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "pipeline-test")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg, err := config.Parse(filepath.Join(dir, "audit.toml"), []byte(sample+everyPlugin))
	if err != nil {
		return 1, err
	}
	p, err := Open(context.Background(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 1, err
	}
	if _, err := p.Close(context.Background()); err != nil {
		return 1, err
	}
	if err := os.Setenv(warmState, cfg.StateDir); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(filepath.Join(t.TempDir(), "audit.toml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Share(os.Getenv(warmState), cfg.StateDir); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func open(t *testing.T, cfg *config.Config, bulk bool) *Pipeline {
	t.Helper()
	p, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler), Bulk: bulk})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func closeAll(t *testing.T, p *Pipeline) queue.Report {
	t.Helper()
	report, err := p.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func refusal(t *testing.T, agent string) abi.Event {
	t.Helper()
	e, _, err := event.FromRefusal(agent, event.Bash{Command: "rm"}, event.Decision{Kind: event.KindRefuse, RuleID: "R1", Reason: "no"})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// What the queue refused while it was full is told in the ledger, as an event
// like any other.
func TestLossRecord(t *testing.T) {
	first := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	var r queue.Refusals
	r.Sources = []queue.SourceRefusals{{Source: "http", Count: 17, First: first, Last: first.Add(time.Minute)}}
	ev, ok := lossRecord(r)
	if !ok {
		t.Fatal("no record")
	}
	e, err := abi.DecodeRecord(ev.ID, 1, ev.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if err := event.Check(e, event.Options{}); err != nil {
		t.Error(err)
	}
	if e.EventType != event.TypeGap || !strings.Contains(string(e.Payload), `"sources":{"http":{`) {
		t.Errorf("%+v", e)
	}
	if _, ok := lossRecord(queue.Refusals{}); ok {
		t.Error("a record of nothing")
	}
	// A client can't make one.
	_, _, err = parser(t, parse(t, sample), "native")([]byte(`{"agent_id":"a","event_type":"audit.gap","action":{"kind":"x"},"decision":{"decision":"refuse","rule_id":"","reason":""}}`))
	if err == nil || errors.Is(err, ingest.ErrNotNow) || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("%v", err)
	}
}

func TestLookup(t *testing.T) {
	cfg := parse(t, strings.Replace(sample, "max_event", "#max_event", 1))
	p := open(t, cfg, false)
	find := func(e abi.Event) (ingest.Landed, bool) {
		t.Helper()
		landed, found, err := p.Lookup().Find(t.Context(), 0, e.ID, sha256.Sum256(e.Payload))
		if err != nil {
			t.Fatal(err)
		}
		return landed, found
	}
	var last abi.Event
	for i := range 3 {
		e := refusal(t, fmt.Sprint("agent:", i))
		last = e
		if i == 0 {
			// The ledger does not exist before its first row.
			if _, _, err := p.Lookup().Find(t.Context(), 0, e.ID, sha256.Sum256(e.Payload)); err == nil {
				t.Error("found something in no ledger")
			}
			if err := p.Reachable(); err != nil {
				t.Errorf("it will be made: %v", err)
			}
		} else if _, found := find(e); found {
			t.Error("found before it was submitted") // and the view that says so is kept
		}
		rc, err := p.Recorder.Submit(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		if err := rc.Wait(t.Context(), queue.Committed); err != nil {
			t.Fatal(err)
		}
		if landed, found := find(e); !found || landed.Sequence != uint64(i+1) || len(landed.RowHash) != 64 || landed.DeadLetter != "" {
			t.Errorf("event %d: %+v, %v", i, landed, found)
		}
	}
	dead := refusal(t, "agent:dead")
	if err := p.Letters.Put(t.Context(), []abi.DeadLetter{{Event: dead, Sink: "ledger", Outcome: abi.Reject, Reason: "never", FailedAt: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	if landed, found := find(dead); !found || landed.DeadLetter != "never" {
		t.Errorf("a dead letter: %+v, %v", landed, found)
	}
	// Under the id of a row: the same event with another time stamped on it is
	// that row, and one that the sink has refused is its letter.
	stamped, other := last, last
	stamped.Payload = append([]byte(" "), last.Payload...)
	other.Payload = []byte(`{"other":1}`)
	if err := p.Letters.Put(t.Context(), []abi.DeadLetter{{Event: other, Sink: "ledger", Outcome: abi.Reject, Reason: "conflict", FailedAt: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	if landed, found := find(stamped); !found || landed.Sequence != 3 {
		t.Errorf("stamped again: %+v, %v", landed, found)
	}
	if landed, found := find(other); !found || landed.DeadLetter != "conflict" || landed.Sequence != 0 {
		t.Errorf("another content: %+v, %v", landed, found)
	}
	if err := p.Reachable(); err != nil {
		t.Error(err)
	}
	if err := p.keeper.remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.lookup.ledger, p.lookup.ledger+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := p.Lookup().Close(); err != nil {
		t.Error(err)
	}
	if err := p.Reachable(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it had rows and is gone: %v", err)
	}
	if err := os.Rename(p.lookup.ledger+".gone", p.lookup.ledger); err != nil {
		t.Fatal(err)
	}
	if report := closeAll(t, p); report.Appended != 3 || report.Remained != 0 {
		t.Errorf("%+v", report)
	}
}

// A start that fails leaves no lock and nothing open: the next one succeeds.
func TestOpenFailsCleanly(t *testing.T) {
	cfg := parse(t, sample)
	broken := *cfg
	broken.Sinks = append([]config.Sink{}, cfg.Sinks...)
	broken.Sinks = append(broken.Sinks, cfg.Sinks[0])
	broken.Sinks[1].Name, broken.Sinks[1].Plugin = "other", config.Plugin{Path: filepath.Join(cfg.StateDir, "none.wasm")}
	for range 2 {
		_, err := Open(t.Context(), Options{Config: &broken, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), "sink other: read plugin") {
			t.Fatalf("%v", err)
		}
	}
	// The same name twice: the recorder refuses, and the queue is ours to close.
	broken.Sinks[1] = cfg.Sinks[0]
	if _, err := Open(t.Context(), Options{Config: &broken, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, queue.ErrBusy) {
		t.Fatalf("%v", err)
	}
	p := open(t, cfg, false)
	if _, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	closeAll(t, p)
}

// A queue that is an older copy than the ledger is refused; the right one goes
// on.
func TestQueueBehindItsLedger(t *testing.T) {
	cfg := parse(t, sample)
	p := open(t, cfg, false)
	if p.Level != queue.Durable {
		t.Errorf("level %v", p.Level)
	}
	submit := func(p *Pipeline) {
		t.Helper()
		rc, err := p.Recorder.Submit(t.Context(), refusal(t, "agent:a"))
		if err != nil {
			t.Fatal(err)
		}
		if err := rc.Wait(t.Context(), queue.Committed); err != nil {
			t.Fatal(err)
		}
	}
	submit(p)
	closeAll(t, p)
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(cfg.Queue.Directory)); err != nil {
		t.Fatal(err)
	}
	p = open(t, cfg, false)
	submit(p)
	submit(p)
	closeAll(t, p)
	swap := func(a, b string) {
		t.Helper()
		if err := errors.Join(os.Rename(a, a+".x"), os.Rename(b, a), os.Rename(a+".x", b)); err != nil {
			t.Fatal(err)
		}
	}
	swap(cfg.Queue.Directory, old)
	_, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, queue.ErrBehind) || !strings.Contains(err.Error(), "the log ends at 1, but the ledger has its event 3") {
		t.Fatalf("an older copy: %v", err)
	}
	swap(cfg.Queue.Directory, old)
	p = open(t, cfg, false)
	submit(p)
	closeAll(t, p)
}

func TestBulkWaitsForRoom(t *testing.T) {
	cfg := parse(t, "queue.backend = \"memory\"\nqueue.max_events = 2\n"+sample)
	p := open(t, cfg, true)
	for range 50 {
		if _, err := p.Recorder.Submit(t.Context(), refusal(t, "agent:a")); err != nil {
			t.Fatal(err)
		}
	}
	if report := closeAll(t, p); report.Appended != 50 {
		t.Errorf("%+v", report)
	}
	// A small queue has room for the largest event that is admitted.
	cfg = parse(t, "queue.backend = \"memory\"\nqueue.max_bytes = \"512MiB\"\n"+strings.Replace(sample, `"64KiB"`, "\"48MiB\"\nmax_body = \"48MiB\"", 1)+"batch_bytes = \"48MiB\"\nmemory_limit = \"256MiB\"\n[http.opa]\n")
	q, err := new(Pipeline).openQueue(t.Context(), cfg, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Submit(queue.Event{ID: "x", Payload: make([]byte, 48<<20)}); err != nil {
		t.Error(err)
	}
	closeUnused(t.Context(), q)
}

func TestLedgerIsLookedAtBeforeTheStart(t *testing.T) {
	cfg := parse(t, strings.Replace(sample, "create = true", "create = false", 1))
	path := cfg.Sinks[0].Grant.SQL.Database
	start := func() error {
		_, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
		return err
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), "there is no ledger "+path) {
		t.Errorf("no file: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var format *ledger.FormatError
	if err := start(); !errors.As(err, &format) {
		t.Errorf("an empty file: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}

func TestWhoseFaultItIs(t *testing.T) {
	cfg := parse(t, sample)
	native, parseOPA := parser(t, cfg, "native"), parser(t, cfg, "opa")
	for _, parse := range []ingest.Parse{native, parseOPA} {
		if _, _, err := parse([]byte("nonsense")); err == nil || errors.Is(err, ingest.ErrNotNow) {
			t.Errorf("nonsense: %v", err)
		}
	}
	if err := blame(errors.New("mint id: no entropy")); !errors.Is(err, ingest.ErrNotNow) {
		t.Errorf("ours: %v", err)
	}
	if err := blame(nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if _, decision, err := parseOPA([]byte(`{"input":{"user":"u"},"result":true}`)); err != nil || decision != event.KindAllow || Recorded(cfg)(decision) {
		t.Errorf("%q, %v", decision, err)
	}
	// The limit of an event's text is that of its payload too.
	long := `{"agent_id":"a","action":{"kind":"x","n":[` + strings.Repeat("1E5,", 15_000) + `1]},"decision":{"decision":"refuse","rule_id":"","reason":""}}`
	if _, _, err := native([]byte(long)); err == nil || !strings.Contains(err.Error(), "at most 65536 are taken") {
		t.Errorf("a payload that grows: %v", err)
	}
}

func parser(t *testing.T, cfg *config.Config, format string) ingest.Parse {
	t.Helper()
	for _, f := range event.Formats {
		if f.Name == format {
			parse, err := Parser(cfg, f)
			if err != nil {
				t.Fatal(err)
			}
			return parse
		}
	}
	t.Fatalf("no format %s", format)
	return nil
}

// What a caller made by hand and calls a refusal is refused.
func TestAllowedActionIsNoRefusal(t *testing.T) {
	p := open(t, parse(t, sample), false)
	e, err := event.New("agent:a", event.Bash{Command: "ls"}, event.Decision{Kind: event.KindAllow}, event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.EventType = event.TypeRefusal
	if _, err := p.Recorder.Submit(context.WithoutCancel(t.Context()), e); err == nil || !strings.Contains(err.Error(), "event_type") {
		t.Errorf("%v", err)
	}
	if report := closeAll(t, p); report.Appended != 0 {
		t.Errorf("%+v", report)
	}
}
