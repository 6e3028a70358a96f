package sdk

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/abi/sdk"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/egress"
)

// eachWith runs a test for the example with a grant in every language, Go among
// them, or in those that LANGUAGES names.
func eachWith(t *testing.T, grant string, f func(t *testing.T, wasm []byte)) {
	for _, lang := range append([]string{"go"}, sdk.Languages()...) {
		if only := os.Getenv("LANGUAGES"); only != "" && !slices.Contains(strings.Fields(only), lang) {
			continue
		}
		t.Run(lang, func(t *testing.T) {
			if lang == "go" {
				f(t, goExample(t, grant))
				return
			}
			dir := project(t, lang)
			// As "audit-host plugin new" does: what differs from the first one.
			files, err := filepath.Glob(filepath.Join(dir, "audit-host-sdk", "example-"+grant, "*"))
			if err != nil || len(files) != 2 {
				t.Fatalf("the example has %q, %v; wanted a source and a manifest", files, err)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			f(t, build(t, dir, "example.wasm"))
		})
	}
}

// goExample builds that in Go where it lies.
func goExample(t *testing.T, grant string) []byte {
	t.Helper()
	const templates = "cmd/audit-host/internal/scaffold/golang/"
	file := filepath.Join(t.TempDir(), "example.wasm")
	output(t, "../..", append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"), "go", "build", "-buildmode=c-shared", "-o", file, "./"+templates+grant)
	if _, err := manifest.SetFile(file, filepath.Join("../..", templates, grant, "manifest.json")); err != nil {
		t.Fatal(err)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// collector stands in for the network.
type collector struct {
	code  int // 0: no answer
	text  string
	asked []string
}

func (c *collector) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	c.asked = append(c.asked, fmt.Sprintf("%s %s %s\n%s", r.Method, r.URL, r.Header.Get("Content-Type"), body))
	if c.code == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: c.code, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(c.text)), Request: r}, nil
}

func policy(c *collector) *egress.Policy {
	return &egress.Policy{MaxRequest: 64 << 10, StandIn: c,
		Hosts: []egress.HostRule{{Scheme: "https", Host: "collector.test", Methods: []string{"POST"}, PathPrefix: "/in"}}}
}

const toCollector = `{"url": "https://collector.test/in"}`

// TestHTTPExamples: the same request from all of them, and the same answers.
func TestHTTPExamples(t *testing.T) {
	eachWith(t, "http", func(t *testing.T, wasm []byte) {
		c := &collector{code: 200}
		s := mustOpen(t, wasm, host.Options{Config: []byte(toCollector), HTTP: policy(c)})
		b := batch(1, 3, small)
		b.Events[1].ID = `a"b\c <é>`
		b.Events[2].Payload = []byte(`{}`)
		deliver(t, s, b)
		want := "POST https://collector.test/in application/x-ndjson\n" + `{"id":"id-1","n":1}` + "\n" + `{"id":"a\"b\\c <é>","n":2}` + "\n" + `{"id":"id-3"}` + "\n"
		if len(c.asked) != 1 || c.asked[0] != want {
			t.Errorf("it sent %q, wanted %q", c.asked, want)
		}
		deliver(t, s, batch(1, 0, small))
		if len(c.asked) != 1 {
			t.Errorf("for an empty batch it sent %q", c.asked[1:])
		}
		long := strings.Repeat("é", 10_000)
		for _, a := range []struct {
			code int
			text string
			want abi.Outcome
			says string
		}{
			{201, "", abi.OK, ""}, {299, long, abi.OK, ""},
			{400, "bad line", abi.Reject, "HTTP 400 bad line"}, {413, "", abi.Reject, "HTTP 413"}, {422, long, abi.Reject, "HTTP 422 éé"},
			{401, "", abi.Busy, "HTTP 401"}, {404, "", abi.Busy, "HTTP 404"}, {429, "", abi.Busy, "HTTP 429"}, {503, "no \xff text", abi.Busy, "HTTP 503 no "},
			{0, "", abi.Busy, "the connection failed"},
		} {
			c.code, c.text = a.code, a.text
			if r := s.Deliver(t.Context(), batch(1, 2, small)); r.Outcome != a.want || !strings.Contains(r.Detail, a.says) {
				t.Errorf("HTTP %d: %v %q, wanted %v %q", a.code, r.Outcome, r.Detail, a.want, a.says)
			}
		}
		c.code, c.asked = 200, nil
		r := s.Deliver(t.Context(), batch(1, 2, func(int) string { return `{"x":"` + strings.Repeat("x", 40<<10) + `"}` }))
		if r.Outcome != abi.Reject || len(c.asked) != 0 {
			t.Errorf("a request that is too large: %v %q, sent %d", r.Outcome, r.Detail, len(c.asked))
		}
		other := mustOpen(t, wasm, host.Options{Config: []byte(`{"url": "https://other.test/in"}`), HTTP: policy(c)})
		if r := other.Deliver(t.Context(), batch(1, 1, small)); r.Outcome != abi.Busy || r.Detail == "" {
			t.Errorf("a URL that is not granted: %v %q", r.Outcome, r.Detail)
		}
		refuses(t, wasm, host.Options{HTTP: policy(c)}, `{}`, `{"url":""}`, `{"url":1}`, `{"url":"ftp://a"}`, `{"url":"https://a b"}`, `{"url":"https://a\nb"}`, `{"url":"https://a","x":1}`, `[]`, `{"url":"https://a"} x`)
	})
}

// TestSQLExamples: each event is stored once, whatever comes.
func TestSQLExamples(t *testing.T) {
	eachWith(t, "sql", func(t *testing.T, wasm []byte) {
		path := filepath.Join(t.TempDir(), "events.db")
		grant := host.Options{SQL: &host.SQLGrant{Database: path, Create: true}}
		many := batch(1000, 2500, func(i int) string { return fmt.Sprintf(`{"many":%d}`, i) })
		twice := batch(1, 3, small)
		twice.Events = append(twice.Events, twice.Events[0])
		// What the file has after these batches, of which nothing is in a log any more.
		file := func(batches ...*abi.Batch) string {
			t.Helper()
			grant.Name, grant.Cache = "example", cache
			s, err := host.Open(t.Context(), wasm, grant)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range batches {
				deliver(t, s, b)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		text := file(batch(1, 0, small), twice, batch(2, 4, small))
		for i := 1; i <= 4; i++ {
			// Payloads stand in the table only.
			if n := strings.Count(text, small(i)); n != 1 {
				t.Errorf("%s is in the database %d times", small(i), n)
			}
		}
		text = file(many)
		for _, e := range many.Events {
			if !strings.Contains(text, string(e.Payload)) {
				t.Fatalf("%s is not in the database", e.Payload)
			}
		}
		// Nothing but SQLite's counters of changes may differ.
		if again := file(many, many); len(again) != len(text) || strings.Count(again, "many") != strings.Count(text, "many") {
			t.Error("the database has grown by events that it had")
		}
		grant.SQL = &host.SQLGrant{Database: filepath.Join(t.TempDir(), "none.db")}
		if r := mustOpen(t, wasm, grant).Deliver(t.Context(), batch(1, 1, small)); r.Outcome != abi.Busy || r.Detail == "" {
			t.Errorf("a database that is not there: %v %q", r.Outcome, r.Detail)
		}
		grant.SQL = &host.SQLGrant{Database: path, MaxSQL: 64}
		if r := mustOpen(t, wasm, grant).Deliver(t.Context(), batch(1, 1, small)); r.Outcome != abi.Reject || r.Detail == "" {
			t.Errorf("a script that is too large: %v %q", r.Outcome, r.Detail)
		}
		refuses(t, wasm, host.Options{SQL: grant.SQL}, `{"x":1}`, `[]`, `null`, `{} {}`, `{`)
	})
}

// refuses wants BAD_CONFIG, with words, for configurations.
func refuses(t *testing.T, wasm []byte, o host.Options, configs ...string) {
	t.Helper()
	for _, config := range configs {
		o.Name, o.Cache, o.Config = "example", cache, []byte(config)
		s, err := host.Open(t.Context(), wasm, o)
		if err == nil {
			err = s.Close(t.Context())
			t.Errorf("it takes the configuration %s (%v)", config, err)
			continue
		}
		var bad *host.ConfigError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", config, err)
		}
	}
}
