package pipeline

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/queue"
)

// strand leaves n events in the queue on disk for a sink.
func strand(t *testing.T, dir, sink string, n int) {
	t.Helper()
	q, err := queue.OpenDisk(t.Context(), queue.DiskOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := q.Consumer(t.Context(), sink, queue.ConsumerOptions{Required: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := queue.SubmitWait(t.Context(), q, queue.Event{ID: "e", Payload: []byte("{}")}, queue.Durable); err != nil {
			t.Fatal(err)
		}
	}
	if err := closeUnused(t.Context(), q); err != nil {
		t.Fatal(err)
	}
}

// A queue on disk is not left behind with events in it.
func TestFromDiskToMemory(t *testing.T) {
	cfg := parse(t, sample+"[queue]\nbackend = \"memory\"\n")
	strand(t, cfg.Queue.Directory, "ledger", 3)
	_, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Fatal("it starts, and nobody will deliver what is on disk")
	}
	for _, word := range []string{cfg.Queue.Directory, "3 for sink ledger", `set queue.backend = "disk" again`} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v: it does not say %q", err, word)
		}
	}
	// Once nothing is left there it starts.
	q, err := queue.OpenDisk(t.Context(), queue.DiskOptions{Dir: cfg.Queue.Directory})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Forget(t.Context(), "ledger"); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Consumer(t.Context(), "ledger", queue.ConsumerOptions{Required: true, From: 4}); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeAll(t, open(t, cfg, false))
	// What can't be looked at is not taken for empty.
	if err := os.WriteFile(cfg.Queue.Directory+"/meta", []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, queue.ErrDamaged) || !strings.Contains(err.Error(), "move the directory away") {
		t.Errorf("%v", err)
	}
}

// Events that were accepted before there was a sink are not left behind either.
func TestFromDiskToMemoryWithoutSink(t *testing.T) {
	cfg := parse(t, sample+"[queue]\nbackend = \"memory\"\n")
	strand(t, cfg.Queue.Directory, "other", 2)
	q, err := queue.OpenDisk(t.Context(), queue.DiskOptions{Dir: cfg.Queue.Directory})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(q.Forget(t.Context(), "other"), closeUnused(t.Context(), q)); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "2 that no sink has seen") {
		t.Errorf("%v", err)
	}
}

// A sink that was taken out of the configuration is told of at the start, and
// forgotten on command only.
func TestUnclaimed(t *testing.T) {
	cfg := parse(t, sample)
	strand(t, cfg.Queue.Directory, "siem", 3)
	var log bytes.Buffer
	p, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	want := Unclaimed{Name: "siem", Required: true, Pending: 3}
	if got := p.Unclaimed(); len(got) != 1 || got[0] != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if _, err := p.Forget(t.Context(), "ledger", true); !errors.Is(err, ErrConfigured) {
		t.Errorf("forget a configured sink: %v", err)
	}
	if _, err := p.Forget(t.Context(), "sem", true); !errors.Is(err, ErrUnknownSink) || !strings.Contains(err.Error(), `it has one for "siem"`) {
		t.Errorf("forget an unknown sink: %v", err)
	}
	for _, write := range []bool{false, true} {
		if got, err := p.Forget(t.Context(), "siem", write); err != nil || got != want {
			t.Errorf("write %v: %+v, %v; want %+v", write, got, err, want)
		}
	}
	if got := p.Unclaimed(); got != nil {
		t.Errorf("%+v is there still", got)
	}
	closeAll(t, p) // nobody writes to the log any more
	if got := log.String(); !strings.Contains(got, `for a sink that is not configured: the disk will fill" sink=siem pending=3 required=true`) ||
		!strings.Contains(got, "audit-host sink forget siem") {
		t.Errorf("the log does not tell of it: %s", got)
	}
}
