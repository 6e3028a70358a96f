package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/plugins/bundled"
)

var cache *host.Cache

// TestMain keeps compiled code for the whole run.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "conformance-test")
	if err == nil {
		cache, err = host.OpenCache(filepath.Join(dir, "code"))
	}
	if err == nil {
		code = m.Run()
		err = cache.Close(context.Background())
	}
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// told writes a report as the test's log.
func told(t *testing.T, r *Report) {
	t.Helper()
	var b strings.Builder
	for _, r := range r.Results {
		fmt.Fprintf(&b, "\n%-14s %-4s %-12s %4d ms  %s", r.Status, r.Rule, r.Case, r.Took.Milliseconds(), r.Note)
		if r.Breach != nil {
			fmt.Fprintf(&b, "\n    sent   %s\n    got    %s\n    wanted %s\n    change %s", r.Breach.Sent, r.Breach.Got, r.Breach.Wanted, r.Breach.Change)
		}
	}
	t.Log(b.String())
}

// TestBundledPlugins: our own sinks hold all rules. What does not apply to each
// is named, so that a case that never runs is noticed.
func TestBundledPlugins(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		not    string // cases that do not apply
	}{
		"sink-sqlite": {"", "server"},
		"sink-file":   {"", "server"},
		"sink-http":   {"", ""},
		"sink-mock":   {"", "kept order killed errors server"},
	} {
		t.Run(name, func(t *testing.T) {
			wasm, err := bundled.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Cache: cache, Batches: 500}
			if c.config != "" {
				o.Config = json.RawMessage(c.config)
			}
			r, err := Check(t.Context(), wasm, o)
			if err != nil {
				t.Fatal(err)
			}
			told(t, r)
			var not []string
			for _, r := range r.Results {
				if r.Status == Inapplicable {
					not = append(not, r.Case)
				}
			}
			if r.Breaches != 0 || r.Unchecked != 0 || strings.Join(not, " ") != c.not || r.Plugin != name {
				t.Errorf("%d breaches, %d unchecked, not applicable %q", r.Breaches, r.Unchecked, not)
			}
		})
	}
}
