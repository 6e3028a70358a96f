package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPluginNewInGo does what the README of a new plugin says, with nothing but
// the binary, Go and an empty folder: no network, no module in the cache. An
// event then lands where it should. Other compilers are needed for the other
// languages: see the module interop.
func TestPluginNewInGo(t *testing.T) {
	t.Parallel()
	for _, grant := range []string{"append", "http", "sql"} {
		t.Run(grant, func(t *testing.T) {
			empty := t.TempDir()
			env := append(os.Environ(), "PATH="+filepath.Dir(os.Getenv(binary))+string(filepath.ListSeparator)+os.Getenv("PATH"),
				"GOPROXY=off", "GOSUMDB=off", "GOTOOLCHAIN=local", "GOMODCACHE="+t.TempDir(), "AUDIT_HOST=")
			inside(t, empty, env, "", "audit-host", "plugin", "new", "my-sink", "--lang", "go", "--grant", grant)
			dir := filepath.Join(empty, "my-sink")
			// An empty AUDIT_HOST is none.
			inside(t, dir, env, "", "sh", "build.sh")
			if list, err := filepath.Glob(filepath.Join(dir, "*.part")); err != nil || list != nil {
				t.Errorf("left behind: %q, %v", list, err)
			}
			if err := warm(filepath.Join(dir, "state")); err != nil {
				t.Fatal(err)
			}
			landed := func() string { return inside(t, dir, env, "", "cat", "events.log") }
			switch grant {
			case "http":
				var got bytes.Buffer
				server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					if _, err := io.Copy(&got, r.Body); err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/events" {
						t.Errorf("%s %s: %v", r.Method, r.URL, err)
					}
				}))
				t.Cleanup(server.Close)
				_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
				edit(t, filepath.Join(dir, "audit.toml"), ":8481/", ":"+port+"/", "port = 8481", "port = "+port)
				landed = func() string {
					server.Close() // waits for what is being answered
					return got.String()
				}
			case "sql":
				landed = func() string { return rows(t, filepath.Join(dir, "events.db")) }
			}
			inside(t, dir, env, refusal("id-1")+refusal("id-2")+refusal("id-1"), "audit-host", "ingest", "-c", "audit.toml", "-")
			text := landed()
			want := map[string]int{"id-1": 2, "id-2": 1}
			if grant == "sql" {
				want["id-1"] = 1
			}
			for id, n := range want {
				if strings.Count(text, id) != n || !strings.Contains(text, `"rule_id":"R001"`) {
					t.Errorf("%s landed %d times, wanted %d:\n%s", id, strings.Count(text, id), n, text)
				}
			}
		})
	}
}

// inside runs a command in a folder and returns what it wrote to stdout.
func inside(t *testing.T, dir string, env []string, stdin, name string, args ...string) string {
	t.Helper()
	if name == "audit-host" {
		name = os.Getenv(binary)
	}
	c := exec.Command(name, args...)
	c.Dir, c.Env, c.Stdin = dir, env, strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// rows has the table of the example with sql as lines.
func rows(t *testing.T, file string) string {
	t.Helper()
	var out strings.Builder
	stmt, _, err := openSQL(t, file).Prepare("SELECT id, payload FROM events")
	if err != nil {
		t.Fatal(err)
	}
	for stmt.Step() {
		out.WriteString(stmt.ColumnText(0) + "\t" + stmt.ColumnText(1) + "\n")
	}
	if err := stmt.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
