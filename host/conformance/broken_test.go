package conformance

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// buildBroken compiles testdata/broken once for all tests.
var buildBroken = sync.OnceValues(func() ([]byte, error) {
	return wasmtest.BuildGo("testdata/broken", "-trimpath", "-ldflags=-s -w")
})

// broken is the guest with a manifest.
func broken(t *testing.T, idempotent bool) []byte {
	t.Helper()
	wasm, err := buildBroken()
	if err != nil {
		t.Fatal(err)
	}
	wasm, err = manifest.Append(wasm, fmt.Appendf(nil, `{"name": "broken", "version": "1", "capabilities": ["sql", "append", "http", "kv"], "idempotent": %v, "config_schema": {
		"type": "object", "additionalProperties": false, "properties": {"break": {"type": "string"}, "url": {"type": "string"}}}}`, idempotent))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// TestScrambled: a sink that writes what nobody can read is no liar, and is
// judged by its outcomes.
func TestScrambled(t *testing.T) {
	r, err := Check(t.Context(), broken(t, true), Options{Cache: cache, Batches: 50, Config: []byte(`{"break":"scrambles"}`)})
	if err != nil {
		t.Fatal(err)
	}
	if r.Breaches != 0 || r.Unchecked != 1 || r.Held < 18 || !strings.Contains(fmt.Sprint(r.Err()), "one (R5): not checked: it writes, and no event's id") {
		t.Errorf("%v", r.Err())
		told(t, r)
	}
}

// TestDatabase: a sink finds the tables of the database that it begins with.
func TestDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "base.db")
	s, err := host.Open(t.Context(), broken(t, true), host.Options{Name: "base", Config: []byte(`{"break":""}`), Cache: cache, SQL: &host.SQLGrant{Database: path, Create: true},
		Append: &appendfile.Options{Path: path + ".jsonl"}, HTTP: &egress.Policy{}, KV: &host.KVGrant{Path: path + ".kv"}})
	if err != nil {
		t.Fatal(err)
	}
	s.Deliver(t.Context(), (&kit{}).batch(1)) // makes the table, with a row
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	run := func(base string) error {
		r, err := Check(t.Context(), broken(t, true), Options{Cache: cache, Only: regexp.MustCompile("^(kept|replay|close)$"), Database: base, Config: []byte(`{"break":"no-table"}`)})
		if err != nil {
			t.Fatal(err)
		}
		return r.Err()
	}
	if err := run(path); err != nil {
		t.Error(err)
	}
	if err := run(""); err == nil || !strings.Contains(err.Error(), "one (R5): sent a batch of one event, attempt 7, got BUSY: status 1") {
		t.Errorf("without its table: %v", err)
	}
}

// TestBrokenInOneWay: a sink that breaks one rule is told exactly the cases that
// show it, each with its rule.
func TestBrokenInOneWay(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines bool   // it appends lines, which are there twice after a crash
		wants string // cases and rules
	}{
		{"", false, ""},
		{"appends", true, ""},
		{"numbers", true, ""},
		{"puts", false, ""},
		{"ignores-http", false, "server R22"},
		{"leaks", false, "endurance R23"},
		{"not-idempotent", false, "twice R8, duplicates R8, lost-answer R8, killed R8, stopped R8, errors R8"},
		{"miscounts", false, "twice R5, duplicates R5, lost-answer R5, killed R5, stopped R5, errors R5"},
		{"no-verdicts", false, "errors R6"},
		{"garbage", false, "empty R7, one R7"},
		{"address", false, "high R18"},
		{"signed", false, "unsigned R18"},
		{"fixed-stride", false, "sizes R26"},
		{"holds", false, "kept R20"},
		{"flushes", false, "kept R20"},
		{"traps-on-config", false, "bad-config R19"},
		{"takes-all", false, "bad-config R19"},
		{"concatenates", false, "texts R25"},
		{"reorders", false, "order R21"},
		{"ignores-sql", false, "errors R22"},
		{"ignores-append", true, "errors R13"},
		{"remembers", true, "errors R13"},
		{"claims", false, "twice R8, duplicates R8, lost-answer R8, killed R8, stopped R8, errors R8"},
		{"rejects", false, "errors R22"},
		{"traps-on-status", false, "errors R11"},
		{"misplaces", false, "one R28"},
		{"places-anew", false, "twice R28, duplicates R28, lost-answer R28"},
		{"quadratic", false, "fuel R23"},
		{"asks-for-chance", false, "replay R24"},
		{"silent", false, "one R5"},
		{"falls-over", false, "empty R25, one R25"},
		{"drops", false, "large R5"},
	} {
		if raceDetector && !slices.Contains([]string{"", "puts"}, c.name) {
			continue // it does not see into guests, and makes this take minutes: these show the same
		}
		t.Run("breaks="+c.name, func(t *testing.T) {
			r, err := Check(t.Context(), broken(t, !c.lines), Options{Cache: cache, Batches: 300, Config: fmt.Appendf(nil, `{"break": %q, "url": "https://collector.example/events"}`, c.name)})
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
