package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/host"
)

// cache keeps compiled code for the whole run. TestMain opens it, in a package
// of its own: what it calls depends on this one.
var (
	cache     *host.Cache
	TestCache = &cache
)

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

// TestErr: what is broken or was not checked is an error, and nothing else.
func TestErr(t *testing.T) {
	r := &Report{Results: []Result{{Case: "a", Status: Held}, {Case: "b", Status: Inapplicable, Note: "x"}}}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	r.Results = append(r.Results, Result{Case: "c", Rule: "R1", Status: Broken, Breach: &Breach{Sent: "one", Got: "two", Wanted: "three"}},
		Result{Case: "d", Rule: "R2", Status: Unchecked, After: "c"})
	const want = "c (R1): sent one, got two, wanted three\nd (R2): not checked: c"
	if err := r.Err(); err == nil || err.Error() != want {
		t.Errorf("%v, wanted %s", err, want)
	}
}

// TestChosenCases: a case brings those along that it needs, and the sink that
// is told of each result hears of them all.
func TestChosenCases(t *testing.T) {
	var told []string
	r, err := Check(t.Context(), withManifest(t, small(busy), smallManifest), Options{Cache: cache, Only: regexp.MustCompile("^order$"), Done: func(r Result) { told = append(told, r.Case) }})
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	if got := strings.Join(told, " "); got != "module manifest imports config one kept order" || r.Held != 7 {
		t.Errorf("ran %s, %d held", got, r.Held)
	}
	names := map[string]bool{}
	for _, c := range Cases() {
		if names[c.Name] || c.Title == "" || !strings.HasPrefix(c.Rule, "R") {
			t.Errorf("case %+v", c)
		}
		names[c.Name] = true
	}
}

// TestCheckIsEnded: a check whose context ends leaves nothing behind.
func TestCheckIsEnded(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Check(ctx, withManifest(t, small(busy), smallManifest), Options{Cache: cache, Done: func(r Result) {
		if r.Case == "order" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestRulesAreThoseOfTheText: each rule that a case names stands in
// abi/README.md, and the text has no number twice.
func TestRulesAreThoseOfTheText(t *testing.T) {
	text, err := os.ReadFile("../../abi/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 25; n++ {
		if got := strings.Count(string(text), fmt.Sprintf("**R%d**", n)); got != 1 {
			t.Errorf("R%d stands %d times in the text", n, got)
		}
	}
	for _, c := range Cases() {
		if !strings.Contains(string(text), "**"+c.Rule+"**") {
			t.Errorf("case %s names %s, which the text does not have", c.Name, c.Rule)
		}
	}
}
