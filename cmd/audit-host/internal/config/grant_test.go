package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// grantSink is a sink with the lines that follow.
const grantSink = "[[sink]]\nname = \"siem\"\nplugin = \"sink-http\"\n"

func TestGrantValues(t *testing.T) {
	dir := t.TempDir()
	text := grantSink + `
[sink.grant.append]
path = "a/out.jsonl"
max_size = "1MiB"
keep = 3
pattern = "{time}-{name}"
[sink.grant.http]
allow_private = ["10.1.0.0/16", "fd00::/8"]
timeout = "3s"
max_request = "2MiB"
max_response = 4096
ca_file = "ca.pem"
[[sink.grant.http.hosts]]
host = "collector.example"
methods = ["POST", "GET"]
path = "/in"
[[sink.grant.http.hosts]]
scheme = "http"
host = "127.0.0.1"
port = 8088
methods = ["POST"]
[sink.grant.http.secrets]
"hec.token" = { file = "hec", host = "127.0.0.1" }
b = { file = "/etc/b", host = "collector.example" }
[sink.grant.kv]
max_keys = 7
max_bytes = "64KiB"
`
	cfg, err := Parse(filepath.Join(dir, "audit.toml"), []byte(text))
	if err != nil {
		t.Fatalf("Parse:\n%v", err)
	}
	g := cfg.Sinks[0].Grant
	for _, check := range []struct{ got, want any }{
		{*g.Append, AppendGrant{filepath.Join(dir, "a", "out.jsonl"), MiB, 3, "{time}-{name}"}},
		{*g.KV, KVGrant{7, 64 * KiB}},
		{*g.HTTP, HTTPGrant{
			Hosts:        []HTTPHost{{"https", "collector.example", 0, []string{"POST", "GET"}, "/in"}, {"http", "127.0.0.1", 8088, []string{"POST"}, ""}},
			AllowPrivate: []string{"10.1.0.0/16", "fd00::/8"}, Timeout: 3 * time.Second, MaxRequest: 2 * MiB, MaxResponse: 4 * KiB,
			CAFile:  filepath.Join(dir, "ca.pem"),
			Secrets: []HTTPSecret{{"b", "/etc/b", "collector.example"}, {"hec.token", filepath.Join(dir, "hec"), "127.0.0.1"}},
		}},
		{cfg.KVPath("siem"), filepath.Join(dir, "state", "kv", "siem.db")},
	} {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("got %#v, want %#v", check.got, check.want)
		}
	}
	again, err := Parse(filepath.Join(dir, "audit.toml"), cfg.TOML())
	if err != nil || !reflect.DeepEqual(again, cfg) {
		t.Errorf("TOML() reads back differently (%v):\n%s", err, cfg.TOML())
	}
	// An empty table grants with the defaults; none grants nothing.
	if g := parse(t, grantSink+"grant.kv = {}\n").Sinks[0].Grant; !reflect.DeepEqual(g, Grant{KV: &KVGrant{1024, MiB}}) {
		t.Errorf("%+v", g)
	}
}

func TestGrantProblems(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"append without a path": {"grant.append = {}", []string{"path is missing: [sink.grant.append] grants one file"}},
		"append to the ledger": {"grant.sql.database = \"l.db\"\ngrant.append.path = \"l.db\"",
			[]string{"is the same file as sink.grant.append.path in line 5"}},
		"append to the ledger's log": {"grant.sql.database = \"l.db\"\ngrant.append.path = \"l.db-wal\"",
			[]string{"sink.grant.sql.database-wal is the same file as sink.grant.append.path in line 5"}},
		"append to the log of the dead letters": {"grant.append.path = \"state/dead-letters.db-wal\"",
			[]string{"sink.grant.append.path is the same file as dead_letters.path-wal"}},
		"keep without rotation": {"grant.append = { path = \"a\", keep = 1 }", []string{"keep needs max_size"}},
		"pattern":               {"grant.append = { path = \"a\", pattern = \"../{seq}\" }", []string{"holds no /"}},
		"pattern of one name":   {"grant.append = { path = \"a\", pattern = \"old\" }", []string{`{seq} or {time}`}},
		"http without hosts":    {"grant.http = {}", []string{"hosts is missing", `methods = ["POST"]`}},
		"host without a name":   {"grant.http.hosts = [{ methods = [\"POST\"] }]", []string{"host is missing"}},
		"wildcard":              {"grant.http.hosts = [{ host = \"*.example\", methods = [\"POST\"] }]", []string{`host "*.example": `}},
		"no methods":            {"grant.http.hosts = [{ host = \"a.example\" }]", []string{`host "a.example": no methods`}},
		"method":                {"grant.http.hosts = [{ host = \"a.example\", methods = [\"CONNECT\"] }]", []string{`method "CONNECT" is none of`}},
		"scheme":                {"grant.http.hosts = [{ host = \"a.example\", methods = [\"POST\"], scheme = \"htps\" }]", []string{`scheme must be one of`, `did you mean "https"`}},
		"unknown key of a host": {"grant.http.hosts = [{ host = \"a.example\", method = [\"POST\"], methods = [\"POST\"] }]", []string{`unknown key "method"; did you mean "methods"`}},
		"range": {"grant.http = { hosts = [{ host = \"a.example\", methods = [\"POST\"] }], allow_private = [\"10.1.2.3/16\", \"x\"] }",
			[]string{`did you mean "10.1.0.0/16"`, `"x" is no range`}},
		"timeout beyond the deadline": {"deadline = \"5s\"\ngrant.http = { hosts = [{ host = \"a.example\", methods = [\"POST\"] }], timeout = \"5s\" }",
			[]string{"timeout (5s) must be less than deadline (5s)"}},
		"deadline below the default timeout": {"deadline = \"5s\"\ngrant.http = { hosts = [{ host = \"a.example\", methods = [\"POST\"] }] }",
			[]string{"4:12: timeout (10s) must be less than deadline (5s)"}},
		"secret of another host": {"grant.http = { hosts = [{ host = \"a.example\", methods = [\"POST\"] }], secrets = { t = { file = \"t\", host = \"b.example\" } } }",
			[]string{`host "b.example" of a secret is none of hosts`}},
		"secret without a file": {"grant.http = { hosts = [{ host = \"a.example\", methods = [\"POST\"] }], secrets = { t = { host = \"a.example\" } } }",
			[]string{"file is missing: a secret has a file"}},
		"secret in the open": {"grant.http = { hosts = [{ host = \"a.example\", methods = [\"POST\"] }], secrets = { t = \"value\" } }",
			[]string{"t must be a table"}},
		"unknown key of a secret": {"grant.http = { hosts = [{ host = \"a.example\", methods = [\"POST\"] }], secrets = { t = { file = \"t\", host = \"a.example\", value = \"v\" } } }",
			[]string{`unknown key "value"`}},
		"unknown grant": {"grant.filesystem = true", []string{`unknown key "filesystem"`}},
		"kv":            {"grant.kv = { max_keys = 0 }", []string{"max_keys must be from 1"}},
	} {
		_, err := Parse("audit.toml", []byte(grantSink+c.text+"\n"))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v\nlacks %q", name, err, want)
			}
		}
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("the value\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := ReadSecret(file); err != nil || v != "the value" {
		t.Errorf("%q, %v", v, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(file); err == nil || !strings.Contains(err.Error(), "could use the secret: run chmod 600") || strings.Contains(err.Error(), "the value") {
		t.Errorf("%v", err)
	}
	if _, err := ReadSecret(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
	// What others may see names the file, never the value.
	cfg := parse(t, grantSink+fmt.Sprintf("grant.http = { hosts = [{ host = \"a.example\", methods = [\"POST\"] }], secrets = { t = { file = %q, host = \"a.example\" } } }\n", file))
	if text := cfg.Redacted() + fmt.Sprintf("%+v", cfg); strings.Contains(text, "the value") || !strings.Contains(text, file) {
		t.Errorf("configuration:\n%s", text)
	}
}

// An unbounded database is that of a bundled plugin, or one that somebody wrote
// down; and what is written down comes back as it was.
func TestSizeOfADatabase(t *testing.T) {
	for _, c := range []struct {
		plugin, line string
		want         Size
	}{
		{"sink-sqlite", "", 0}, {"./own.wasm", "", GiB}, {"./own.wasm", `max_size = "0B"`, 0}, {"./own.wasm", "max_size = 4096", 4096}, {"sink-sqlite", `max_size = "2GiB"`, 2 * GiB},
	} {
		file := filepath.Join(t.TempDir(), "audit.toml")
		cfg, err := Parse(file, []byte("[[sink]]\nname = \"a\"\nplugin = \""+c.plugin+"\"\n[sink.grant.sql]\ndatabase = \"x.db\"\n"+c.line))
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(file, cfg.TOML())
		if err != nil {
			t.Fatal(err)
		}
		if a, b := cfg.Sinks[0].Grant.SQL.MaxSize, again.Sinks[0].Grant.SQL.MaxSize; a != c.want || b != c.want {
			t.Errorf("%s %s: %v, written down %v, wanted %v", c.plugin, c.line, a, b, c.want)
		}
	}
}

// An empty array is the same as none where none is the default: what is written reads
// as it was, and a reload has nothing to exchange.
func TestEmptyArrayIsTheDefault(t *testing.T) {
	sink := grantSink + "[sink.grant.http]\nhosts = [{ host = \"a.example\", methods = [\"POST\"] }]\n"
	without, with := parse(t, sink), parse(t, sink+"allow_private = []\n")
	if !reflect.DeepEqual(without, with) || !reflect.DeepEqual(without, parse(t, string(without.TOML()))) {
		t.Errorf("%+v is not %+v", without.Sinks[0].Grant.HTTP, with.Sinks[0].Grant.HTTP)
	}
}
