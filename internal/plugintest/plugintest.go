// Package plugintest is what the tests of the bundled plugins and of the
// conformance kit have in common: compiled code that is kept for a run, a
// plugin in the real host, a batch as a guest sees it, and the check that a
// plugin holds the rules of the ABI.
//
// It stands at the root because the plugins may not depend on host, and their
// tests do. Nothing but tests may import it, which arrows_test.go holds. The
// tests inside of package host can't: this package depends on that one.
package plugintest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/conformance"
	"github.com/audit-host/audit-host/plugins/bundled"
)

// codeFolder names the variable by which the processes that a test starts find
// the code that is compiled already.
const codeFolder = "AUDIT_HOST_TEST_CODE"

// Main is all of a TestMain: it opens a cache of compiled code, which takes most
// of a run's time otherwise, calls begin with it, runs the tests and returns
// their exit code. The cache lies in a folder that is removed afterwards, and
// which the test's own child processes share.
func Main(m *testing.M, cache **host.Cache, begin ...func(*host.Cache) error) (code int) {
	dir, child := os.LookupEnv(codeFolder)
	var err error
	if !child {
		if dir, err = os.MkdirTemp("", "plugintest"); err == nil {
			err = os.Setenv(codeFolder, dir)
		}
	}
	if err == nil {
		*cache, err = host.OpenCache(filepath.Join(dir, "code"))
	}
	for _, f := range begin {
		if err == nil {
			err = f(*cache)
		}
	}
	if err == nil {
		code = m.Run()
		err = (*cache).Close(context.Background())
	}
	if !child {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Read returns a bundled plugin.
func Read(t testing.TB, name string) []byte {
	t.Helper()
	wasm, err := bundled.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// Open opens a bundled plugin as a sink, which is closed when the test ends, if
// it has not been until then. The error is that of [host.Open].
func Open(t testing.TB, name string, o host.Options) (*host.Sink, error) {
	t.Helper()
	s, err := host.Open(t.Context(), Read(t, name), o)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, nil
}

// View is a batch as a guest sees it.
func View(t testing.TB, b *abi.Batch) abi.View {
	t.Helper()
	raw := make([]byte, b.Size())
	b.Encode(raw)
	v, err := abi.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Conform fails the test unless a bundled plugin holds all rules of the ABI with
// each of the configurations, of which "" is the one made from its manifest. The
// cases that do not apply to it have to be those named, with a space between
// them, so that none is left out unnoticed.
func Conform(t *testing.T, name string, o conformance.Options, inapplicable string, configs ...string) {
	t.Helper()
	if len(configs) == 0 {
		t.Fatalf("no configuration to check %s with", name)
	}
	o.Batches = 500
	for _, config := range configs {
		o.Config = nil
		if config != "" {
			o.Config = []byte(config)
		}
		report, err := conformance.Check(t.Context(), Read(t, name), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := report.Err(); err != nil {
			t.Errorf("%s: %v", config, err)
		}
		var not []string
		for _, r := range report.Results {
			if r.Status == conformance.Inapplicable {
				not = append(not, r.Case)
			}
		}
		if got := strings.Join(not, " "); got != inapplicable {
			t.Errorf("%s: these cases do not apply: %q, wanted %q", config, got, inapplicable)
		}
	}
}
