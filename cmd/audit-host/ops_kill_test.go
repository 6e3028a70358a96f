//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/event"
)

// deadLettersOf puts n letters for the ledger into a state directory.
func deadLettersOf(t *testing.T, config string, n int) {
	t.Helper()
	var letters []abi.DeadLetter
	for i := range n {
		e, _, err := event.ParseNative([]byte(refusal(fmt.Sprintf("dead%05d", i))), event.Options{})
		if err != nil {
			t.Fatal(err)
		}
		letters = append(letters, abi.DeadLetter{Event: e, Sink: "ledger", Outcome: abi.Trap, Reason: "then", Attempts: 2, FailedAt: time.Now()})
	}
	d, err := deadletter.Open(filepath.Join(filepath.Dir(config), "state", "dead-letters.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Put(t.Context(), letters); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// The command is killed again and again, at random moments after it has told of its
// first letter, and then left alone: every letter is one row, and resolved.
func TestReplayCommandKilled(t *testing.T) {
	t.Parallel()
	const n, rounds = 6000, 8
	config := home(t)
	deadLettersOf(t, config, n)
	rnd := rand.New(rand.NewPCG(1, 2))
	resolved, kills := 0, 0
	var progress []string // resolved letters and rows after each round
	for round := 0; ; round++ {
		cmd := exec.Command(os.Getenv(binary), "dlq", "replay", "-c", config, "--json")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if round < rounds {
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatalf("%v: %s", err, &stderr)
			}
			kill := time.AfterFunc(time.Duration(rnd.IntN(60_000))*time.Microsecond, func() { _ = cmd.Process.Kill() }) // it may have ended
			if _, err := io.Copy(io.Discard, out); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				kills++
			}
			kill.Stop()
		} else {
			_, err := io.Copy(io.Discard, out)
			if err := errors.Join(err, cmd.Wait()); err != nil {
				t.Fatalf("left alone: %v: %s", err, &stderr)
			}
		}
		now := len(listed(t, config, "--state", "resolved"))
		if now < resolved {
			t.Errorf("round %d: %d were resolved before and %d are now", round, resolved, now)
		}
		rows := int(verified(t, config).Rows)
		if progress = append(progress, fmt.Sprintf("%d/%d", now, rows)); rows < now {
			t.Errorf("round %d: %d are resolved and %d are rows", round, now, rows)
		}
		if resolved = now; round >= rounds {
			break
		}
	}
	if resolved != n || len(listed(t, config)) != 0 {
		t.Errorf("%d resolved, %d open", resolved, len(listed(t, config)))
	}
	if v := verified(t, config); v.Rows != n {
		t.Errorf("%d rows", v.Rows)
	}
	t.Logf("killed %d times; resolved/rows after each: %v", kills, progress)
	if kills == 0 {
		t.Error("it was never killed")
	}
}

// The daemon is stopped, or killed, in the middle of a replay: the command says so,
// and the next one does the rest.
func TestReplayDaemonEnds(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(s.String(), func(t *testing.T) { replayWhileDaemonEnds(t, s) })
	}
}

func replayWhileDaemonEnds(t *testing.T, s syscall.Signal) {
	const n = 6000
	config := home(t)
	deadLettersOf(t, config, n)
	c := spawn(t, config)
	cmd := exec.Command(os.Getenv(binary), "dlq", "replay", "-c", config, "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // the first letters are done
		t.Fatal(err)
	}
	c.signal(t, s)
	if _, err := new(bytes.Buffer).ReadFrom(out); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	<-c.done
	if whole := strings.Contains(stderr.String(), fmt.Sprintf("stored %d,", n)); !whole && (cmd.ProcessState.ExitCode() != exitFailed ||
		!strings.Contains(stderr.String(), "replay again for the rest")) {
		t.Errorf("%v: %s", err, &stderr)
	}
	// What the daemon left of its socket is no daemon.
	must(t, 0, "", "dlq", "replay", "-c", config)
	if open := listed(t, config); len(open) != 0 {
		t.Errorf("%d are open", len(open))
	}
	if v := verified(t, config); v.Rows != n {
		t.Errorf("%d rows", v.Rows)
	}
}
