package audithost_test

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/audit-host/audit-host"

// arrows says what the packages of a folder may depend on, directly or not:
// folders of this module, and modules of others. The standard library may be used
// by all. Tests are free.
var arrows = map[string]struct{ own, others []string }{
	".":            {},
	"abi":          {own: []string{"abi"}},
	"ledger/chain": {},
	"event":        {own: []string{"abi"}, others: []string{"github.com/google/uuid"}},
	"sign":         {own: []string{"abi", "ledger/chain"}, others: []string{"filippo.io/edwards25519"}},
	// These three do not know each other.
	"queue":      {own: []string{"abi", "queue", "internal/durable"}, others: system},
	"host":       {own: []string{"abi", "host", "host/meter", "ledger/chain", "internal/durable", "internal/sqlite"}, others: slices.Concat(engines, system)},
	"ledger":     {own: slices.Concat([]string{"ledger", "ledger/chain", "sign", "event"}, database), others: slices.Concat(engines, system, []string{"filippo.io/edwards25519", "github.com/google/uuid"})},
	"deadletter": {own: slices.Concat([]string{"deadletter"}, database), others: slices.Concat(engines, system)},
	"plugins":    {own: []string{"abi", "ledger/chain", "plugins"}},
	"host/meter": {},
	// For tests: no other folder may depend on it.
	"internal":         {own: slices.Concat([]string{"host", "plugins", "ledger/chain", "internal"}, database), others: slices.Concat(engines, system)},
	"internal/durable": {others: system},
	"internal/sqlite":  {own: slices.Concat([]string{"internal/sqlite"}, database), others: slices.Concat(engines, system)},
	"cmd": {own: slices.Concat([]string{".", "event", "sign", "queue", "host", "ledger", "ledger/chain", "deadletter", "plugins", "cmd"}, database),
		others: []string{""}},
}

// database is what stands on a file of SQLite's.
var database = []string{"abi", "host/meter", "internal/durable", "internal/sqlite"}

var system = []string{"golang.org/x/sys"}

// engines are imported by these folders alone, so that another one can be put in
// their place.
var (
	engines = []string{"github.com/tetratelabs/wazero", "github.com/ncruces"}
	users   = []string{"host", "internal/sqlite"}
)

// pkg is a package as go list sees it for one system.
type pkg struct {
	standard bool
	imports  []string
}

// list asks for packages and all they depend on.
func list(t *testing.T, goos, goarch string, patterns ...string) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps", "-f", `{{.ImportPath}} {{.Standard}} {{join .Imports ","}}`}, patterns...)...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for %s/%s: %v\n%s", goos, goarch, err, stderr.String())
	}
	all := make(map[string]pkg)
	for line := range strings.Lines(string(out)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
		p := pkg{standard: f[1] == "true"}
		if f[2] != "" {
			p.imports = strings.Split(f[2], ",")
		}
		all[f[0]] = p
	}
	return all
}

// folder is the innermost folder around a package of this module that has arrows of
// its own, else its first one.
func folder(path string) (string, bool) {
	if path == module {
		return ".", true
	}
	rest, ours := strings.CutPrefix(path, module+"/")
	for inner := rest; inner != "."; inner = filepath.ToSlash(filepath.Dir(inner)) {
		if _, own := arrows[inner]; own {
			return inner, ours
		}
	}
	top, _, _ := strings.Cut(rest, "/")
	return top, ours
}

// under says whether path is one of these modules, or in one.
func under(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return p == "" || path == p || strings.HasPrefix(path, p+"/")
	})
}

// broken returns what is wrong with the packages, and the folders it saw.
func broken(all map[string]pkg) (faults []string, seen map[string]bool) {
	seen = make(map[string]bool)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		top, ours := folder(path)
		if !ours {
			continue
		}
		seen[top] = true
		rule, known := arrows[top]
		if !known {
			faults = append(faults, path+": no arrows are laid down for "+top)
			continue
		}
		done := make(map[string]bool)
		var follow func(from string)
		follow = func(from string) {
			for _, to := range all[from].imports {
				if done[to] || all[to].standard {
					continue
				}
				done[to] = true
				if f, own := folder(to); own && !slices.Contains(rule.own, f) || !own && !under(to, rule.others) {
					faults = append(faults, path+" depends on "+to+" (through "+from+")")
					continue
				}
				follow(to)
			}
		}
		follow(path)
		for _, to := range all[path].imports {
			if !slices.Contains(users, top) && under(to, engines) {
				faults = append(faults, path+" imports "+to+", which only host and internal/sqlite may")
			}
		}
	}
	return faults, seen
}

// watch has the test's cached result depend on every Go file of the module: what
// go list reads the test cache does not know.
func watch(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportArrows(t *testing.T) {
	watch(t)
	check := func(all map[string]pkg, folders []string) {
		t.Helper()
		faults, seen := broken(all)
		for _, f := range faults {
			t.Error(f)
		}
		if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, folders) {
			t.Errorf("go list found packages in %q, want %q", got, folders)
		}
	}
	for _, system := range []string{"linux/amd64", "darwin/arm64", "windows/amd64"} {
		goos, goarch, _ := strings.Cut(system, "/")
		check(list(t, goos, goarch, "./..."), slices.Sorted(maps.Keys(arrows)))
	}
	check(list(t, "wasip1", "wasm", "./abi/...", "./ledger/chain", "./plugins/..."), []string{"abi", "ledger/chain", "plugins"})
}

// The check sees what it is there for.
func TestImportArrowsSeesABreach(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"queue uses host":         {module + "/queue", module + "/host", "queue depends on"},
		"host uses queue":         {module + "/host", module + "/queue", "host depends on"},
		"cmd uses what tests use": {module + "/cmd/audit-host", module + "/internal/plugintest", "cmd/audit-host depends on"},
		"abi is not bare":         {module + "/abi", "github.com/google/uuid", "abi depends on"},
		"the format is a leaf":    {module + "/ledger/chain", module + "/sign", "ledger/chain depends on"},
		"host uses the ledger":    {module + "/host", module + "/ledger", "host depends on"},
		"the ledger uses host":    {module + "/ledger", module + "/host", "ledger depends on"},
		"letters use the ledger":  {module + "/deadletter", module + "/ledger", "deadletter depends on"},
		"cmd uses an engine":      {module + "/cmd/audit-host", "github.com/tetratelabs/wazero", "only host and internal/sqlite may"},
		"a folder nobody knows":   {module + "/utils", "fmt", "no arrows"},
		"a name that only begins": {module + "/event", "github.com/google/uuidx", "event depends on"},
	} {
		faults, _ := broken(map[string]pkg{c.from: {imports: []string{c.to}}, c.to: {standard: c.to == "fmt"}})
		if len(faults) == 0 || !strings.Contains(faults[0], c.want) {
			t.Errorf("%s: %q", name, faults)
		}
	}
	through, _ := broken(map[string]pkg{
		module + "/queue": {imports: []string{module + "/abi"}},
		module + "/abi":   {imports: []string{"example.com/x"}},
		"example.com/x":   {},
	})
	if len(through) != 2 {
		t.Errorf("an indirect dependency: %q", through)
	}
}
