package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/lockfile"
	"github.com/audit-host/audit-host/plugins/bundled"
	"github.com/audit-host/audit-host/queue"
)

// collectorSink is a sink-http for a server.
func collectorSink(t *testing.T, server *httptest.Server, path string) string {
	t.Helper()
	host, port, ok := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	if !ok {
		t.Fatal(server.URL)
	}
	return fmt.Sprintf(`
[[sink]]
name = "siem"
plugin = "sink-http"
required = false
[sink.config]
url = %q
shape = "payload"
headers = { Authorization = "Bearer {{secret token}}" }
[sink.grant.http]
hosts = [{ scheme = "http", host = %q, port = %s, methods = ["POST"] }]
secrets.token = { file = "siem.token", host = %q }
`, server.URL+path, host, port, host)
}

// write puts a file beside the configuration.
func write(t *testing.T, cfg *config.Config, name, text string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(filepath.Dir(cfg.File), name)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func TestGrantsReachTheWorld(t *testing.T) {
	var mu sync.Mutex
	var got, auth string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got, auth = got+string(b), r.Header.Get("Authorization")
	}))
	defer server.Close()
	cfg := parse(t, sample+collectorSink(t, server, "/in")+`
[[sink]]
name = "file"
plugin = "sink-file"
grant.append.path = "events.jsonl"
`)
	write(t, cfg, "siem.token", "a-very-secret-value\n", 0o600)
	var log bytes.Buffer
	p, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := p.Recorder.Submit(t.Context(), refusal(t, fmt.Sprint("agent-", i))); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := p.Recorder.DrainPending(ctx); err != nil {
		t.Fatal(err)
	}
	list := p.Egress()
	if len(list) != 1 || list[0].Sink != "siem" || list[0].Requests == 0 || list[0].Refused != 0 || list[0].Sent == 0 {
		t.Errorf("egress %+v", list)
	}
	closeAll(t, p)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(cfg.File), "events.jsonl"))
	if err != nil || strings.Count(string(text), "\n") != 3 || !strings.Contains(string(text), `"agent_id":"agent-2"`) {
		t.Errorf("file %q, %v", text, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Count(got, "\n") != 3 || auth != "Bearer a-very-secret-value" {
		t.Errorf("the collector got %q with %q", got, auth)
	}
	if strings.Contains(log.String(), "secret-value") {
		t.Errorf("the secret is in the log:\n%s", &log)
	}
}

// TestRedirectOutOfTheGrant: refused, counted, logged with the hop, and the
// event is kept.
func TestRedirectOutOfTheGrant(t *testing.T) {
	reached := make(chan struct{}, 100)
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached <- struct{}{} }))
	defer other.Close()
	target := strings.Replace(other.URL, "127.0.0.1", "localhost", 1) + "/steal"
	asked := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target, http.StatusTemporaryRedirect)
		asked <- struct{}{}
	}))
	defer server.Close()
	cfg := parse(t, sample+collectorSink(t, server, "/in"))
	write(t, cfg, "siem.token", "a-very-secret-value\n", 0o600)
	refusedLine := make(chan string, 100)
	p, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.NewTextHandler(lineWriter(refusedLine), nil))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Recorder.Submit(t.Context(), refusal(t, "alice")); err != nil {
		t.Fatal(err)
	}
	<-asked
	line := <-refusedLine
	for _, want := range []string{"level=WARN", "sink=siem", "refused.hop=1", "refused.url=" + strings.TrimSuffix(target, "/steal")} {
		if !strings.Contains(line, want) {
			t.Errorf("%s lacks %s", line, want)
		}
	}
	if list := p.Egress(); len(list) != 1 || list[0].Refused == 0 {
		t.Errorf("egress %+v", list)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	report, err := p.Close(ctx)
	var left *queue.RemainingError
	if err != nil && !errors.As(err, &left) {
		t.Error(err)
	}
	if len(reached) != 0 {
		t.Error("the other server was reached")
	}
	if !strings.Contains(fmt.Sprintf("%+v", report), "siem") {
		t.Errorf("report %+v", report)
	}
}

// lineWriter sends on the lines about refused requests.
type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "http grant does not allow") {
		select {
		case w <- string(b):
		default:
		}
	}
	return len(b), nil
}

// TestGrantsThatCannotBeGiven stop the start and say what to mend.
func TestGrantsThatCannotBeGiven(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	siem := strings.Replace(collectorSink(t, server, "/"), "required = false\n", "", 1)
	for name, c := range map[string]struct {
		more   string
		secret string
		mode   os.FileMode
		want   []string
	}{
		"no secret":          {"", "", 0, []string{"sink siem: grant http: secret token: ", "siem.token: no such file"}},
		"open secret":        {"", "a-very-secret-value\n", 0o644, []string{"others could use the secret: run chmod 600"}},
		"short secret":       {"", "abc\n", 0o600, []string{`secret "token"`, "bytes are needed"}},
		"no authorities":     {"ca_file = \"siem.token\"", "a-very-secret-value\n", 0o600, []string{"holds no certificate in PEM"}},
		"authorities absent": {"ca_file = \"ca.pem\"", "a-very-secret-value\n", 0o600, []string{"sink siem: grant http: ca_file: "}},
	} {
		text := siem
		if c.more != "" {
			text = strings.Replace(text, "[sink.grant.http]\n", "[sink.grant.http]\n"+c.more+"\n", 1)
		}
		cfg := parse(t, sample+text)
		if c.mode != 0 {
			write(t, cfg, "siem.token", c.secret, c.mode)
		}
		_, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Errorf("%s: it was opened", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v\nlacks %q", name, err, want)
			}
		}
		if strings.Contains(err.Error(), "a-very-secret-value") || strings.Contains(err.Error(), "abc") {
			t.Errorf("%s: the secret is in %v", name, err)
		}
	}
	// What is asked for and not granted.
	cfg := parse(t, sample+"[[sink]]\nname = \"file\"\nplugin = \"sink-file\"\n")
	if _, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)}); err == nil ||
		!strings.Contains(err.Error(), "sink file: load plugin sink-file 1.0.0: the plugin asks for more than it is granted:\n  it wants      append\n  it is granted nothing") {
		t.Errorf("%v", err)
	}
}

// lock writes the lock of a configuration.
func lock(t *testing.T, cfg *config.Config) {
	t.Helper()
	l := &lockfile.Lock{}
	for _, s := range cfg.Sinks {
		wasm, err := ReadPlugin(s.Plugin)
		if err != nil {
			t.Fatal(err)
		}
		pin, err := lockfile.Pin(cfg, s, wasm)
		if err != nil {
			t.Fatal(err)
		}
		l.Plugins = append(l.Plugins, pin)
	}
	if err := l.Write(lockfile.Path(cfg)); err != nil {
		t.Fatal(err)
	}
}

// TestChangedPluginIsRefused: a file that was replaced, and one that is gone.
func TestChangedPluginIsRefused(t *testing.T) {
	cfg := parse(t, sample+"[[sink]]\nname = \"own\"\nplugin = \"own.wasm\"\nrequired = false\n")
	wasm, err := bundled.Read("sink-mock")
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(filepath.Dir(cfg.File), "own.wasm")
	write(t, cfg, "own.wasm", string(wasm), 0o600)
	lock(t, cfg)
	closeAll(t, open(t, cfg, false))

	// One more custom section: it does the same, and is not the same.
	write(t, cfg, "own.wasm", string(wasm)+"\x00\x02\x01x", 0o600)
	_, err = Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	var m *lockfile.Mismatch
	if !errors.As(err, &m) || len(m.Differences) != 1 || !strings.Contains(err.Error(), "sink own differs:\n    sha256   locked ") ||
		!strings.Contains(err.Error(), "audit-host plugin lock -c "+cfg.File) {
		t.Errorf("%v", err)
	}
	// An optional plugin that can't be read is left out, as without a lock.
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	p := open(t, cfg, false)
	if len(p.Missing) != 1 || !strings.Contains(p.Missing["own"], "no such file") {
		t.Errorf("missing %v", p.Missing)
	}
	closeAll(t, p)
	write(t, cfg, "own.wasm", string(wasm), 0o600)
	closeAll(t, open(t, cfg, false))
	write(t, cfg, lockfile.Name, "version = 9\n", 0o600)
	if _, err := Open(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "read lock ") {
		t.Errorf("%v", err)
	}
}

// TestKVStoreOfASink lies in the state directory.
func TestKVStoreOfASink(t *testing.T) {
	cfg := parse(t, sample+"[[sink]]\nname = \"m\"\nplugin = \"sink-mock\"\ngrant.kv = {}\n")
	closeAll(t, open(t, cfg, false))
	for path, mode := range map[string]os.FileMode{filepath.Dir(cfg.KVPath("m")): 0o700, cfg.KVPath("m"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}
