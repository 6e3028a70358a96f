//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Two signals so close together that the first may not have been looked at end
// the process too: by the signal, or by the drain if it was done before. It
// never goes on waiting for its hour.
func TestTwoSignalsAtOnce(t *testing.T) {
	config := home(t, "#drain_timeout = \"5s\"", "drain_timeout = \"1h\"",
		"[dead_letters]", "[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nconfig.rules = [{do = \"busy\", pause_ms = 60000}]\n\n[dead_letters]")
	for range 5 {
		c := spawn(t, config)
		c.post(t, "accepted", refusal("e1"))
		c.signal(t, syscall.SIGINT)
		// Without the second one it would drain for an hour.
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		if st := c.status(); !st.Signaled() {
			t.Errorf("status %v, want a signal's", st)
		}
	}
}

// What a killed daemon leaves is a ledger with its log: verify reads both, and
// touches neither.
func TestVerifyAfterKill(t *testing.T) {
	config := home(t)
	c := spawn(t, config)
	a := c.post(t, "ledger", refusal("e1"))
	c.signal(t, syscall.SIGKILL)
	<-c.done
	before := files(t, filepath.Dir(config))
	if !strings.Contains(before, "ledger.db-wal") {
		t.Fatalf("the row is not in the log: %s", before)
	}
	if v := verified(t, config); v.Rows != 1 || v.Head.RowHash != a.Events[0].RowHash {
		t.Errorf("%+v, the receipt says %+v", v, a.Events[0])
	}
	if after := files(t, filepath.Dir(config)); after != before {
		t.Errorf("verify changed the folder: from %s to %s", before, after)
	}
}

// A killed daemon may have left commits that no sync has reached. Commands that only
// read can't see to that, and say so; beside a daemon, and after one, there is
// nothing to say.
func TestReadersTellWhatMayNotBeOnDisk(t *testing.T) {
	config := home(t, "[dead_letters]", "[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nconfig.rules = [{do = \"reject\"}]\n\n[dead_letters]")
	tell := func(want bool) {
		t.Helper()
		verify := must(t, 0, "", "verify", "-c", config)
		if got := strings.Contains(verify.stdout, "not checked: whether its last rows are on disk: what lies in "); got != want {
			t.Errorf("verify tells: %v, want %v: %s", got, want, verify.stdout)
		}
		for _, args := range [][]string{{"tail"}, {"dlq", "list"}, {"dlq", "show", "1"}} {
			r := must(t, 0, "", append(args, "-c", config)...)
			if got := strings.Contains(r.stderr, "note: what lies in "); got != want || r.stdout == "" {
				t.Errorf("%v tells: %v, want %v: %q %q", args, got, want, r.stdout, r.stderr)
			}
		}
	}
	c := spawn(t, config)
	c.post(t, "ledger", refusal("e1"))
	until(t, "a dead letter", func() bool { return must(t, 0, "", "dlq", "list", "-c", config).stdout != "" })
	tell(false)
	c.signal(t, syscall.SIGKILL)
	<-c.done
	tell(true)
	serve(t, config).stop(t, 0)
	tell(false)
}

// A byte of the log that is not what it was hides the rows behind it from whoever
// reads. An auditor who has nothing but the ledger and the key is told.
func TestVerifyTellsOfADamagedLog(t *testing.T) {
	config := home(t)
	c := spawn(t, config)
	for i := range 6 {
		c.post(t, "ledger", refusal(fmt.Sprint("e", i)))
	}
	c.signal(t, syscall.SIGKILL)
	<-c.done
	ledger, key := ledgerOf(config), filepath.Join(filepath.Dir(config), "audit.pub")
	must(t, 0, "", "verify", ledger, "--key", key)
	whole, err := os.ReadFile(ledger + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	for at := 100; at < len(whole); at += 4120 { // in each frame
		b := slices.Clone(whole)
		b[at] ^= 1
		if err := os.WriteFile(ledger+"-wal", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := must(t, exitUnchecked, "", "verify", ledger, "--key", key); !strings.Contains(r.stdout, "rows that were committed and may be missing at the end") {
			t.Errorf("byte %d: %s", at, r.stdout)
		}
	}
}

// files lists the ledger's files with sizes and times.
func files(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "ledger.db*"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprint(info.Name(), " ", info.Size(), " ", info.ModTime()))
	}
	return strings.Join(list, ", ")
}
