package main

import (
	"os"
	"strings"
	"testing"
)

// The payload of an event is a native event too: canonicalize reproduces the
// vectors of the source system byte for byte.
func TestCanonicalizeVectors(t *testing.T) {
	text, err := os.ReadFile("../../event/testdata/canonical.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var in, want strings.Builder
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 3 {
			t.Fatalf("line %q", line)
		}
		in.WriteString(f[1] + "\n")
		want.WriteString(f[2] + "\t" + f[1] + "\n")
		n++
	}
	if n < 5 {
		t.Fatalf("only %d vectors", n)
	}
	if got := must(t, 0, in.String(), "canonicalize").stdout; got != want.String() {
		t.Errorf("got\n%s\nwant\n%s", got, want.String())
	}
}
