package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline/compiled"
)

func TestMain(m *testing.M) {
	code, err := prepared(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

// The names of variables that tests take from TestMain.
const (
	warmState = "AUDIT_HOST_TEST_STATE"  // a state directory with all code compiled
	binary    = "AUDIT_HOST_TEST_BINARY" // audit-host as it is shipped
)

func prepared(m *testing.M) (code int, err error) {
	if err := compiled.Check(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "audit-host-test")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Processes of their own are the program that is shipped, and not this
	// one, which may run under the race detector and compile for minutes.
	exe := filepath.Join(dir, "bin", "audit-host")
	if runtime.GOOS == "windows" {
		exe += ".exe"
	}
	build := exec.Command("go", "build", "-o", exe, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build audit-host: %w\n%s", err, out)
	}
	home := filepath.Join(dir, "home")
	if err := compile(home); err != nil {
		return 1, fmt.Errorf("compile the plugins: %w", err)
	}
	if err := errors.Join(os.Setenv(binary, exe), os.Setenv(warmState, filepath.Join(home, "state"))); err != nil {
		return 1, err
	}
	if err := flag.Set("test.parallel", "6"); err != nil { // they wait for more than they compute
		return 1, err
	}
	return m.Run(), nil
}

// compile makes a folder whose state has the code of both plugins.
func compile(dir string) error {
	if _, err := initialize(dir); err != nil {
		return err
	}
	config := filepath.Join(dir, "audit.toml")
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	text = append(text, "\n[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\n"...)
	if err := os.WriteFile(config, text, 0o644); err != nil {
		return err
	}
	var stderr bytes.Buffer
	if code := run(context.Background(), []string{"ingest", "-c", config, "-"}, strings.NewReader(""), io.Discard, &stderr); code != 0 {
		return fmt.Errorf("exit code %d: %s", code, &stderr)
	}
	return nil
}

// warm gives a state directory the compiled code.
func warm(state string) error { return compiled.Share(os.Getenv(warmState), state) }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(os.Getenv(binary))+string(filepath.ListSeparator)+env.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"warm":  func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(warm(ts.MkAbs(args[0]))) },
		},
	})
}

// exits runs "exits CODE command..." and wants that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %v: %v", args[1:], err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("%v exits with %d, want %s", args[1:], code, args[0])
	}
}

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// command runs audit-host in this process.
func command(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// must is command that has to exit with code.
func must(t testing.TB, code int, stdin string, args ...string) result {
	t.Helper()
	r := command(t, stdin, args...)
	if r.code != code {
		t.Fatalf("audit-host %s: exit code %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	return r
}

// home is a folder that init made, with compiled code in it and a port of the
// kernel's choice. Replacements are pairs of old and new text of audit.toml.
func home(t testing.TB, replacements ...string) (config string) {
	t.Helper()
	dir := t.TempDir()
	must(t, 0, "", "init", dir)
	if err := warm(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	config = filepath.Join(dir, "audit.toml")
	edit(t, config, append([]string{`address = "127.0.0.1:8480"`, `address = "127.0.0.1:0"`}, replacements...)...)
	return config
}

// edit replaces texts of a file that have to be there.
func edit(t testing.TB, file string, replacements ...string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(replacements); i += 2 {
		if !bytes.Contains(text, []byte(replacements[i])) {
			t.Fatalf("%s has no %q", file, replacements[i])
		}
		text = bytes.Replace(text, []byte(replacements[i]), []byte(replacements[i+1]), 1)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// refusal is a native event with an id, one line.
func refusal(id string) string {
	return fmt.Sprintf(`{"id":%q,"agent_id":"agent:alice","action":{"kind":"bash","command":"rm -rf /"},`+
		`"decision":{"decision":"refuse","rule_id":"R001","reason":"no"},"timestamp":"2026-01-01T00:00:00Z"}`+"\n", id)
}
