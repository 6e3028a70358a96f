package audithost_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/plugins/bundled"
	"github.com/audit-host/audit-host/queue"
	"github.com/audit-host/audit-host/sign"
)

// install makes a recorder in front of a new ledger in dir (row B25): a queue in
// memory, the bundled sink on its database, dead letters, no signatures. The
// documentation of plugins/bundled shows how to build the sink from the module
// cache.
func install(ctx context.Context, dir string) (*queue.Recorder, error) {
	wasm, err := bundled.Read("sink-sqlite")
	if err != nil {
		return nil, err
	}
	sink, err := host.Open(ctx, wasm, host.Options{Name: "ledger", SQL: &host.SQLGrant{Database: filepath.Join(dir, "ledger.db"), Create: true}})
	if err != nil {
		return nil, err
	}
	letters, err := deadletter.Open(filepath.Join(dir, "dead-letters.db"))
	if err != nil {
		return nil, err
	}
	return queue.NewRecorder(ctx, queue.RecorderOptions{
		Queue:  queue.NewMemory(queue.MemoryOptions{}),
		Sinks:  []queue.SinkOptions{{Name: "ledger", Sink: sink, Plugin: sink.Digest(), Required: true, MaxRestarts: 5}},
		Sealer: sign.NewSealer(nil), DeadLetters: letters,
		Check: func(e abi.Event) error { return event.Check(e, event.Options{}) },
	})
}

// Embedding: an installer, a refusal, and what became of it.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	recorder, err := install(ctx, dir)
	if err != nil {
		log.Fatal(err)
	}
	refused := event.Decision{Kind: event.KindRefuse, RuleID: "R001", Reason: "no writes to secrets/*"}
	e, _, err := event.FromRefusal("agent:alice", event.FilesystemWrite{Path: "/secrets/api"}, refused)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := recorder.Submit(ctx, e); err != nil {
		log.Fatal(err)
	}
	report, err := recorder.Close(ctx)
	fmt.Println("appended", report.Appended, "dead-lettered", report.DeadLettered, "remained", report.Remained, err)

	ledger, err := ledger.Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer ledger.Close()
	row, err := ledger.Lookup(ctx, e.ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("row", row.Sequence, row.EventType, row.AgentID)
	// Output:
	// appended 1 dead-lettered 0 remained 0 <nil>
	// row 1 governance.refusal agent:alice
}

// The installer's recorder is open and at work: one event, one row.
func TestT24_InstallerGivesAnOpenRecorderAtWork(t *testing.T) {
	dir := t.TempDir()
	recorder, err := install(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if !recorder.IsOpen() {
		t.Error("the recorder is not open")
	}
	e, _, err := event.FromRefusal("agent:alice", event.Bash{Command: "rm"}, event.Decision{Kind: event.KindRefuse, RuleID: "R001", Reason: "no"})
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := recorder.Submit(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if err := receipt.Wait(t.Context(), queue.Committed); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if n, _, err := l.Head(t.Context()); err != nil || n != 1 {
		t.Errorf("%d rows, %v; want 1", n, err)
	}
	if report, err := recorder.Close(t.Context()); err != nil || report.Appended != 1 || recorder.IsOpen() {
		t.Errorf("closed: %+v, %v, open %v", report, err, recorder.IsOpen())
	}
}
