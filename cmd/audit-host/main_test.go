package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/audit-host/audit-host/plugins/bundled"
)

func TestMain(m *testing.M) {
	testscript.Main(&suite{m}, map[string]func(){"audit-host": main})
}

// suite runs the tests in the process that was started to do so; the others,
// with the same binary, are audit-host itself.
type suite struct{ m *testing.M }

func (s *suite) Run() int {
	for _, name := range bundled.Names() {
		if _, err := bundled.Read(name); err != nil {
			fmt.Fprintf(os.Stderr, "FAIL: %v\nThese tests need the plugins: run \"make plugins\" first.\n", err)
			return 1
		}
	}
	dir, err := os.MkdirTemp("", "audit-host-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Compiled once: every test has a state directory of its own.
	if err := compile(dir); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: compile the plugins: %v\n", err)
		return 1
	}
	if err := os.Setenv(warmCache, filepath.Join(dir, "state", "cache")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return s.m.Run()
}

// warmCache names the variable that has the folder of compiled code.
const warmCache = "AUDIT_HOST_TEST_CACHE"

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
func warm(state string) error {
	cache := filepath.Join(state, "cache")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(os.Getenv(warmCache))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Link(filepath.Join(os.Getenv(warmCache), e.Name()), filepath.Join(cache, e.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv(warmCache, os.Getenv(warmCache))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exits,
			"warm":   func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(warm(ts.MkAbs(args[0]))) },
			"append": appendText,
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

// appendText runs "append FILE FROM": the text of FROM goes to the end of FILE.
func appendText(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0]) + ts.ReadFile(args[1])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// command runs audit-host in this process.
func command(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// must is command that has to exit with code.
func must(t *testing.T, code int, stdin string, args ...string) result {
	t.Helper()
	r := command(t, stdin, args...)
	if r.code != code {
		t.Fatalf("audit-host %s: exit code %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	return r
}

// home is a folder that init made, with compiled code in it and a port of the
// kernel's choice. Replacements are pairs of old and new text of audit.toml.
func home(t *testing.T, replacements ...string) (config string) {
	t.Helper()
	dir := t.TempDir()
	must(t, 0, "", "init", dir)
	if err := warm(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	// The parents of the cache must be ours alone too.
	if err := os.Chmod(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	config = filepath.Join(dir, "audit.toml")
	edit(t, config, append([]string{`address = "127.0.0.1:8480"`, `address = "127.0.0.1:0"`}, replacements...)...)
	return config
}

// edit replaces texts of a file that have to be there.
func edit(t *testing.T, file string, replacements ...string) {
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
