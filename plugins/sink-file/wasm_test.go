//go:build !wasip1

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/internal/plugintest"
)

var cache *host.Cache

// TestMain keeps compiled code for the whole run.
func TestMain(m *testing.M) { os.Exit(plugintest.Main(m, &cache)) }

func batch(from, to int) *abi.Batch {
	b := &abi.Batch{ID: uint64(from), Attempt: 1, Queue: [16]byte{1}}
	for i := from; i <= to; i++ {
		b.Events = append(b.Events, abi.Event{ID: fmt.Sprint("id-", i), AgentID: "agent", EventType: "governance.refusal", Seq: uint64(i),
			Timestamp: "2026-01-01T00:00:00+00:00", Payload: fmt.Appendf(nil, `{"n":%d}`, i), AttestLevel: abi.AttestUnsigned})
	}
	return b
}

func openFile(t *testing.T, config string, o appendfile.Options) (*host.Sink, error) {
	t.Helper()
	return plugintest.Open(t, "sink-file", host.Options{Name: "file", Cache: cache, Config: []byte(config), Append: &o})
}

// idsIn are the ids in the files of a folder, with how often each is there.
func idsIn(t *testing.T, dir string) map[string]int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "out.jsonl*"))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			var e struct {
				ID, Specversion string
				Payload, Data   struct{ N int }
			}
			if json.Unmarshal([]byte(line), &e) != nil {
				ids["(broken)"]++
				continue
			}
			if n := e.Payload.N + e.Data.N; e.ID != fmt.Sprint("id-", n) {
				t.Errorf("%s has the payload %d", e.ID, n)
			}
			ids[e.ID]++
		}
	}
	return ids
}

func TestWritesLines(t *testing.T) {
	for config, first := range map[string]string{
		`{}`: `{"id":"id-1","event_type":"governance.refusal","agent_id":"agent",`,
		`{"format":"cloudevents","source":"urn:x"}`: `{"specversion":"1.0","id":"id-1","source":"urn:x",`,
		`{"format":"payload"}`:                      `{"n":1}` + "\n" + `{"n":2}` + "\n",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "out.jsonl")
		s, err := openFile(t, config, appendfile.Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []*abi.Batch{batch(1, 1000), batch(1001, 1001)} {
			if r := s.Deliver(t.Context(), b); r.Outcome != abi.OK {
				t.Fatalf("%v %q %s", r.Outcome, r.Detail, r.Stderr)
			}
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), first) || strings.Count(string(text), "\n") != 1001 {
			t.Errorf("%s: %d lines, %v: %.200s", config, strings.Count(string(text), "\n"), err, text)
		}
		if config != `{"format":"payload"}` {
			if ids := idsIn(t, dir); len(ids) != 1001 {
				t.Errorf("%s: %d ids", config, len(ids))
			}
		}
	}
}

func TestBadConfigurations(t *testing.T) {
	for config, want := range map[string]string{
		`{"format":"xml"}`: "wanted one of event, payload, cloudevents", `{"source":""}`: "source is empty", `{"path":"x"}`: `unknown field "path"`,
	} {
		_, err := openFile(t, config, appendfile.Options{Path: filepath.Join(t.TempDir(), "x")})
		var bad *host.ConfigError
		if !errors.As(err, &bad) || !strings.Contains(bad.Detail, want) {
			t.Errorf("%s: %v", config, err)
		}
	}
}

// TestWhatCannotBeAppended is BUSY, whatever it is.
func TestWhatCannotBeAppended(t *testing.T) {
	for status := abi.StatusRefused; status <= abi.StatusAbsent; status++ {
		restore := guest.UseHost(guest.Host{Append: func([]byte) abi.Status { return status }})
		b := batch(1, 2)
		v := plugintest.View(t, b)
		for _, config := range []string{`{}`, `{"format":"payload"}`} {
			s := &sink{}
			s.Open([]byte(config))
			if a := s.Deliver(v); a.Outcome != abi.Busy || !strings.Contains(a.Message, status.String()) {
				t.Errorf("%s: %v %q", config, a.Outcome, a.Message)
			}
		}
		restore()
	}
}

// TestLargeBatchIsAppendedInPortions, each of whole lines.
func TestLargeBatchIsAppendedInPortions(t *testing.T) {
	var portions []string
	t.Cleanup(guest.UseHost(guest.Host{Append: func(b []byte) abi.Status { portions = append(portions, string(b)); return abi.StatusDone }}))
	b := batch(1, 8)
	for i := range b.Events {
		b.Events[i].Payload = []byte(`"` + strings.Repeat("x", 400_000) + `"`)
	}
	v := plugintest.View(t, b)
	s := &sink{}
	s.Open([]byte(`{}`))
	if a := s.Deliver(v); a.Outcome != abi.OK || a.Arg != 8 || len(portions) != 3 {
		t.Errorf("%v(%d) in %d portions", a.Outcome, a.Arg, len(portions))
	}
	for _, p := range portions {
		if !strings.HasSuffix(p, "\n") || len(p) > portion+401_000 {
			t.Errorf("a portion of %d bytes", len(p))
		}
	}
}

// killDir is the folder of a child of TestKilledWriter.
const killDir = "AUDIT_HOST_TEST_SINK_FILE_DIR"

// TestKilledWriter kills a process with SIGKILL while the plugin writes and
// files are rotated: what it had answered OK is there, and each line is whole
// but for at most one broken one a kill.
func TestKilledWriter(t *testing.T) {
	o := func(dir string) appendfile.Options {
		return appendfile.Options{Path: filepath.Join(dir, "out.jsonl"), MaxSize: 4000}
	}
	if dir := os.Getenv(killDir); dir != "" {
		s, err := openFile(t, `{}`, o(dir))
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; ; n += 3 {
			if r := s.Deliver(t.Context(), batch(n, n+2)); r.Outcome != abi.OK {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
			fmt.Printf("stored %d\n", n+2)
		}
	}
	dir := t.TempDir()
	most := 0
	const kills = 3
	for round := range kills {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$", "-test.timeout=1m")
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		told := 0
		for scan, n := bufio.NewScanner(out), 0; scan.Scan(); {
			if _, err := fmt.Sscanf(scan.Text(), "stored %d", &told); err == nil {
				if n++; n == 10+13*round {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if err := cmd.Wait(); err == nil || told == 0 {
			t.Fatalf("the child ended by itself: %v", err)
		}
		most = max(most, told)
		ids := idsIn(t, dir)
		if ids["(broken)"] > round+1 {
			t.Errorf("%d broken lines after %d kills", ids["(broken)"], round+1)
		}
		for n := 1; n <= most; n++ {
			if ids[fmt.Sprint("id-", n)] == 0 {
				t.Errorf("round %d: event %d was stored and is not there", round, n)
			}
		}
	}
}
