//go:build !wasip1

package main

import (
	"strings"
	"testing"

	"github.com/audit-host/audit-host/host/conformance"
	"github.com/audit-host/audit-host/plugins/bundled"
)

// TestConformance: the plugin holds all rules of the ABI, with each of its
// configurations. Cases that do not apply are named, so that none is left out
// unnoticed.
func TestConformance(t *testing.T) {
	wasm, err := bundled.Read("sink-mock")
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range []string{""} {
		o := conformance.Options{Cache: cache, Batches: 500}
		if config != "" {
			o.Config = []byte(config)
		}
		r, err := conformance.Check(t.Context(), wasm, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Err(); err != nil {
			t.Errorf("%s: %v", config, err)
		}
		var not []string
		for _, r := range r.Results {
			if r.Status == conformance.Inapplicable {
				not = append(not, r.Case)
			}
		}
		if got := strings.Join(not, " "); got != "kept order killed errors server" {
			t.Errorf("%s: these cases do not apply: %s", config, got)
		}
	}
}
