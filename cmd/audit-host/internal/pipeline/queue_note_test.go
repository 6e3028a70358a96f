package pipeline

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/queue"
)

func TestQueueNoteCome(t *testing.T) {
	ledger := map[[16]byte]uint64{{15: 1}: 7, {15: 2}: 9}
	const one, two = "00000000000000000000000000000001", "00000000000000000000000000000002"
	u := func(id, key string) usedQueue { return usedQueue{ID: id, KeyID: key} }
	for name, c := range map[string]struct {
		was    queueNote
		id     string
		ledger map[[16]byte]uint64
		want   queueNote
	}{
		"first start":               {id: ""},
		"nothing known, one there":  {id: "a", ledger: ledger, want: queueNote{Used: u("a", "")}},
		"nothing known but to it":   {id: "", ledger: ledger, want: queueNote{Missing: []usedQueue{u(one, ""), u(two, "")}}},
		"as it was":                 {was: queueNote{Used: u("a", "k")}, id: "a", ledger: ledger, want: queueNote{Used: u("a", "k")}},
		"gone":                      {was: queueNote{Used: u("a", "k")}, id: "", ledger: ledger, want: queueNote{Missing: []usedQueue{u("a", "k")}}},
		"gone, died before another": {was: queueNote{Missing: []usedQueue{u("a", "k")}}, id: "", ledger: ledger, want: queueNote{Missing: []usedQueue{u("a", "k")}}},
		"gone, died before noted":   {was: queueNote{Missing: []usedQueue{u("a", "k")}}, id: "b", want: queueNote{Used: u("b", ""), Missing: []usedQueue{u("a", "k")}}},
		"another":                   {was: queueNote{Used: u("a", "k")}, id: "b", want: queueNote{Used: u("b", ""), Missing: []usedQueue{u("a", "k")}}},
		"back, with its key":        {was: queueNote{Used: u("b", "l"), Missing: []usedQueue{u("a", "k")}}, id: "a", want: queueNote{Used: u("a", "k"), Missing: []usedQueue{u("b", "l")}}},
	} {
		n := c.was
		n.Missing = slices.Clone(n.Missing)
		if n.come(c.id, c.ledger); n.Used != c.want.Used || !slices.Equal(n.Missing, c.want.Missing) {
			t.Errorf("%s: %+v, want %+v", name, n, c.want)
		}
	}
}

// That a queue is missing is on disk before another one is made: then nothing else
// would tell.
func TestMissingQueueIsNotedBeforeAnotherIsMade(t *testing.T) {
	cfg := parse(t, sample)
	p := open(t, cfg, false)
	if _, err := p.Recorder.Submit(t.Context(), refusal(t, "agent:a")); err != nil {
		t.Fatal(err)
	}
	was := idOf(p.Queue.(*queue.Disk))
	closeAll(t, p)
	if err := os.Rename(cfg.Queue.Directory, filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	least := cfg.Queue.DiskBytes
	cfg.Queue.DiskBytes = 1
	if _, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "too small") {
		t.Fatalf("no queue can be made: %v", err)
	}
	n, err := readNote(cfg)
	if err != nil || len(n.Missing) != 1 || n.Missing[0].ID != was {
		t.Errorf("noted: %+v, %v", n, err)
	}
	cfg.Queue.DiskBytes = least
	p = open(t, cfg, false)
	if len(p.Absent) != 1 || !strings.Contains(p.Absent[0], was) {
		t.Errorf("told: %q", p.Absent)
	}
	closeAll(t, p)
	if err := os.WriteFile(noteFile(cfg), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a damaged note: %v", err)
	}
}
