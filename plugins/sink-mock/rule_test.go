//go:build !wasip1

package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
	"github.com/audit-host/audit-host/internal/plugintest"
)

func TestNumbers(t *testing.T) {
	for text, want := range map[string][]uint64{
		`7`: {7}, `"7"`: {7}, `"1,4,7-9"`: {1, 4, 7, 8, 9}, `"8-"`: {8, 9, 10}, `"*/5"`: {5, 10}, `" 2 , */4 "`: {2, 4, 8}, `0`: nil, `"9-8"`: nil,
	} {
		var s numbers
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []uint64
		for n := uint64(1); n <= 10; n++ {
			if s.has(n) {
				got = append(got, n)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has %v, wanted %v", text, got, want)
		}
	}
	for _, text := range []string{`""`, `"x"`, `"-3"`, `"1-x"`, `"*/0"`, `"*/x"`, `-1`, `1.5`, `"1,"`, `true`, `[1]`} {
		var s numbers
		if err := json.Unmarshal([]byte(text), &s); err == nil || !strings.Contains(err.Error(), "no set of numbers") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if !numbers(nil).has(99) {
		t.Error("an absent set lacks a number")
	}
}

func TestConditions(t *testing.T) {
	b := plugintest.View(t, &abi.Batch{ID: 30, Attempt: 2, Events: []abi.Event{
		{ID: "a", Seq: 5, Payload: []byte(`{"x":"plain"}`)}, {ID: "b", Seq: 6, Payload: []byte(`{"x":"poison"}`)}}})
	for text, want := range map[string]bool{
		`{}`:                                  true,
		`{"attempt": 2}`:                      true,
		`{"attempt": "3-"}`:                   false,
		`{"batch": 30, "call": 4}`:            true,
		`{"batch": 31}`:                       false,
		`{"call": "1-3"}`:                     false,
		`{"position": 6}`:                     true,
		`{"position": "7-"}`:                  false,
		`{"ids": ["b", "c"]}`:                 true,
		`{"ids": []}`:                         false,
		`{"contains": "poison"}`:              true,
		`{"contains": "venom"}`:               false,
		`{"ids": ["b"], "position": 6}`:       true,
		`{"ids": ["b"], "position": 5}`:       false, // no one event has both
		`{"contains": "plain", "attempt": 1}`: false,
	} {
		var r rule
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		if got := r.holds(b, 4); got != want {
			t.Errorf("%s holds: %v, wanted %v", text, got, want)
		}
	}
}

func TestConfiguration(t *testing.T) {
	for text, says := range map[string]string{
		`{}`: "", `{"rules": []}`: "", `{"rules": [{"do": "trap", "position": 7}]}`: "",
		`{"rule": []}`: `unknown field "rule"`,
		`{"rules": [{"do": "store"}, {"do": "x"}]}`: `rule 2: do is "x"; wanted one of store, reject`,
		`{"rules": [{}]}`:                      `rule 1: do is ""`,
		`{"rules": [{"do": "exit", "n": -1}]}`: "n is negative",
		`{"open": "bad-config"}`:               "as scripted",
		`{"open": "store"}`:                    "wanted bad-config, retry",
		`nonsense`:                             "invalid character",
	} {
		a := (&sink{}).Open([]byte(text))
		if says == "" && a.Outcome != abi.OK || says != "" && (a.Outcome != abi.BadConfig || !strings.Contains(a.Message, says)) {
			t.Errorf("%s: %s %q, wanted %q", text, a.Outcome, a.Message, says)
		}
	}
}

// TestEveryActionIsPerformed: what check lets pass, perform knows, and the
// manifest describes.
func TestEveryActionIsPerformed(t *testing.T) {
	wasm := plugintest.Read(t, "sink-mock")
	for _, do := range actions {
		if !strings.Contains(string(wasm[len(wasm)-64<<10:]), `"`+do+`"`) {
			t.Errorf("the manifest's schema lacks %s", do)
		}
	}
	t.Cleanup(guest.UseHost(guest.Host{Log: func(uint32, string) {}, Verdict: func(uint32, abi.Outcome, string) {}}))
	b := plugintest.View(t, &abi.Batch{ID: 1, Attempt: 1, Events: []abi.Event{{ID: "a"}}})
	for _, do := range actions {
		if slices.Contains([]string{"exit", "spin", "fault"}, do) {
			continue // they would end the test; wasm_test.go has them
		}
		func() {
			defer func() {
				if p, _ := recover().(string); strings.Contains(p, "check let") {
					t.Error(p)
				}
			}()
			(&sink{}).perform(&rule{Do: do, N: 1}, b)
		}()
	}
}

// TestStoredIDsFitIntoTheLog: no id is cut off, however long.
func TestStoredIDsFitIntoTheLog(t *testing.T) {
	for _, length := range []int{1, 36, 128} {
		var got []string
		restore := guest.UseHost(guest.Host{Log: func(_ uint32, m string) {
			if len(m) > abi.MaxLogText {
				t.Errorf("an entry of %d bytes", len(m))
			}
			lines := strings.Split(m, "\n")
			if lines[0] != "stored" {
				t.Errorf("an entry begins with %q", lines[0])
			}
			got = append(got, lines[1:]...)
		}})
		b := &abi.Batch{}
		var want []string
		for i := range 200 {
			id := strings.Repeat(string(rune('a'+i%26)), length)
			b.Events, want = append(b.Events, abi.Event{ID: id}), append(want, id)
		}
		store(plugintest.View(t, b), func(int) bool { return true })
		restore()
		if !slices.Equal(got, want) {
			t.Errorf("ids of %d bytes: %d of 200 came back", length, len(got))
		}
	}
}
