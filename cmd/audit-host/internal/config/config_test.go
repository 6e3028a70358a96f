package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	audithost "github.com/audit-host/audit-host"
)

func parse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := Parse("audit.toml", []byte(text))
	if err != nil {
		t.Fatalf("Parse:\n%v", err)
	}
	return cfg
}

// commented matches a key or a header that is commented out. Prose has a space
// behind the #.
var commented = regexp.MustCompile(`(?m)^#([a-z_]+ *=|\[)`)

func TestSampleWithoutCommentsEqualsDefaults(t *testing.T) {
	sample := string(audithost.SampleConfig)
	live := parse(t, sample)
	n := len(commented.FindAllString(sample, -1))
	if n < 30 {
		t.Fatalf("only %d keys of the sample are commented out: has its form changed?", n)
	}
	all := parse(t, commented.ReplaceAllString(sample, "$1"))
	if !reflect.DeepEqual(live, all) {
		t.Errorf("a comment of audit.toml states another default:\n%s\nwant\n%s", all.TOML(), live.TOML())
	}
	// What the sample sets live must be the defaults too, but for the keys
	// that have none.
	least := parse(t, "signing = {private_key = \"audit.key\", public_key = \"audit.pub\"}\n"+
		"[[sink]]\nname = \"ledger\"\nplugin = \"sink-sqlite\"\ngrant.sql.database = \"ledger.db\"\n")
	if !reflect.DeepEqual(live, least) {
		t.Errorf("the sample differs from the defaults:\n%s\nwant\n%s", live.TOML(), least.TOML())
	}
}

// keysOf returns every key of the schema, as "table.key".
func keysOf(t *testing.T) map[string]bool {
	t.Helper()
	c := newChecker("audit.toml", []byte(oneSink))
	c.config("/audit.toml")
	keys := map[string]bool{}
	for _, table := range c.tables {
		for _, key := range table.known {
			keys[strings.TrimPrefix(table.name+"."+key, ".")] = true
		}
	}
	if len(keys) < 50 {
		t.Fatalf("only %d keys in the schema", len(keys))
	}
	return keys
}

// prose matches what makes a comment of a line in the sample's last part, which
// shows sinks that it does not have.
var prose = regexp.MustCompile(`(?m)^# `)

// withExample is the sample with that part in force.
func withExample(t *testing.T) string {
	t.Helper()
	head, example, ok := strings.Cut(string(audithost.SampleConfig), "\n# The other grants")
	if !ok {
		t.Fatal("the sample has no example of the other grants")
	}
	_, example, _ = strings.Cut(example, "\n")
	return head + "\n" + prose.ReplaceAllString(example, "")
}

// TestSampleOfOtherGrants: what it says are defaults are.
func TestSampleOfOtherGrants(t *testing.T) {
	cfg := parse(t, withExample(t))
	if len(cfg.Sinks) != 3 {
		t.Fatalf("%d sinks", len(cfg.Sinks))
	}
	least := parse(t, string(audithost.SampleConfig)+`
[[sink]]
name = "file"
plugin = "sink-file"
required = false
config = { format = "event" }
grant.append.path = "events.jsonl"
[[sink]]
name = "collector"
plugin = "sink-http"
required = false
config = { format = "ndjson", url = "https://collector.example/in", headers = { Authorization = "Bearer {{secret token}}" } }
grant.kv = {}
[sink.grant.http]
hosts = [{ host = "collector.example", port = 443, methods = ["POST"], path = "/in" }]
secrets.token = { file = "collector.token", host = "collector.example" }
`)
	if cfg.Sinks[2].Grant.HTTP.AllowPrivate = nil; !reflect.DeepEqual(cfg, least) {
		t.Errorf("the example states other defaults:\n%s\nwant\n%s", cfg.TOML(), least.TOML())
	}
}

func TestSampleNamesEveryKey(t *testing.T) {
	text := commented.ReplaceAllString(withExample(t), "$1")
	c := newChecker("audit.toml", []byte(text))
	values, _ := c.decode()
	named := map[string]bool{}
	var walk func(prefix string, v map[string]any)
	walk = func(prefix string, v map[string]any) {
		for key, value := range v {
			named[prefix+key] = true
			switch value := value.(type) {
			case map[string]any:
				walk(prefix+key+".", value)
			case []map[string]any:
				for _, element := range value {
					walk(prefix+key+".", element)
				}
			}
		}
	}
	walk("", values)
	for key := range keysOf(t) {
		if !named[key] {
			t.Errorf("audit.toml does not show %s", key)
		}
	}
}

func TestDefaults(t *testing.T) {
	dir := t.TempDir()
	cfg, err := Parse(filepath.Join(dir, "audit.toml"), []byte(oneSink))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.File != filepath.Join(dir, "audit.toml") || cfg.StateDir != filepath.Join(dir, "state") ||
		cfg.Queue.Directory != filepath.Join(dir, "state", "queue") ||
		cfg.DeadLetters.Path != filepath.Join(dir, "state", "dead-letters.db") {
		t.Errorf("paths of the defaults:\n%s", cfg.TOML())
	}
	if cfg.Signing.Enabled() || cfg.HTTP.Token != "" || cfg.Log.Level != slog.LevelInfo || cfg.DrainTimeout != 5*time.Second {
		t.Errorf("defaults:\n%s", cfg.TOML())
	}
	want := Sink{
		Name: "one", Plugin: Plugin{Bundled: "sink-mock"}, Required: true,
		BatchEvents: 1024, BatchBytes: 4 << 20, MemoryLimit: 64 << 20,
		Deadline: 30 * time.Second, MaxRestarts: 5, RestartWindow: time.Minute,
		Config: json.RawMessage("{}"),
		Limits: Limits{1 << 40, 8 * MiB, 64 * MiB, 1_000_000, 8_000_000_000, 100, 64 * KiB, MiB},
	}
	if len(cfg.Sinks) != 1 || !reflect.DeepEqual(cfg.Sinks[0], want) {
		t.Errorf("sinks %+v, want %+v", cfg.Sinks, want)
	}
}

func TestValues(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(`
state_dir = "s/../var"
drain_timeout = "0s"
[log]
level = "error"
format = "json"
[record]
decisions = ["allow", "refuse"]
[http]
address = ""
max_body = 2097152
max_event = "4KiB"
[http.opa]
agent = ["", "/a~1b/~0"]
rule = []
[queue]
directory = %q
backend = "disk"
when_full = "block"
disk_bytes = "2TiB"
[dead_letters]
path = "dead.db"
[[sink]]
name = "a"
plugin = "plugins/a"
required = false
memory_limit = 4194305
batch_bytes = "8KiB"
max_restarts = 0
config = { url = "http://x/?a&b", n = 1, f = 1.0, big = 1e300, list = [1, "x", {}], on = true }
[[sink]]
name = "b"
plugin = "b.wasm"
[sink.grant]
now = true
[sink.grant.sql]
database = "b.db"
create = true
busy_timeout = "0s"
`, filepath.Join(dir, "elsewhere"))
	cfg, err := Parse(filepath.Join(dir, "etc", "audit.toml"), []byte(text))
	if err != nil {
		t.Fatalf("Parse:\n%v", err)
	}
	etc := filepath.Join(dir, "etc")
	for _, check := range []struct{ got, want any }{
		{cfg.StateDir, filepath.Join(etc, "var")},
		{cfg.DrainTimeout, time.Duration(0)},
		{cfg.Log, Log{slog.LevelError, "json"}},
		{cfg.Record.Decisions, []string{"allow", "refuse"}},
		{cfg.HTTP.Address, ""},
		{cfg.HTTP.MaxBody, 2 * MiB},
		{cfg.HTTP.MaxEvent, 4 * KiB},
		{cfg.HTTP.OPA.Agent, []string{"", "/a~1b/~0"}},
		{cfg.HTTP.OPA.Rule, []string{}},
		{cfg.HTTP.OPA.Reason, []string{"/result/reason"}},
		{cfg.Queue, Queue{"disk", filepath.Join(dir, "elsewhere"), 1000000, 256 * MiB, 2 * TiB, "block"}},
		{cfg.DeadLetters.Path, filepath.Join(etc, "dead.db")},
		{cfg.Sinks[0].Plugin, Plugin{Path: filepath.Join(etc, "plugins", "a")}},
		{cfg.Sinks[0].Required, false},
		{cfg.Sinks[0].MemoryLimit, 4*MiB + 64*KiB},
		{cfg.Sinks[0].MaxRestarts, 0},
		{string(cfg.Sinks[0].Config), `{"big":1e+300,"f":1,"list":[1,"x",{}],"n":1,"on":true,"url":"http://x/?a&b"}`},
		{cfg.Sinks[0].Grant, Grant{}},
		{cfg.Sinks[1].Plugin, Plugin{Path: filepath.Join(etc, "b.wasm")}},
		{cfg.Sinks[1].Grant.Now, true},
		{*cfg.Sinks[1].Grant.SQL, SQLGrant{filepath.Join(etc, "b.db"), true, false, 0, 20 * time.Second, 64 * KiB, 4 * MiB, GiB}},
	} {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("got %#v, want %#v", check.got, check.want)
		}
	}
	again, err := Parse(filepath.Join(dir, "etc", "audit.toml"), cfg.TOML())
	if err != nil || !reflect.DeepEqual(cfg, again) {
		t.Errorf("TOML() reads back differently (%v):\n%s", err, cfg.TOML())
	}
}

func TestTOMLNamesEveryKey(t *testing.T) {
	cfg := parse(t, withExample(t))
	text := string(cfg.TOML())
	for key := range keysOf(t) {
		last := key[strings.LastIndexByte(key, '.')+1:]
		if !regexp.MustCompile(`(?m)^` + last + ` = |^\[+` + regexp.QuoteMeta(key) + `\]+$`).MatchString(text) {
			t.Errorf("TOML() does not write %s", key)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1:0", "127.9.9.9:65535", "[::1]:80", "localhost:8480", "LOCALHOST:1", "[::ffff:127.0.0.1]:1"} {
		if cfg := parse(t, fmt.Sprintf("http.address = %q", address)+oneSink); cfg.HTTP.Address != address {
			t.Errorf("address %q became %q", address, cfg.HTTP.Address)
		}
	}
}

func TestToken(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	const secret = "0123456789abcdef"
	write("good", secret+"\r\nsecond line\n", 0o600)
	write("group", secret, 0o640)
	write("open", secret+"\n", 0o644)
	write("short", "0123456789abcde\n", 0o600)
	write("long", strings.Repeat("x", 5000), 0o600)
	write("blank", secret+" x\n", 0o600)
	write("empty", "", 0o600)
	name := filepath.Join(dir, "audit.toml")
	text := func(token string) []byte {
		return fmt.Appendf(nil, "[http]\naddress = \"0.0.0.0:8480\"\ntoken_file = %q%s", token, oneSink)
	}
	for _, file := range []string{"good", "group"} {
		cfg, err := Parse(name, text(file))
		if err != nil {
			t.Fatal(err)
		}
		if string(cfg.HTTP.Token) != secret || cfg.HTTP.TokenFile != filepath.Join(dir, file) {
			t.Errorf("%s: token %q from %s", file, string(cfg.HTTP.Token), cfg.HTTP.TokenFile)
		}
		asJSON, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Info("configuration", "token", cfg.HTTP.Token)
		for _, shown := range []string{fmt.Sprintf("%v %+v %#v", cfg.HTTP, *cfg, cfg.HTTP), string(asJSON), logged.String(), string(cfg.TOML())} {
			if strings.Contains(shown, secret) {
				t.Errorf("the token is shown: %s", shown)
			}
		}
		again, err := Parse(name, cfg.TOML())
		if err != nil || !reflect.DeepEqual(cfg, again) {
			t.Errorf("TOML() with a token reads back differently: %v", err)
		}
	}
	bad := map[string]string{
		"short": "has 15 characters, at least 16 are needed", "empty": "has 0 characters",
		"long": "more than 4096 characters", "blank": "only visible ASCII",
		"none": "no such file", ".": "not a regular file",
	}
	if runtime.GOOS != "windows" {
		bad["open"] = "has mode 0644, so others could use the token: run chmod 600"
	}
	for file, want := range bad {
		_, err := Parse(name, text(file))
		if err == nil || !strings.Contains(err.Error(), name+":3:14: token_file: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "needs a bearer token") {
			t.Errorf("%s: %v, want %q in 3:14 alone", file, err, want)
		}
	}
}

func TestRedacted(t *testing.T) {
	cfg := parse(t, oneSink+"config = {password = \"hunter2\", n = 1, deep = [{key = \"hunter3\"}]}\n")
	if s := cfg.Redacted(); strings.Contains(s, "hunter") || !strings.Contains(s, `"password" = "(redacted)"`) || !strings.Contains(s, `"n" = 1`) {
		t.Errorf("Redacted():\n%s", s)
	}
	if s := string(cfg.TOML()); !strings.Contains(s, "hunter2") || !strings.Contains(s, "hunter3") {
		t.Errorf("TOML():\n%s", s)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1500": 1500, "1B": 1, "64KiB": 64 * KiB, "3MiB": 3 * MiB, "4GiB": 4 * GiB, "2TiB": 2 * TiB, "-1KiB": -KiB, "9223372036854775807": 1<<63 - 1} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
		if back, err := ParseSize(got.String()); err != nil || back != got {
			t.Errorf("%d is written as %q, which reads as %d, %v", got, got, back, err)
		}
	}
	for _, text := range []string{"", "MiB", "1.5MiB", "1 MiB", "1mib", "0x10", "1MiB ", "9223372036854775808", "9007199254740992KiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"batch_events", "batch_bytes", "name", "now"}
	for word, want := range map[string]string{
		"batch_evnts": "batch_events", "Batch-Bytes": "batch_bytes", "nmae": "name", "batch": "batch_events",
		"nwo": "now", "zzz": "", "": "", "timeout": "", strings.Repeat("batch_events", 9): "",
	} {
		if got := Nearest(word, words); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

// A sink of one's own with a database does not become the ledger by standing
// first.
func TestLedgerIsThatOfTheBundledPlugin(t *testing.T) {
	sink := func(name, plugin, more string) string {
		return fmt.Sprintf("[[sink]]\nname = %q\nplugin = %q\ngrant.sql = {database = \"%s.db\"%s}\n", name, plugin, name, more)
	}
	own, reader, ledger := sink("own", "own.wasm", ""), sink("reader", "reader.wasm", ", read_only = true"), sink("ledger", "sink-sqlite", "")
	for text, want := range map[string]string{own + ledger: "ledger", ledger + own: "ledger", reader + own: "own", reader: ""} {
		cfg, err := Parse("audit.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := cfg.Ledger(); got.Name != want || ok != (want != "") {
			t.Errorf("%s\nthe ledger is %q, want %q", text, got.Name, want)
		}
	}
}
