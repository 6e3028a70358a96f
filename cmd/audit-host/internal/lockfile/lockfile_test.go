package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
)

// module is the smallest file that has an identity.
func module(t *testing.T, text string) []byte {
	t.Helper()
	wasm, err := manifest.Append([]byte("\x00asm\x01\x00\x00\x00"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func parse(t *testing.T, dir, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(filepath.Join(dir, "audit.toml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

const twoSinks = `
[[sink]]
name = "ledger"
plugin = "sink-sqlite"
grant.sql.database = "ledger.db"
[[sink]]
name = "siem"
plugin = "plugins/siem.wasm"
[sink.grant.http]
hosts = [{ host = "a.example", methods = ["POST"] }]
secrets.token = { file = "token", host = "a.example" }
`

func pins(t *testing.T, cfg *config.Config, texts ...string) *Lock {
	t.Helper()
	l := &Lock{}
	for i, s := range cfg.Sinks {
		p, err := Pin(cfg, s, module(t, texts[i]))
		if err != nil {
			t.Fatal(err)
		}
		l.Plugins = append(l.Plugins, p)
	}
	return l
}

const one, two = `{"name":"one","version":"1.0.0"}`, `{"name":"two","version":"1.0.0"}`

func TestWriteAndRead(t *testing.T) {
	dir := t.TempDir()
	cfg := parse(t, dir, twoSinks)
	l := pins(t, cfg, one, two)
	for range 2 { // the second replaces the first
		if err := l.Write(Path(cfg)); err != nil {
			t.Fatal(err)
		}
	}
	back, err := Read(Path(cfg))
	if err != nil || Compare(l, back) != nil || Compare(back, l) != nil {
		t.Errorf("%v: %q", err, Compare(l, back))
	}
	text, err := os.ReadFile(filepath.Join(dir, "audit.lock"))
	if err != nil {
		t.Fatal(err)
	}
	// The folder and what is in the secret's file are not in it.
	for _, want := range []string{"plugin = \"plugins/siem.wasm\"", `http.hosts = POST https://a.example`, `http.secrets.token = \"token\" for a.example`, `sql.database = \"ledger.db\"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the file lacks %s:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), dir) {
		t.Errorf("the file names its folder:\n%s", text)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	// Moved together, nothing differs.
	elsewhere := parse(t, t.TempDir(), twoSinks)
	if d := Compare(l, pins(t, elsewhere, one, two)); d != nil {
		t.Errorf("moved: %q", d)
	}
}

func TestDifferences(t *testing.T) {
	dir := t.TempDir()
	l := pins(t, parse(t, dir, twoSinks), one, two)
	change := func(old, new string) *config.Config { return parse(t, dir, strings.Replace(twoSinks, old, new, 1)) }
	for name, c := range map[string]struct {
		now  *Lock
		want []string
	}{
		"nothing":      {pins(t, parse(t, dir, twoSinks), one, two), nil},
		"other plugin": {pins(t, parse(t, dir, twoSinks), one, `{"name":"two","version":"1.0.1"}`), []string{"sink siem differs:", "sha256   locked ", "version  locked 1.0.0\n             now    1.0.1"}},
		"other method": {pins(t, change(`["POST"]`, `["POST", "DELETE"]`), one, two), []string{"grants   + http.hosts = POST,DELETE https://a.example", "grants   - http.hosts = POST https://a.example"}},
		"other host":   {pins(t, change(`hosts = [{`, `hosts = [{ host = "evil.example", methods = ["GET"] }, {`), one, two), []string{"grants   + http.hosts = GET https://evil.example"}},
		"more granted": {pins(t, change(`grant.sql`, "grant.random = true\ngrant.sql"), one, two), []string{"sink ledger differs:", "grants   + random = true"}},
		"less granted": {pins(t, change("secrets.token", "#"), one, two), []string{"grants   - http.secrets.token"}},
		"other file":   {pins(t, change("ledger.db", "other.db"), one, two), []string{`grants   + sql.database = "other.db"`}},
		"other path":   {pins(t, change("siem.wasm", "other.wasm"), one, two), []string{"plugin   locked plugins/siem.wasm"}},
		"renamed":      {pins(t, change(`"siem"`, `"soc"`), one, two), []string{"sink soc is not locked: plugins/siem.wasm (two 1.0.0, sha256 ", "sink siem is locked and not there any more"}},
	} {
		got := strings.Join(Compare(l, c.now), "\n")
		if c.want == nil && got != "" {
			t.Errorf("%s: %s", name, got)
		}
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s\nlacks %q", name, got, want)
			}
		}
	}
	p := l.Plugins[0]
	p.Imports, p.ABI = []string{"audit.sql"}, []int{1}
	if d := difference(l.Plugins[0], p); !strings.Contains(d, "imports  + audit.sql") || !strings.Contains(d, "abi      locked []") {
		t.Error(d)
	}
	l.Forget("siem")
	if len(l.Plugins) != 1 || l.Plugins[0].Sink != "ledger" {
		t.Errorf("%+v", l.Plugins)
	}
}

// TestEveryKeyOfAGrantIsLocked changes each field of a grant in turn: none may
// go unseen.
func TestEveryKeyOfAGrantIsLocked(t *testing.T) {
	cfg := parse(t, t.TempDir(), twoSinks)
	full := func() config.Grant {
		return config.Grant{SQL: &config.SQLGrant{}, Append: &config.AppendGrant{}, KV: &config.KVGrant{},
			HTTP: &config.HTTPGrant{Hosts: []config.HTTPHost{{}}, AllowPrivate: []string{""}, Secrets: []config.HTTPSecret{{}}}}
	}
	before := grants(cfg, full())
	seen := 0
	var walk func(path string, v func(*config.Grant) reflect.Value)
	walk = func(path string, v func(*config.Grant) reflect.Value) {
		g := full()
		f := v(&g)
		switch f.Kind() {
		case reflect.Pointer:
			walk(path, func(g *config.Grant) reflect.Value { return v(g).Elem() })
			f.SetZero()
		case reflect.Struct:
			for i := range f.NumField() {
				walk(path+"."+f.Type().Field(i).Name, func(g *config.Grant) reflect.Value { return v(g).Field(i) })
			}
			return
		case reflect.Slice:
			if f.Len() == 0 {
				f.Set(reflect.MakeSlice(f.Type(), 1, 1))
				f.Index(0).SetString("changed")
				break
			}
			walk(path+"[]", func(g *config.Grant) reflect.Value { return v(g).Index(0) })
			f.SetZero()
		case reflect.Bool:
			f.SetBool(true)
		case reflect.String:
			f.SetString("changed")
		default:
			f.SetInt(int64(time.Hour) + 7)
		}
		seen++
		if slices.Equal(grants(cfg, g), before) {
			t.Errorf("Grant%s can be changed without a difference", path)
		}
	}
	walk("", func(g *config.Grant) reflect.Value { return reflect.ValueOf(g).Elem() })
	if seen < 25 {
		t.Errorf("only %d fields looked at", seen)
	}
}

func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, Name)
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for text, want := range map[string]string{
		"":                               "version is 0",
		"version = 2":                    "version is 2, wanted 1",
		"version = ":                     "audit-host plugin lock writes it anew",
		"version = 1\nplugins = 3":       `unknown key "plugins"`,
		"version = 1\n[[plugin]]\nx = 1": `unknown key "plugin.x"`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := new(Lock).Write(filepath.Join(dir, "missing", Name)); err == nil {
		t.Error("written into a folder that does not exist")
	}
	cfg := parse(t, dir, twoSinks)
	if _, err := Pin(cfg, cfg.Sinks[0], []byte("text")); err == nil || !strings.Contains(err.Error(), "sink ledger: identify plugin") {
		t.Errorf("%v", err)
	}
}

// TestFormOfGrants: locks that were written once stay good, so no line may change its
// form, come or go.
func TestFormOfGrants(t *testing.T) {
	dir := t.TempDir()
	cfg := parse(t, dir, `
[[sink]]
name = "all"
plugin = "sink-http"
[sink.grant]
now = true
[sink.grant.append]
path = "out/a.jsonl"
[sink.grant.http]
hosts = [{ host = "a.example", methods = ["POST", "GET"], port = 444, path = "/in" }, { scheme = "http", host = "b.example", methods = ["GET"] }]
allow_private = ["10.1.0.0/16", "fd00::/8"]
secrets.token = { file = "a \"b\"", host = "a.example" }
[sink.grant.kv]
[sink.grant.sql]
database = "l.db"
time_limit = "1m"
[[sink]]
name = "file"
plugin = "own.wasm"
grant.random = true
grant.sql.database = "m.db"
[[sink]]
name = "none"
plugin = "sink-mock"
`)
	want := [][]string{{
		"append.keep = 0", "append.max_size = 0B", `append.path = "out/a.jsonl"`, `append.pattern = "{name}.{seq}"`,
		"http.allow_private = 10.1.0.0/16", "http.allow_private = fd00::/8", `http.ca_file = ""`,
		"http.hosts = GET http://b.example", "http.hosts = POST,GET https://a.example:444/in",
		"http.max_request = 8MiB", "http.max_response = 1MiB", `http.secrets.token = "a \"b\"" for a.example`, "http.timeout = 10s",
		"kv.max_bytes = 1MiB", "kv.max_keys = 1024", "now = true",
		"sql.busy_timeout = 1s", "sql.create = false", `sql.database = "l.db"`, "sql.max_result = 4MiB", "sql.max_sql = 64KiB",
		"sql.read_only = false", "sql.time_limit = 1m0s",
	}, {
		"random = true",
		"sql.busy_timeout = 1s", "sql.create = false", `sql.database = "m.db"`, "sql.max_result = 4MiB", "sql.max_size = 1GiB",
		"sql.max_sql = 64KiB", "sql.read_only = false", "sql.time_limit = 20s",
	}, {}}
	for i, s := range cfg.Sinks {
		if got := grants(cfg, s.Grant); !reflect.DeepEqual(got, want[i]) { // none is not nil: the file has grants = []
			t.Errorf("sink %s: %#v\nwant %#v", s.Name, got, want[i])
		}
	}
}
