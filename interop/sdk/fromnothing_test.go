package sdk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi/sdk"
)

// TestFromNothing does in an empty folder, with the binary and a compiler alone,
// what the README of a new plugin says: new, build, check, run, and an event
// lands. With -v it shows the commands, their output and their times.
func TestFromNothing(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "audit-host")
	output(t, "../..", os.Environ(), "go", "build", "-o", bin, "./cmd/audit-host")
	langs := append([]string{"go"}, sdk.Languages()...)
	if only := os.Getenv("LANGUAGES"); only != "" {
		langs = strings.Fields(only)
	}
	for _, lang := range langs {
		for _, grant := range []string{"append", "http", "sql"} {
			t.Run(lang+"/"+grant, func(t *testing.T) { fromNothing(t, bin, lang, grant) })
		}
	}
}

func fromNothing(t *testing.T, bin, lang, grant string) {
	empty := t.TempDir()
	dir := filepath.Join(empty, "my-sink")
	env := append(os.Environ(), "PATH="+filepath.Dir(bin)+string(filepath.ListSeparator)+os.Getenv("PATH"), "GOPROXY=off", "GOTOOLCHAIN=local", "GOMODCACHE="+t.TempDir())
	j := &journal{t: t}
	j.step(func() string {
		return output(t, empty, env, bin, "plugin", "new", "my-sink", "--lang", lang, "--grant", grant)
	},
		"audit-host plugin new my-sink --lang %s --grant %s", lang, grant)
	j.step(func() string { return output(t, dir, env, "sh", "build.sh") }, "sh build.sh")
	if info, err := os.Stat(filepath.Join(dir, "my-sink.wasm")); err != nil {
		t.Fatal(err)
	} else {
		j.note("my-sink.wasm has %d bytes", info.Size())
	}
	check := commandOf(t, dir, "audit-host plugin check ")
	if grant != "append" {
		check += " --batches 500" // endurance is what takes long
	}
	j.step(func() string { return output(t, dir, env, bin, strings.Fields(check)[1:]...) }, "%s", check)
	where := map[string]string{"append": "events.log", "http": "received.jsonl", "sql": "events.db"}[grant]
	configs := []string{"audit.toml"}
	if grant == "http" {
		configs = []string{"collector.toml", "audit.toml"} // the port of the first stands in the second
	}
	ports := regexp.MustCompile(`127\.0\.0\.1:848[01]"`)
	var address string
	for _, config := range configs {
		path := filepath.Join(dir, config)
		replace(t, path, func(text string) string { return ports.ReplaceAllString(text, `127.0.0.1:0"`) })
		var d *daemon
		j.step(func() string {
			d, address = start(t, dir, env, bin, config)
			return ""
		}, "audit-host run -c %s", config)
		defer d.stop()
		if config == "collector.toml" {
			_, port, _ := strings.Cut(address, ":")
			replace(t, filepath.Join(dir, "audit.toml"), func(text string) string { return strings.ReplaceAll(text, "8481", port) })
		}
	}
	var id string
	j.step(func() string {
		id = post(t, "http://"+address+"/v1/events?ack=ledger")
		awaitText(t, []string{filepath.Join(dir, where), filepath.Join(dir, where+"-wal")}, id)
		return "event " + id
	}, "curl, until it is found in %s", where)
	j.note("all of it: %v", j.total.Round(time.Millisecond))
}

// journal notes what was done and how long it took.
type journal struct {
	t     *testing.T
	total time.Duration
}

func (j *journal) step(do func() string, format string, args ...any) {
	j.t.Helper()
	begun := time.Now()
	out := do()
	took := time.Since(begun)
	j.total += took
	j.note("%7.2f s  $ %s\n%s", took.Seconds(), fmt.Sprintf(format, args...), out)
}

func (j *journal) note(format string, args ...any) {
	j.t.Helper()
	j.t.Logf("%s", strings.TrimRight(fmt.Sprintf(format, args...), "\n"))
}

// output runs a command that has to succeed and returns all that it wrote.
func output(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Dir, c.Env = dir, env
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// commandOf finds a command in the README that the plugin came with.
func commandOf(t *testing.T, dir, prefix string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, prefix) {
			command, _, _ := strings.Cut(line, "#")
			return strings.TrimSpace(command)
		}
	}
	t.Fatalf("README.md has no %q", prefix)
	return ""
}

func replace(t *testing.T, path string, change func(string) string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		changed := change(string(text))
		if changed == string(text) {
			t.Fatalf("%s has not what is to be changed:\n%s", path, text)
		}
		err = os.WriteFile(path, []byte(changed), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// daemon is a running audit-host.
type daemon struct {
	t   *testing.T
	cmd *exec.Cmd
	log string
}

// patience is how long a process may take for anything.
const patience = 2 * time.Minute

// start runs audit-host until it listens, and returns where.
func start(t *testing.T, dir string, env []string, bin, config string) (*daemon, string) {
	t.Helper()
	d := &daemon{t: t, cmd: exec.CommandContext(t.Context(), bin, "run", "-c", config), log: filepath.Join(t.TempDir(), "log")}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Dir, d.cmd.Env, d.cmd.Stderr = dir, env, log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil { // the process has its own
		t.Fatal(err)
	}
	listening := regexp.MustCompile(`msg=listening address=(\S+)`)
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(10 * time.Millisecond) {
		text := d.said()
		if m := listening.FindStringSubmatch(text); m != nil {
			return d, m[1]
		}
		if strings.Contains(text, "audit-host: ") {
			break // it has ended
		}
	}
	d.stop()
	t.Fatalf("audit-host does not listen:\n%s", d.said())
	return nil, ""
}

func (d *daemon) said() string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		d.t.Error(err)
	}
	return string(text)
}

func (d *daemon) stop() {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Error(err)
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("audit-host: %v\n%s", err, d.said())
	}
}

// post sends an event and returns its id.
func post(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Post(url, "application/json", strings.NewReader(`{
		"agent_id": "agent:alice",
		"action": {"kind": "filesystem_write", "path": "/etc/passwd"},
		"decision": {"decision": "refuse", "rule_id": "R001", "reason": "no writes to /etc"}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Events []struct{ ID, Status string } }
	if err := json.Unmarshal(text, &answer); err != nil || len(answer.Events) != 1 || answer.Events[0].Status != "appended" {
		t.Fatalf("HTTP %d: %s, %v", r.StatusCode, text, err)
	}
	return answer.Events[0].ID
}

// awaitText waits until one of the files, which may be missing, holds a text.
func awaitText(t *testing.T, files []string, text string) {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(time.Millisecond) {
		for _, file := range files {
			if content, err := os.ReadFile(file); err == nil && bytes.Contains(content, []byte(text)) {
				return
			}
		}
	}
	t.Fatalf("%q is not in %v", text, files)
}
