//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/audit-host/audit-host/queue"
)

func queueOf(config string) string { return filepath.Join(filepath.Dir(config), "state", "queue") }

func queueID(t *testing.T, config string) string {
	t.Helper()
	id, err := queue.DiskID(queueOf(config))
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(id[:])
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// kill ends the daemon as a crash does.
func (c *child) kill(t *testing.T) string {
	t.Helper()
	c.signal(t, syscall.SIGKILL)
	<-c.done
	return c.log.String()
}

// outside runs audit-host as a process of its own, which has to end by itself with
// that exit code.
func outside(t *testing.T, code int, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for a daemon that starts after all
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Getenv(binary), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != code {
		t.Fatalf("audit-host %s: %v, want exit code %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), err, code, &stdout, &stderr)
	}
	return result{code, stdout.String(), stderr.String()}
}

// The oldest segment is missing at a start while a required sink lags, the ledger
// or another: no start, with both positions and what to do. With the segment back
// nothing is lost; an operator who accepts it finds the loss in the ledger.
func TestOldestSegmentMissing(t *testing.T) {
	const events = 5000
	for _, x := range []struct {
		sink string
		back bool
	}{{"ledger", true}, {"ledger", false}, {"lag", false}} {
		t.Run(fmt.Sprint(x.sink, " back=", x.back), func(t *testing.T) {
			sink := x.sink
			t.Parallel()
			config := home(t, `#max_event = "1MiB"`, `max_event = "64KiB"`, `#disk_bytes = "4GiB"`, `disk_bytes = "4MiB"`,
				"[dead_letters]", "[[sink]]\nname = \"lag\"\nplugin = \"sink-file\"\nrequired = true\n[sink.grant.append]\npath = \"lag/events\"\n\n[dead_letters]")
			lag := filepath.Join(filepath.Dir(config), "lag")
			if err := os.Mkdir(lag, 0o755); err != nil {
				t.Fatal(err)
			}
			c := spawn(t, config)
			c.post(t, "ledger", refusal("first"))
			var release func()
			if sink == "ledger" {
				release = lockLedger(t, config)
			} else {
				move(t, lag, lag+".away")
				release = func() { move(t, lag+".away", lag) }
			}
			for i := range 10 {
				c.taken(t, fmt.Sprint("e", i, "-"), events/10)
			}
			for sink == "lag" && c.scrape(t)[`audit_host_pending{sink="ledger"}`] > 0 {
				time.Sleep(10 * time.Millisecond)
			}
			c.kill(t)
			release()
			segments, err := filepath.Glob(filepath.Join(queueOf(config), "*.seg"))
			if err != nil || len(segments) < 3 {
				t.Fatalf("segments %q, %v", segments, err)
			}
			var first int
			if _, err := fmt.Sscanf(filepath.Base(segments[1]), "%d.seg", &first); err != nil {
				t.Fatal(err)
			}
			oldest := segments[0] + ".away"
			move(t, segments[0], oldest)
			if text := outside(t, 1, "run", "-c", config).stderr; !strings.Contains(text, "(the ledger has come to ") {
				t.Errorf("run: %s", text)
			}
			for _, command := range [][]string{{"run"}, {"sink", "forget", "gone", "--dry-run"}} {
				text := outside(t, 1, append(command, "-c", config)...).stderr
				for _, want := range []string{fmt.Sprintf("begins at position %d and should begin at 2", first), fmt.Sprintf("consumer %q has not acknowledged, which has come to 1", sink),
					fmt.Sprintf("Put the segments that begin before %d back", first), "audit-host queue accept-loss"} {
					if !strings.Contains(text, want) {
						t.Errorf("%s: %s, want %q", command, text, want)
					}
				}
			}
			said := fmt.Sprintf("events that are gone: 2 to %d of the queue %s\n", first-1, queueID(t, config))
			if r := outside(t, 0, "queue", "accept-loss", "-c", config, "--dry-run"); r.stdout != said {
				t.Errorf("dry run: %s, want %s", r.stdout, said)
			}

			if x.back {
				move(t, oldest, segments[0])
				c = spawn(t, config)
				c.post(t, "ledger", refusal("last"))
				c.kill(t)
				if got := ids(t, config); len(got) != events+2 {
					t.Errorf("with the segment back %d rows, want %d", len(got), events+2)
				}
				return
			}
			if r := outside(t, 0, "queue", "accept-loss", "-c", config, "--yes"); r.stdout != said+"accepted\n" {
				t.Errorf("accepted: %s", r.stdout)
			}
			if r := outside(t, 0, "queue", "accept-loss", "-c", config, "--yes"); !strings.Contains(r.stdout, "nothing to accept") {
				t.Errorf("accepted again: %s", r.stdout)
			}
			c = spawn(t, config)
			c.post(t, "ledger", refusal("last"))
			c.kill(t)
			want := events + 3
			if sink == "ledger" {
				want -= first - 2
			}
			got := ids(t, config)
			if len(got) != want || got[len(got)-2] != "audit.loss_accepted" {
				t.Errorf("then %d rows, want %d, which end with %q", len(got), want, got[max(0, len(got)-3):])
			}
			if row := must(t, 0, "", "tail", "-c", config, "-n", "2", "--json").stdout; !strings.Contains(row, `"from":2`) || !strings.Contains(row, fmt.Sprintf(`"to":%d`, first-1)) {
				t.Errorf("the record is %s", row)
			}
		})
	}
}

// The queue's folder is not there, as if its volume was not mounted: a new one takes
// events, and it is said, with both ids, at each start, until the other one is back
// or given up.
func TestQueueFolderMissing(t *testing.T) {
	t.Parallel()
	config := home(t)
	folder, away := queueOf(config), queueOf(config)+".away"
	c := spawn(t, config)
	c.post(t, "ledger", several("a", 7))
	release := lockLedger(t, config)
	c.taken(t, "b", 20)
	c.kill(t)
	release()
	old := queueID(t, config)
	said := func(c *child, missing, used string) {
		t.Helper()
		want := []string{"the queue " + missing + " is not there", used + " in " + folder + " is used instead", "If its volume is not mounted: stop, mount it", "audit-host queue accept-loss"}
		ready := string(c.request(t, "GET", "/-/ready", "", 503))
		log := c.kill(t)
		for _, want := range want {
			if !strings.Contains(ready, want) || !strings.Contains(log, want) {
				t.Errorf("want %q in /-/ready and in the log: %s", want, ready)
			}
		}
		if missing == old && !strings.Contains(ready, "the ledger has come to its event 7)") {
			t.Errorf("ready: %s", ready)
		}
	}

	move(t, folder, away)
	if r := outside(t, 0, "queue", "accept-loss", "-c", config, "--dry-run"); r.stdout != "queue that is not there: "+old+", with whatever it had not delivered\n" {
		t.Errorf("dry run: %s", r.stdout)
	}
	if _, err := os.Stat(folder); err == nil {
		t.Error("a dry run made a queue")
	}
	c = spawn(t, config)
	interim := queueID(t, config)
	c.post(t, "ledger", several("c", 5))
	said(c, old, interim)
	said(spawn(t, config), old, interim)

	// It is back, and now the other one is out of sight.
	move(t, folder, folder+".interim")
	move(t, away, folder)
	c = spawn(t, config)
	c.post(t, "ledger", refusal("d"))
	said(c, interim, old)
	if got := ids(t, config); len(got) != 7+20+5+1 {
		t.Errorf("%d rows: %q", len(got), got)
	}
	outside(t, 0, "queue", "accept-loss", "-c", config, "--yes")
	c = spawn(t, config)
	c.post(t, "ledger", refusal("e"))
	c.request(t, "GET", "/-/ready", "", 200)
	if log := c.kill(t); strings.Contains(log, "is not there") {
		t.Errorf("told after it was accepted: %s", log)
	}
	if got := ids(t, config); len(got) != 7+20+5+1+2 || got[33] != "audit.loss_accepted" {
		t.Errorf("%d rows: %q", len(got), got)
	}

	// With the whole state directory gone only the ledger knows; to delete it and
	// to say so is a way too.
	move(t, filepath.Dir(folder), filepath.Dir(folder)+".away")
	outside(t, 0, "queue", "accept-loss", "-c", config, "--yes")
	if err := os.RemoveAll(filepath.Dir(folder)); err != nil {
		t.Fatal(err)
	}
	if err := warm(filepath.Dir(folder)); err != nil {
		t.Fatal(err)
	}
	c = spawn(t, config)
	text := string(c.request(t, "GET", "/-/ready", "", 503))
	if !strings.Contains(text, old) || !strings.Contains(text, interim) {
		t.Errorf("ready with a new state directory: %s", text)
	}
	c.kill(t)
	outside(t, 0, "queue", "accept-loss", "-c", config, "--yes")
	c = spawn(t, config)
	c.post(t, "ledger", refusal("f"))
	c.request(t, "GET", "/-/ready", "", 200)
}

// What was acknowledged while a key was set is not left unsigned by a start without
// one: that is refused until it is delivered. Another key may sign it.
func TestAcknowledgedUnderAKey(t *testing.T) {
	t.Parallel()
	config := home(t)
	const keys = "private_key = \"audit.key\"       # mode 0600; audit-host init makes the pair\npublic_key = \"audit.pub\" "
	c := spawn(t, config)
	c.post(t, "ledger", refusal("a"))
	release := lockLedger(t, config)
	c.taken(t, "b", 20)
	c.kill(t)
	release()
	old := filepath.Join(filepath.Dir(config), "audit")
	id := strings.TrimSpace(strings.TrimPrefix(must(t, 0, "", "key", "public", "-c", config).stderr, "key id "))
	edit(t, config, keys, "#")
	for _, command := range [][]string{{"run"}, {"ingest", "-"}} {
		text := outside(t, 1, append(command, "-c", config)...).stderr
		for _, want := range []string{"[signing] is not set", "(20 for sink ledger)", "key " + id, "Set [signing] to that pair, or to another one, until they are delivered"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %s, want %q", command, text, want)
			}
		}
	}

	other := filepath.Join(filepath.Dir(config), "other")
	must(t, 0, "", "key", "new", other)
	edit(t, config, "[signing]", "[signing]\nprivate_key = \"other.key\"\npublic_key = \"other.pub\"\n")
	c = spawn(t, config)
	c.post(t, "ledger", refusal("d"))
	if log := c.kill(t); !strings.Contains(log, "they are signed with the one that is set now") || !strings.Contains(log, "was="+id) || !strings.Contains(log, "20 for sink ledger") {
		t.Errorf("another key: %s", log)
	}
	edit(t, config, "\nprivate_key = \"other.key\"\npublic_key = \"other.pub\"\n", "")
	c = spawn(t, config) // all is delivered
	c.post(t, "ledger", refusal("e"))
	c.kill(t)
	var v verdict
	decode(t, []byte(must(t, exitUnchecked, "", "verify", ledgerOf(config), "--key", old+".pub", "--key", other+".pub", "--json").stdout), &v)
	if s := v.Signatures; v.Rows != 23 || s.Valid != 22 || s.Unsigned != 1 {
		t.Errorf("%+v", v)
	}
	c = spawn(t, config) // nothing was to be signed
	c.kill(t)
}
