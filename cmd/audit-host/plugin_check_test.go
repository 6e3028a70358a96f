package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/host/conformance"
)

// TestScorecard: the same results for a terminal and for a file.
func TestScorecard(t *testing.T) {
	results := []conformance.Result{
		{Case: "one", Rule: "R5", Title: "first", Status: conformance.Held, Note: "a note"},
		{Case: "two", Rule: "R20", Title: "second", Status: conformance.Broken,
			Breach: &conformance.Breach{Sent: strings.Repeat("word ", 25), Got: "a\x1b[2Jb\nc", Wanted: "w", Change: "x"}},
		{Case: "three", Rule: "R9", Title: "third", Status: conformance.Unchecked, After: "two"},
		{Case: "four", Rule: "R9", Title: "fourth", Status: conformance.Inapplicable},
	}
	report := &conformance.Report{Plugin: "p", Version: "1", Digest: "d", Held: 1, Breaches: 1, Unchecked: 1, Inapplicable: 1, Took: 1234 * time.Millisecond}
	words := strings.TrimSpace(strings.Repeat("word ", 19))
	for _, plain := range []bool{true, false} {
		var b strings.Builder
		card := &scorecard{w: &b, colours: &b, plain: plain}
		for _, r := range results {
			card.result(r)
		}
		if err := card.end(report); err != nil {
			t.Fatal(err)
		}
		got := b.String()
		held, broken := "\x1b[32m✓\x1b[0m R5   one          first\n", "\x1b[31m✗\x1b[0m R20  two          second\n"
		if plain {
			held, broken = "ok   R5   one          first\n", "FAIL R20  two          second\n"
		}
		for _, want := range []string{held + strings.Repeat(" ", 20), broken, "sent    " + words + "\n", `got     "a\x1b[2Jb" c` + "\n", "R20     An event is stored when it outlives the instance",
			"nothing can be said of\n", " three\n\np 1, sha256 d\n1 held, 1 broken, 1 do not apply, 1 could not be checked, 1.2 s\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("plain %v: no %q in\n%s", plain, want, got)
			}
		}
		if strings.Contains(got, "\n\n\n") || plain && strings.Contains(got, "\x1b") {
			t.Errorf("plain %v:\n%q", plain, got)
		}
	}
	card := &scorecard{w: full{}, colours: full{}}
	card.result(results[0])
	if err := card.end(report); !errors.Is(err, errFull) {
		t.Errorf("to a full disk: %v", err)
	}
}

var errFull = errors.New("no space left")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestRulesHaveTexts: a breach can show the words of its rule.
func TestRulesHaveTexts(t *testing.T) {
	for _, c := range conformance.Cases() {
		if text := ruleText(c.Rule); len(text) < 40 || strings.Contains(text, "**R") || strings.Contains(text, "\n\n") {
			t.Errorf("%s: %q", c.Rule, text)
		}
	}
	if text := ruleText("R999"); text != "" {
		t.Errorf("R999 has the text %q", text)
	}
}
