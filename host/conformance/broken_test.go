package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/audit-host/audit-host/abi/manifest"
)

// buildBroken compiles testdata/broken once for all tests.
var buildBroken = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "broken")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "broken.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/broken")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
})

// TestBrokenInOneWay: a sink that breaks one rule is told exactly the cases that
// show it, each with its rule.
func TestBrokenInOneWay(t *testing.T) {
	wasm, err := buildBroken()
	if err != nil {
		t.Fatalf("build testdata/broken: %v", err)
	}
	for _, c := range []struct {
		name  string
		lines bool   // it appends lines, which are there twice after a crash
		wants string // cases and rules
	}{
		{"", false, ""},
		{"appends", true, ""},
		{"numbers", true, ""},
		{"leaks", false, "endurance R23"},
		{"not-idempotent", false, "twice R8, duplicates R8, lost-answer R8, killed R8, stopped R8, errors R8"},
		{"miscounts", false, "twice R5, duplicates R5, lost-answer R5, killed R5, stopped R5, errors R5"},
		{"no-verdicts", false, "errors R6"},
		{"garbage", false, "empty R7, one R7"},
		{"address", false, "high R18"},
		{"signed", false, "unsigned R18"},
		{"holds", false, "kept R20"},
		{"flushes", false, "kept R20"},
		{"traps-on-config", false, "bad-config R19"},
		{"takes-all", false, "bad-config R19"},
		{"reorders", false, "order R21"},
		{"ignores-sql", false, "errors R22"},
		{"ignores-append", true, "errors R13"},
		{"remembers", true, "errors R13"},
		{"claims", false, "twice R8, duplicates R8, lost-answer R8, killed R8, stopped R8, errors R8"},
		{"rejects", false, "errors R22"},
		{"traps-on-status", false, "errors R11"},
		{"quadratic", false, "fuel R23"},
		{"asks-for-chance", false, "replay R24"},
		{"silent", false, "one R5"},
		{"drops", false, "large R5"},
	} {
		t.Run("breaks="+c.name, func(t *testing.T) {
			module, err := manifest.Append(wasm, fmt.Appendf(nil, `{"name": "broken", "version": "1", "capabilities": ["sql", "append", "kv"], "idempotent": %v, "config_schema": {
				"type": "object", "additionalProperties": false, "properties": {"break": {"type": "string"}}}}`, !c.lines))
			if err != nil {
				t.Fatal(err)
			}
			r, err := Check(t.Context(), module, Options{Cache: cache, Batches: 300, Config: fmt.Appendf(nil, `{"break": %q}`, c.name)})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range r.Results {
				if r.Status == Broken {
					got = append(got, r.Case+" "+r.Rule)
				}
				if b := r.Breach; b != nil && slices.Contains([]string{b.Sent, b.Got, b.Wanted, b.Change}, "") {
					t.Errorf("%s explains itself by half: %+v", r.Case, b)
				}
			}
			if s := strings.Join(got, ", "); s != c.wants {
				t.Errorf("broken: %s\nwanted: %s", s, c.wants)
				told(t, r)
			}
		})
	}
}
