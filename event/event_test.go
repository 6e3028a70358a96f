package event

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
)

var (
	memoryWrite = Custom{CustomKind: "memory_write", Payload: []byte(`{"namespace":"secrets/api"}`)}
	refused     = Decision{Kind: KindRefuse, RuleID: "R001", Reason: "no writes to secrets/*"}
	warned      = Decision{Kind: KindWarn, RuleID: "W001", Reason: "warning only"}
	allowed     = Decision{Kind: KindAllow}
)

// at returns options whose clock stands at a time and whose ids are one text.
func at(year int, nano int) Options {
	return Options{
		Now:   func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, nano, time.UTC) },
		NewID: func() (string, error) { return "id-1", nil },
	}
}

func TestT01_FromRefusalReturnsEventForRefuse(t *testing.T) {
	e, ok, err := FromRefusal("agent:alice", memoryWrite, refused)
	if err != nil || !ok {
		t.Fatalf("got %v, %v", ok, err)
	}
	rule, isRefusal := RuleID(e)
	reason, _ := Reason(e)
	if e.AgentID != "agent:alice" || !isRefusal || rule != "R001" || reason != "no writes to secrets/*" {
		t.Errorf("got agent %q, rule %q, reason %q", e.AgentID, rule, reason)
	}
}

func TestT02_FromRefusalReturnsNoneForAllow(t *testing.T) {
	if e, ok, err := FromRefusal("agent:alice", memoryWrite, allowed); ok || err != nil || e.ID != "" {
		t.Errorf("got %+v, %v, %v", e, ok, err)
	}
}

func TestT03_FromRefusalReturnsNoneForWarn(t *testing.T) {
	if e, ok, err := FromRefusal("agent:alice", memoryWrite, warned); ok || err != nil || e.ID != "" {
		t.Errorf("got %+v, %v, %v", e, ok, err)
	}
}

func TestT04_CanonicalBytesIncludeRuleAndAction(t *testing.T) {
	e, _, err := FromRefusal("agent:alice", memoryWrite, refused)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"R001", "memory_write", "agent:alice"} {
		if !bytes.Contains(e.Payload, []byte(part)) {
			t.Errorf("%s is not in %s", part, e.Payload)
		}
	}
}

func TestT05_RuleIDReturnsNoneForNonRefusal(t *testing.T) {
	for _, d := range []Decision{allowed, warned} {
		made, err := New("x", memoryWrite, d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		byHand := abi.Event{AgentID: "x", EventType: TypeRefusal, Payload: made.Payload}
		if rule, ok := RuleID(byHand); ok || rule != "" {
			t.Errorf("%s: rule %q, %v", d.Kind, rule, ok)
		}
		if reason, ok := Reason(byHand); ok || reason != "" {
			t.Errorf("%s: reason %q, %v", d.Kind, reason, ok)
		}
	}
}

func TestT30_GovernanceRefusalEventTypeIsStable(t *testing.T) {
	if TypeRefusal != "governance.refusal" {
		t.Errorf("it is %q", TypeRefusal)
	}
}

func TestB01_EventTypes(t *testing.T) {
	for d, want := range map[Decision]string{refused: "governance.refusal", warned: "governance.warn", allowed: "governance.allow", {}: ""} {
		if got := d.EventType(); got != want {
			t.Errorf("%q: %q, want %q", d.Kind, got, want)
		}
	}
	e, _, err := FromRefusal("a", memoryWrite, refused)
	if err != nil || e.EventType != "governance.refusal" {
		t.Errorf("got %q, %v", e.EventType, err)
	}
}

func TestB02_FromRefusalStampsNowAndCopies(t *testing.T) {
	payload := []byte(`{"n":1}`)
	before := time.Now().UTC()
	e, ok, err := FromRefusal("agent:alice", Custom{CustomKind: "k", Payload: payload}, refused)
	after := time.Now().UTC()
	if err != nil || !ok {
		t.Fatalf("got %v, %v", ok, err)
	}
	stamp, err := time.Parse("2006-01-02T15:04:05.999999999-07:00", e.Timestamp)
	if err != nil || stamp.Before(before.Truncate(0)) || stamp.After(after.Truncate(0)) {
		t.Errorf("stamped %v, not between %v and %v (%v)", stamp, before, after, err)
	}
	if !strings.HasSuffix(e.Timestamp, "+00:00") || !e.Minted || e.ID == "" {
		t.Errorf("got %+v", e)
	}
	copy(payload, `{"n":9}`)
	if !bytes.Contains(e.Payload, []byte(`{"n":1}`)) {
		t.Errorf("the event changed with its input: %s", e.Payload)
	}
}

func TestB03_RuleAndReasonOnlyForRefusals(t *testing.T) {
	for _, c := range []struct {
		d  Decision
		is bool
	}{{refused, true}, {warned, false}, {allowed, false}} {
		e, err := New("a", memoryWrite, c.d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, hasRule := RuleID(e)
		_, hasReason := Reason(e)
		back, err := DecisionOf(e)
		if hasRule != c.is || hasReason != c.is || back != c.d || err != nil || c.d.IsRefusal() != c.is {
			t.Errorf("%s: rule %v, reason %v, read back %+v, %v", c.d.Kind, hasRule, hasReason, back, err)
		}
	}
	if _, ok := RuleID(abi.Event{Payload: []byte("{")}); ok {
		t.Error("a broken payload has a rule")
	}
	if _, err := DecisionOf(abi.Event{Payload: []byte("{}")}); err == nil {
		t.Error("an empty payload has a decision")
	}
}

func TestB04_TypedActionsMatchTheVectors(t *testing.T) {
	estimate := ^uint64(0)
	actions := map[string]struct {
		a        Action
		d        Decision
		year, ns int
	}{
		"custom":     {memoryWrite, refused, 2026, 123456789},
		"bash_nocwd": {Bash{Command: "rm -rf <x> && echo \"hi\"\n\t\x1f\b\f\x7f"}, refused, 2026, 0},
		"fs":         {FilesystemWrite{"/etc/passwd", &estimate}, refused, 2026, 123456000},
		"net":        {NetworkRequest{Host: "evil.example"}, refused, 2026, 500000000},
		"warn":       {Custom{CustomKind: "k"}, Decision{KindWarn, "W", "x"}, 1970, 0},
		"allow":      {Custom{CustomKind: "k"}, allowed, 1970, 0},
	}
	for _, row := range vectors(t) {
		c, ok := actions[row[0]]
		if !ok {
			t.Fatalf("no action for vector %s", row[0])
		}
		e, err := New("agent:alice", c.a, c.d, at(c.year, c.ns))
		if err != nil || string(e.Payload) != row[1] {
			t.Errorf("%s: %v\n got %s\nwant %s", row[0], err, e.Payload, row[1])
		}
		if err := Check(e, Options{}); err != nil {
			t.Error(err)
		}
	}
}

func TestActions(t *testing.T) {
	cwd, empty := "/tmp", ""
	for _, c := range []struct {
		a    Action
		want string
	}{
		{Bash{"ls", &cwd}, `{"command":"ls","cwd":"/tmp","kind":"bash"}`},
		{Bash{"", &empty}, `{"command":"","cwd":"","kind":"bash"}`},
		{FilesystemWrite{Path: "/x"}, `{"kind":"filesystem_write","path":"/x"}`},
		{NetworkRequest{"h", "https"}, `{"host":"h","kind":"network_request","scheme":"https"}`},
		{ProcessSpawn{Binary: "b"}, `{"args":[],"binary":"b","kind":"process_spawn"}`},
		{ProcessSpawn{"b", []string{"-x", "\x00é"}}, `{"args":["-x","\u0000é"],"binary":"b","kind":"process_spawn"}`},
		{Custom{"k", []byte(` [1.50] `)}, `{"custom_kind":"k","kind":"custom","payload":[1.5]}`},
		{RawAction(`{"kind":"bash","command":"ls","cwd":null}`), `{"command":"ls","kind":"bash"}`},
		{RawAction(`{"kind":"bash","cwd":null,"command":"ls","shell":"zsh","env":null}`), `{"command":"ls","env":null,"kind":"bash","shell":"zsh"}`},
		{RawAction(`{"path":"/x","kind":"filesystem_write","byte_estimate":null}`), `{"kind":"filesystem_write","path":"/x"}`},
		{RawAction(`{"byte_estimate":0,"path":"/x","kind":"filesystem_write"}`), `{"byte_estimate":0,"kind":"filesystem_write","path":"/x"}`},
		{RawAction(`{"kind":"process_spawn","binary":"b","args":["1"]}`), `{"args":["1"],"binary":"b","kind":"process_spawn"}`},
		{RawAction(`{"kind":"custom","custom_kind":"k"}`), `{"custom_kind":"k","kind":"custom","payload":null}`},
		{RawAction(`{"kind":"custom","custom_kind":"k","zz":1}`), `{"custom_kind":"k","kind":"custom","payload":null,"zz":1}`},
		{RawAction(`{"kind":"custom","custom_kind":"k","payload":null}`), `{"custom_kind":"k","kind":"custom","payload":null}`},
		{RawAction(`{"z":1,"kind":"deploy","a":null}`), `{"a":null,"kind":"deploy","z":1}`},
	} {
		got, err := c.a.appendAction(nil)
		if err != nil || string(got) != c.want {
			t.Errorf("%v\n got %s\nwant %s", err, got, c.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1)
	for _, c := range []struct {
		agent string
		a     Action
		d     Decision
		o     Options
		want  string
	}{
		{"", memoryWrite, refused, Options{}, "at /agent_id: is empty"},
		{strings.Repeat("a", 257), memoryWrite, refused, Options{}, "at /agent_id: is 257 bytes"},
		{"a\x1fb", memoryWrite, refused, Options{}, "at /agent_id: holds the control character U+001F"},
		{"a", nil, refused, Options{}, "at /action: is nil"},
		{"a", Bash{Command: "\xff"}, refused, Options{}, "at /action/command: is not valid UTF-8"},
		{"a", ProcessSpawn{"b", []string{"", "\xff"}}, refused, Options{}, "at /action/args/1: is not valid UTF-8"},
		{"a", Custom{"k", []byte(`{"x":[}`)}, refused, Options{}, "at /action/payload/x/0, byte 6"},
		{"a", Custom{"k", []byte(deep)}, refused, Options{}, "more than 126 levels"},
		{"a", RawAction(`{"kind":"bash"}`), refused, Options{}, `at /action, byte 0: member "command" is missing`},
		{"a", RawAction(`{`), refused, Options{}, "at /action, byte 1"},
		{"a", memoryWrite, Decision{}, Options{}, "at /decision/decision: must be refuse, warn or allow"},
		{"a", memoryWrite, Decision{KindAllow, "R", ""}, Options{}, "at /decision/rule_id: must be absent"},
		{"a", memoryWrite, Decision{KindAllow, "", "r"}, Options{}, "at /decision/reason: must be absent"},
		{"a", memoryWrite, Decision{KindRefuse, "R\n", ""}, Options{}, "at /decision/rule_id: holds the control"},
		{"a", memoryWrite, Decision{KindRefuse, "R", "a\r"}, Options{}, "at /decision/reason: holds the control character U+000D"},
		{"a", memoryWrite, refused, at(10000, 0), "clock's time is outside the years"},
		{"a", memoryWrite, refused, Options{MaxPayload: 100}, "at most 100 are taken"},
		{"a", memoryWrite, refused, Options{NewID: func() (string, error) { return "", errors.New("dry") }}, "mint id: dry"},
		{"a", memoryWrite, refused, Options{NewID: func() (string, error) { return "a\x7f", nil }}, "mint id: at /id: holds"},
	} {
		if _, err := New(c.agent, c.a, c.d, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	if e, ok, err := FromRefusal("", memoryWrite, refused); ok || err == nil || e.ID != "" {
		t.Errorf("FromRefusal without an agent: %v, %v", ok, err)
	}
}

func TestCheckRefusesWhatDoesNotAgree(t *testing.T) {
	good, err := New("a", memoryWrite, refused, at(2026, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(good, Options{}); err != nil {
		t.Fatal(err)
	}
	allow, err := New("a", memoryWrite, allowed, at(2026, 0))
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(e *abi.Event){
		"at /id: is empty":              func(e *abi.Event) { e.ID = "" },
		"at /agent_id: is \"b\"":        func(e *abi.Event) { e.AgentID = "b" },
		"at /timestamp: is":             func(e *abi.Event) { e.Timestamp = "2026-01-01T00:00:00Z" },
		"cannot name a decision":        func(e *abi.Event) { e.EventType, e.Payload = TypeRefusal, allow.Payload },
		"at /event_type: is empty":      func(e *abi.Event) { e.EventType = "" },
		"not in canonical form":         func(e *abi.Event) { e.Payload = append(e.Payload, ' ') },
		"is no member of a payload":     func(e *abi.Event) { e.Payload = replace(e.Payload, `,"timestamp"`, `,"id":"x","timestamp"`) },
		`member "timestamp" is missing`: func(e *abi.Event) { e.Payload = replace(e.Payload, `,"timestamp":"2026-01-01T00:00:00+00:00"`, "") },
		"ends where a value":            func(e *abi.Event) { e.Payload = nil },
	} {
		e := good
		e.Payload = slices.Clone(good.Payload)
		change(&e)
		if err := Check(e, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func replace(b []byte, from, to string) []byte {
	if !bytes.Contains(b, []byte(from)) {
		panic(fmt.Sprintf("%s is not in %s", from, b))
	}
	return bytes.Replace(b, []byte(from), []byte(to), 1)
}

func TestMintedIDsIncrease(t *testing.T) {
	const goroutines, each = 8, 5_000
	ids := make([][]string, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for range each {
				id, err := Options{}.newID()
				if err != nil {
					t.Error(err)
					return
				}
				ids[g] = append(ids[g], id)
			}
		})
	}
	wg.Wait()
	all := map[string]bool{}
	for g := range ids {
		for i, id := range ids[g] {
			if len(id) != 36 || id[14] != '7' {
				t.Fatalf("%s is no UUID of version 7", id)
			}
			if i > 0 && ids[g][i-1] >= id {
				t.Fatalf("%s comes after %s", id, ids[g][i-1])
			}
			all[id] = true
		}
	}
	if len(all) != goroutines*each {
		t.Errorf("%d ids are distinct, want %d", len(all), goroutines*each)
	}
}
