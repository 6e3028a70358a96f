//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/audit-host/audit-host/event"
)

// child is audit-host as a process of its own.
type child struct {
	process
	cmd *exec.Cmd
}

// spawn starts a daemon and waits until it listens.
func spawn(t *testing.T, config string) *child {
	t.Helper()
	return spawnCommand(t, exec.Command(os.Getenv(binary), "run", "-c", config))
}

func spawnCommand(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	c := &child{cmd: cmd}
	c.lines, c.done = make(chan string, 1<<16), make(chan struct{})
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		s := bufio.NewScanner(stderr)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			fmt.Fprintln(&c.log, s.Text())
			select {
			case c.lines <- s.Text():
			default:
			}
		}
		close(c.lines)
		_ = c.cmd.Wait() // the state tells
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // it may have ended
		<-c.done
		if t.Failed() {
			t.Logf("the daemon wrote:\n%s", &c.log)
		}
	})
	if m := listening.FindStringSubmatch(c.await(t, "msg=listening")); m != nil {
		c.url = "http://" + m[1]
	}
	return c
}

// await returns the first line of stderr that has the text.
func (c *child) await(t *testing.T, text string) string {
	t.Helper()
	for line := range c.lines {
		if strings.Contains(line, text) {
			return line
		}
	}
	t.Fatalf("the daemon ended before it wrote %q", text)
	return ""
}

func (c *child) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (c *child) status() syscall.WaitStatus {
	<-c.done
	return c.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// SIGINT and SIGTERM alike: what was accepted lands before the process ends.
func TestSignalsDrain(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			config := home(t)
			c := spawn(t, config)
			var body strings.Builder
			for i := range 5000 {
				body.WriteString(refusal(fmt.Sprint("e", i)))
			}
			if a := c.post(t, "accepted", body.String()); a.Accepted != 5000 {
				t.Fatalf("accepted %d", a.Accepted)
			}
			c.signal(t, s)
			if st := c.status(); !st.Exited() || st.ExitStatus() != 0 {
				t.Fatalf("status %v", st)
			}
			if !strings.Contains(c.log.String(), "appended=5000 dead_lettered=0 remained=0") {
				t.Error("the report is missing")
			}
			if v := verified(t, config); v.Rows != 5000 {
				t.Errorf("%d rows", v.Rows)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(config), "ledger.db-wal")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the ledger's log was not written back: %v", err)
			}
		})
	}
}

// A second signal ends it at once, whatever it waits for.
func TestSecondSignal(t *testing.T) {
	config := home(t, "[dead_letters]", "[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nconfig.rules = [{do = \"busy\", pause_ms = 60000}]\n\n[dead_letters]",
		"#drain_timeout = \"5s\"", "drain_timeout = \"1h\"")
	c := spawn(t, config)
	c.post(t, "accepted", refusal("e1"))
	c.signal(t, syscall.SIGTERM)
	c.await(t, "msg=stopping")
	c.signal(t, syscall.SIGTERM)
	if st := c.status(); !st.Signaled() || st.Signal() != syscall.SIGTERM {
		t.Errorf("status %v, want the signal's", st)
	}
}

// What was answered with 2xx is there after kill -9.
func TestKilled(t *testing.T) {
	t.Parallel()
	config := home(t, "[dead_letters]", "[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nconfig.rules = [{do = \"delay\", pause_ms = 20}]\n\n[dead_letters]")
	c := spawn(t, config)
	const events = 2000
	var body strings.Builder
	for i := range events {
		body.WriteString(refusal(fmt.Sprint("e", i)))
	}
	if a := c.post(t, "durable", body.String()); a.Events[events-1].Status != event.StatusDurable {
		t.Fatalf("the last one: %+v", a.Events[events-1])
	}
	c.signal(t, syscall.SIGKILL)
	<-c.done
	d := serve(t, config)
	last := d.post(t, "ledger", refusal("last")) // behind all others
	if last.Events[0].Sequence != events+1 {
		t.Errorf("the event after the crash has sequence %d, want %d", last.Events[0].Sequence, events+1)
	}
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != events+1 {
		t.Errorf("%d rows, want %d", v.Rows, events+1)
	}
	// The ledger knows how far it has come in this queue: an older one, or an
	// empty one with the same name, is not taken for it.
	state := filepath.Join(filepath.Dir(config), "state")
	must(t, 0, "", "ingest", "-c", config, "-")
	if err := os.RemoveAll(filepath.Join(state, "queue")); err != nil {
		t.Fatal(err)
	}
	must(t, 0, refusal("after"), "ingest", "-c", config, "-") // a new queue has another id
	if v := verified(t, config); v.Rows != events+2 {
		t.Errorf("%d rows, want %d", v.Rows, events+2)
	}
}

// A service manager is told when the daemon is ready and when it stops.
func TestNotify(t *testing.T) {
	name := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	serve(t, home(t)).stop(t, 0)
	var got [][]byte
	for range 2 {
		buf := make([]byte, 64)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n])
	}
	if text := string(bytes.Join(got, []byte(" "))); text != "READY=1 STOPPING=1" {
		t.Errorf("told %q", text)
	}
}
