package abi

import (
	"bytes"
	"strings"
	"testing"
)

func TestHTTPAnswerRoundTrip(t *testing.T) {
	a := HTTPAnswer{Status: 429, Flags: HTTPWithheld, Redirects: 2, Header: []byte("date: today\nretry-after: 7\n"), Body: []byte("slow down")}
	whole := HTTPAnswerSize + len(a.Header) + len(a.Body)
	for size := HTTPAnswerSize; size <= whole+10; size++ {
		dst := make([]byte, size)
		n := a.Put(dst)
		got, ok := ParseHTTPAnswer(dst[:n])
		if !ok || got.Status != 429 || got.Redirects != 2 || int(got.Full) != len(a.Body) || got.Flags&HTTPWithheld == 0 {
			t.Fatalf("%d bytes: %+v, %v", size, got, ok)
		}
		if cut := got.Flags&HTTPCut != 0; cut != (size < whole) {
			t.Errorf("%d of %d bytes: cut is %v", size, whole, cut)
		}
		if !bytes.HasPrefix(a.Body, got.Body) || !bytes.HasPrefix(a.Header, got.Header) || len(got.Header) > 0 && got.Header[len(got.Header)-1] != '\n' {
			t.Errorf("%d bytes: header %q, body %q", size, got.Header, got.Body)
		}
		if n > size {
			t.Errorf("%d bytes written into %d", n, size)
		}
		for cut := range n {
			if _, ok := ParseHTTPAnswer(dst[:cut]); ok && cut < n {
				t.Errorf("an answer cut to %d of %d bytes was read", cut, n)
			}
		}
	}
	dst := make([]byte, whole)
	a.Put(dst)
	got, _ := ParseHTTPAnswer(dst)
	if got.Get("retry-after") != "7" || got.Get("date") != "today" || got.Get("retry") != "" || got.Get("x") != "" {
		t.Errorf("header %q", got.Header)
	}
}

// TestStatusNumbers pins the numbers that README.md gives.
func TestStatusNumbers(t *testing.T) {
	for i, want := range []string{"DONE", "REFUSED", "INVALID", "TOO_LARGE", "TIMEOUT", "UNAVAILABLE", "ABSENT", "status(7)"} {
		if got := Status(i).String(); got != want {
			t.Errorf("status %d is %s, wanted %s", i, got, want)
		}
	}
	if s, n := SplitStatus(StatusAnswer(StatusAbsent, 1<<31)); s != StatusAbsent || n != 1<<31 {
		t.Errorf("%v, %d", s, n)
	}
	if MaxKVKey != 256 || MaxKVValue != 64<<10 || MaxHTTPHead != 64<<10 || HTTPAnswerSize != 24 || HTTPCut != 1 || HTTPWithheld != 2 {
		t.Error("a limit is not that of the text")
	}
}

// TestEveryImportHasAKnownCapability, and every capability an import.
func TestEveryImportHasAKnownCapability(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Imports() {
		if s.Capability != "" {
			seen[s.Capability] = true
		}
	}
	for _, c := range Capabilities() {
		if !seen[c] {
			t.Errorf("no import needs %s", c)
		}
		delete(seen, c)
	}
	if len(seen) > 0 {
		t.Errorf("not listed: %v", seen)
	}
	if got := strings.Join(Capabilities(), " "); got != "sql append http kv now random" {
		t.Errorf("capabilities %s", got)
	}
}
