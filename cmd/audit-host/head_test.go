package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// several are n refusals with ids of their own.
func several(prefix string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(refusal(fmt.Sprint(prefix, i)))
	}
	return b.String()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ids are those in the ledger, in order.
func ids(t *testing.T, config string) (list []string) {
	t.Helper()
	for line := range strings.Lines(must(t, 0, "", "tail", "-c", config, "--json", "-n", "1000000").stdout) {
		var row struct {
			ID, EventType string
			Type          string `json:"event_type"`
		}
		decode(t, []byte(line), &row)
		if strings.HasPrefix(row.Type, "audit.") {
			row.ID = row.Type
		}
		list = append(list, row.ID)
	}
	return list
}

// A ledger that is older than the remembered head is refused at the start. Once
// it is accepted, what the queue still has of the missing rows is delivered
// again, each once.
func TestLedgerWentBackWhileStopped(t *testing.T) {
	t.Parallel()
	config := home(t)
	ledger, old := ledgerOf(config), filepath.Join(t.TempDir(), "old.db")
	d := serve(t, config)
	d.post(t, "ledger", several("a", 20))
	d.stop(t, 0)
	copyFile(t, ledger, old)
	d = serve(t, config)
	d.post(t, "ledger", several("b", 30))
	if m := d.scrape(t); m["audit_host_ledger_head_sequence"] < 20 || m[`audit_host_ledger_fault{fault="went_back"}`] != 0 {
		t.Errorf("head %v", m["audit_host_ledger_head_sequence"])
	}
	d.stop(t, 0)
	newest := verified(t, config)
	copyFile(t, ledger, ledger+".new")
	copyFile(t, old, ledger)
	for _, args := range [][]string{{"run", "-c", config}, {"ingest", "-c", config, "-"}} {
		r := must(t, exitFailed, refusal("x"), args...)
		for _, want := range []string{"ends at row 20 and ended at row 50 at ", "Nothing is appended to it", "audit-host verify --head 50:" + newest.Head.RowHash, "audit-host ledger accept-head"} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("%v: no %q in %s", args, want, r.stderr)
			}
		}
	}
	must(t, exitUsage, "", "ledger", "accept-head", "-c", config)
	must(t, exitBroken, "", "verify", "-c", config, "--head", fmt.Sprintf("50:%s", newest.Head.RowHash))

	// The right one back: all is well.
	copyFile(t, ledger+".new", ledger)
	if r := must(t, 0, "", "ledger", "accept-head", "-c", config, "--dry-run"); !strings.Contains(r.stdout, "there is nothing to accept") {
		t.Errorf("%s", r.stdout)
	}
	serve(t, config).stop(t, 0)

	copyFile(t, old, ledger)
	r := must(t, 0, "", "ledger", "accept-head", "-c", config, "--dry-run")
	if !strings.Contains(r.stdout, "come again from the queue: 30\nevents the ledger lacks that the queue has no more: 0\n") || strings.Contains(r.stdout, "\naccepted") {
		t.Errorf("%s", r.stdout)
	}
	must(t, exitFailed, "", "run", "-c", config)
	if r := must(t, 0, "", "ledger", "accept-head", "-c", config, "--yes"); !strings.Contains(r.stdout, "again from the queue: 30\n") || !strings.Contains(r.stdout, "\naccepted\n") {
		t.Errorf("%s", r.stdout)
	}
	d = serve(t, config)
	d.post(t, "ledger", refusal("c"))
	d.stop(t, 0)
	got := ids(t, config)
	if len(got) != 52 || got[19] != "a19" || got[20] != "b0" || got[49] != "b29" || got[50] != "audit.head_accepted" || got[51] != "c" {
		t.Errorf("%d rows: %q", len(got), got)
	}
	verified(t, config)
}

// Another ledger under the name, one that is gone, and a head that can't be read.
func TestLedgerIsAnother(t *testing.T) {
	t.Parallel()
	config, other := home(t), home(t)
	for _, c := range []string{config, other} {
		d := serve(t, c)
		d.post(t, "ledger", several("a", 5))
		d.stop(t, 0)
	}
	ledger := ledgerOf(config)
	copyFile(t, ledger, ledger+".mine")
	copyFile(t, ledgerOf(other), ledger)
	if r := must(t, exitFailed, "", "run", "-c", config); !strings.Contains(r.stderr, "it is another ledger, or was rewritten") {
		t.Errorf("%s", r.stderr)
	}
	if err := os.Remove(ledger); err != nil {
		t.Fatal(err)
	}
	edit(t, config, "#create = false", "create = true")
	if r := must(t, exitFailed, "", "run", "-c", config); !strings.Contains(r.stderr, "is gone or empty: it had 5 rows") {
		t.Errorf("%s", r.stderr)
	}
	if _, err := os.Stat(ledger); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made anew: %v", err)
	}
	copyFile(t, ledger+".mine", ledger)
	head := filepath.Join(filepath.Dir(config), "state", "ledger-head.json")
	if err := os.WriteFile(head, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := must(t, exitFailed, "", "run", "-c", config); !strings.Contains(r.stderr, "audit-host ledger accept-head writes it anew") {
		t.Errorf("%s", r.stderr)
	}
	must(t, 0, "", "ledger", "accept-head", "-c", config, "--yes")
	d := serve(t, config)
	d.post(t, "ledger", refusal("c"))
	d.stop(t, 0)
	verified(t, config)
}

// A receipt of ack=ledger has the rows and the head of the ledger at that time,
// with which an auditor checks the ledger later.
func TestReceipt(t *testing.T) {
	config := home(t)
	d := serve(t, config)
	for i := range 3 {
		a := d.post(t, "ledger", several(fmt.Sprint("r", i, "-"), 4))
		last := a.Events[3]
		if a.Head == nil || a.Head.Sequence != uint64(4*i+4) || a.Head.RowHash != last.RowHash || last.Sequence != a.Head.Sequence {
			t.Fatalf("head %+v, last %+v", a.Head, last)
		}
	}
	// An old event again: its own row, and the present head.
	a := d.post(t, "ledger", refusal("r0-1"))
	if a.Events[0].Sequence != 2 || a.Head == nil || a.Head.Sequence != 12 {
		t.Errorf("%+v, head %+v", a.Events[0], a.Head)
	}
	if b := d.post(t, "durable", refusal("later")); b.Head != nil {
		t.Errorf("durable has a head: %+v", b.Head)
	}
	d.stop(t, 0)
	must(t, 0, "", "verify", "-c", config, "--head", fmt.Sprintf("%d:%s", a.Head.Sequence, a.Head.RowHash))
}
