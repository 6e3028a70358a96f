package event

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// line returns a native event with the given members instead of, or beside,
// those of a plain refusal; an empty text takes a member out.
func line(members map[string]string) []byte {
	all := map[string]string{
		"agent_id": `"agent:alice"`,
		"action":   `{"kind":"bash","command":"ls"}`,
		"decision": `{"decision":"refuse","rule_id":"R1","reason":"no"}`,
	}
	for name, value := range members {
		all[name] = value
	}
	var parts []string
	for name, value := range all {
		if value != "" {
			parts = append(parts, fmt.Sprintf("%q:%s", name, value))
		}
	}
	return []byte("{" + strings.Join(parts, ",") + "}")
}

func TestParseNative(t *testing.T) {
	e, d, err := ParseNative(line(map[string]string{
		"id": `"my-\u0069d"`, "timestamp": `"2026-01-01T01:00:00+01:00"`, "event_type": `"acme.refusal-2"`,
	}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	const payload = `{"action":{"command":"ls","kind":"bash"},"agent_id":"agent:alice",` +
		`"decision":{"decision":"refuse","reason":"no","rule_id":"R1"},"timestamp":"2026-01-01T00:00:00+00:00"}`
	if e.ID != "my-id" || e.AgentID != "agent:alice" || e.EventType != "acme.refusal-2" || e.Minted ||
		e.Timestamp != "2026-01-01T00:00:00+00:00" || string(e.Payload) != payload {
		t.Errorf("got %+v\n%s", e, e.Payload)
	}
	if d != (Decision{KindRefuse, "R1", "no"}) {
		t.Errorf("got %+v", d)
	}
	if err := Check(e, Options{}); err != nil {
		t.Error(err)
	}
}

func TestParseNativeMintsWhatIsAbsent(t *testing.T) {
	for _, members := range []map[string]string{{}, {"id": "null", "timestamp": "null", "event_type": "null"}} {
		e, _, err := ParseNative(line(members), at(2026, 1000))
		if err != nil {
			t.Fatal(err)
		}
		if e.ID != "id-1" || !e.Minted || e.Timestamp != "2026-01-01T00:00:00.000001+00:00" || e.EventType != TypeRefusal {
			t.Errorf("got %+v", e)
		}
		if !strings.Contains(string(e.Payload), e.Timestamp) {
			t.Errorf("the stamp is not in %s", e.Payload)
		}
	}
	for text, want := range map[string]string{
		`{"decision":"allow"}`:                           TypeAllow,
		`{"decision":"warn","rule_id":"","reason":"\n"}`: TypeWarn,
	} {
		e, d, err := ParseNative(line(map[string]string{"decision": text}), Options{})
		if err != nil || e.EventType != want || d.EventType() != want || d.IsRefusal() {
			t.Errorf("%s: %q, %v", text, e.EventType, err)
		}
	}
}

func TestParseNativeKeepsNothingOfTheLine(t *testing.T) {
	text := line(map[string]string{"id": `"abc"`})
	e, d, err := ParseNative(text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		text[i] = '#'
	}
	if e.ID != "abc" || e.AgentID != "agent:alice" || d.RuleID != "R1" || strings.Contains(string(e.Payload), "#") {
		t.Errorf("the event changed with its line: %+v %s", e, e.Payload)
	}
}

func TestParseNativeRefuses(t *testing.T) {
	for _, c := range []struct {
		members    map[string]string
		path, want string
	}{
		{map[string]string{"agentId": "1"}, "/agentId", `unknown member "agentId"; did you mean "agent_id"?`},
		{map[string]string{"timestmp": "1"}, "/timestmp", `did you mean "timestamp"?`},
		{map[string]string{"Action": "1"}, "/Action", `did you mean "action"?`},
		{map[string]string{"event-type": "1"}, "/event-type", `did you mean "event_type"?`},
		{map[string]string{"severity": "1"}, "/severity", `known are action, agent_id`},
		{map[string]string{"agent_id": ""}, "", `member "agent_id" is missing`},
		{map[string]string{"action": ""}, "", `member "action" is missing`},
		{map[string]string{"decision": ""}, "", `member "decision" is missing`},
		{map[string]string{"agent_id": "7"}, "/agent_id", "must be a string, found a number"},
		{map[string]string{"agent_id": "null"}, "/agent_id", "must be a string, found null"},
		{map[string]string{"agent_id": `""`}, "/agent_id", "is empty"},
		{map[string]string{"agent_id": `"` + strings.Repeat("é", 129) + `"`}, "/agent_id", "is 258 bytes long; at most 256"},
		{map[string]string{"agent_id": `"a\u001fb"`}, "/agent_id", "U+001F"},
		{map[string]string{"agent_id": `"a\u007f"`}, "/agent_id", "U+007F (at its byte 1)"},
		{map[string]string{"agent_id": `"é\u0080"`}, "/agent_id", "U+0080 (at its byte 2)"},
		{map[string]string{"agent_id": `"a\u009f"`}, "/agent_id", "U+009F"},
		{map[string]string{"agent_id": `"a\n"`}, "/agent_id", "U+000A"},
		{map[string]string{"id": `""`}, "/id", "is empty"},
		{map[string]string{"id": "1"}, "/id", "must be a string"},
		{map[string]string{"id": `"` + strings.Repeat("i", 129) + `"`}, "/id", "at most 128"},
		{map[string]string{"id": `"\u0000"`}, "/id", "U+0000"},
		{map[string]string{"timestamp": "1767225600"}, "/timestamp", "must be a string, found a number"},
		{map[string]string{"timestamp": `"yesterday"`}, "/timestamp", "RFC 3339"},
		{map[string]string{"event_type": `"Acme"`}, "/event_type", "a-z, 0-9"},
		{map[string]string{"event_type": `"é"`}, "/event_type", "a-z, 0-9"},
		{map[string]string{"event_type": `""`}, "/event_type", "is empty"},
		{map[string]string{"event_type": `"` + strings.Repeat("e", 65) + `"`}, "/event_type", "at most 64"},
		{map[string]string{"event_type": `"governance.allow"`}, "/event_type", "cannot name a decision of kind refuse"},
		{map[string]string{"event_type": `"governance.refusal"`, "decision": `{"decision":"allow"}`}, "/event_type", "cannot name a decision of kind allow"},
		{map[string]string{"event_type": `"governance.refusal"`, "decision": `{"decision":"warn","rule_id":"W","reason":""}`}, "/event_type", "cannot name a decision of kind warn"},
		{map[string]string{"decision": `"refuse"`}, "/decision", "must be an object, found a string"},
		{map[string]string{"decision": `{}`}, "/decision", `member "decision" is missing`},
		{map[string]string{"decision": `{"decision":"deny"}`}, "/decision/decision", `found "deny"`},
		{map[string]string{"decision": `{"decision":1}`}, "/decision/decision", "must be a string"},
		{map[string]string{"decision": `{"decision":"refuse","reason":"x"}`}, "/decision", `member "rule_id" is missing; a refuse decision needs it`},
		{map[string]string{"decision": `{"decision":"warn","rule_id":"x"}`}, "/decision", `member "reason" is missing; a warn decision needs it`},
		{map[string]string{"decision": `{"decision":"refuse","rule_id":null,"reason":""}`}, "/decision/rule_id", "found null"},
		{map[string]string{"decision": `{"decision":"refuse","rule":"x","reason":""}`}, "/decision/rule", `unknown member "rule"`},
		{map[string]string{"decision": `{"decision":"refuse","ruleId":"x","reason":""}`}, "/decision/ruleId", `did you mean "rule_id"?`},
		{map[string]string{"decision": `{"decision":"allow","rule_id":""}`}, "/decision/rule_id", "must be absent"},
		{map[string]string{"decision": `{"decision":"allow","reason":""}`}, "/decision/reason", "must be absent"},
		{map[string]string{"decision": `{"decision":"refuse","rule_id":"` + strings.Repeat("r", 257) + `","reason":""}`}, "/decision/rule_id", "at most 256"},
		{map[string]string{"decision": `{"decision":"refuse","rule_id":"","reason":"` + strings.Repeat("r", 4097) + `"}`}, "/decision/reason", "at most 4096"},
		{map[string]string{"decision": `{"decision":"refuse","rule_id":"","reason":"a\u0085"}`}, "/decision/reason", "U+0085"},
		{map[string]string{"decision": `{"decision":"refuse","rule_id":"a\t","reason":""}`}, "/decision/rule_id", "U+0009"},
		{map[string]string{"action": `[]`}, "/action", "must be an object, found an array"},
		{map[string]string{"action": `{}`}, "/action", `member "kind" is missing`},
		{map[string]string{"action": `{"kind":1}`}, "/action/kind", "must be a string"},
		{map[string]string{"action": `{"kind":"bash","cwd":"/"}`}, "/action", `member "command" is missing; a bash action needs it`},
		{map[string]string{"action": `{"kind":"bash","command":null}`}, "/action/command", "must be a string, found null"},
		{map[string]string{"action": `{"kind":"bash","command":"","cwd":1}`}, "/action/cwd", "must be a string"},
		{map[string]string{"action": `{"kind":"filesystem_write","path":"","byte_estimate":-1}`}, "/action/byte_estimate", "integer from 0"},
		{map[string]string{"action": `{"kind":"filesystem_write","path":"","byte_estimate":1.0}`}, "/action/byte_estimate", "integer from 0"},
		{map[string]string{"action": `{"kind":"filesystem_write","path":"","byte_estimate":18446744073709551616}`}, "/action/byte_estimate", "integer from 0"},
		{map[string]string{"action": `{"kind":"filesystem_write","path":"","byte_estimate":"1"}`}, "/action/byte_estimate", "integer from 0"},
		{map[string]string{"action": `{"kind":"network_request","host":"h"}`}, "/action", `member "scheme" is missing`},
		{map[string]string{"action": `{"kind":"process_spawn","binary":"b","args":"x"}`}, "/action/args", "must be an array"},
		{map[string]string{"action": `{"kind":"process_spawn","binary":"b","args":["",1]}`}, "/action/args/1", "must be a string"},
		{map[string]string{"action": `{"kind":"custom","payload":1}`}, "/action", `member "custom_kind" is missing`},
	} {
		_, _, err := ParseNative(line(c.members), Options{})
		var e *Error
		if !errors.As(err, &e) || e.Path != c.path || !strings.Contains(e.Reason, c.want) {
			t.Errorf("%v:\n got %v\nwant %s: %s", c.members, err, c.path, c.want)
		} else if e.Offset < 0 {
			t.Errorf("%v: the error has no offset: %v", c.members, err)
		}
	}
	for _, text := range []string{`[]`, `"x"`, `null`, `{"agent_id":"a"`} {
		if _, _, err := ParseNative([]byte(text), Options{}); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestReasonMayHaveLines(t *testing.T) {
	_, d, err := ParseNative(line(map[string]string{"decision": `{"decision":"refuse","rule_id":"R","reason":"a\n\tb"}`}), Options{})
	if err != nil || d.Reason != "a\n\tb" {
		t.Errorf("got %q, %v", d.Reason, err)
	}
}

func TestLimitsAreInclusive(t *testing.T) {
	members := map[string]string{
		"id":         `"` + strings.Repeat("i", 128) + `"`,
		"agent_id":   `"` + strings.Repeat("é", 128) + `"`,
		"event_type": `"` + strings.Repeat("e", 64) + `"`,
		"decision":   `{"decision":"refuse","rule_id":"` + strings.Repeat("r", 256) + `","reason":"` + strings.Repeat("r", 4096) + `"}`,
	}
	members["timestamp"] = `"2026-01-01T00:00:00Z"`
	e, _, err := ParseNative(line(members), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ParseNative(line(members), Options{MaxPayload: len(e.Payload)}); err != nil {
		t.Error(err)
	}
	if _, _, err := ParseNative(line(members), Options{MaxPayload: len(e.Payload) - 1}); err == nil {
		t.Error("a payload beyond the limit is taken")
	}
	fill := func(n int) []byte {
		return line(map[string]string{"timestamp": `"2026-01-01T00:00:00Z"`, "action": `{"kind":"bash","command":"` + strings.Repeat("x", n) + `"}`})
	}
	e, _, err = ParseNative(fill(0), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ParseNative(fill(MaxPayload-len(e.Payload)), Options{}); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
	if _, _, err := ParseNative(fill(MaxPayload-len(e.Payload)+1), Options{}); err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("1 MiB and a byte: %v", err)
	}
	if _, _, err := ParseNative(make([]byte, 8*MaxPayload+1), Options{}); err == nil || !strings.Contains(err.Error(), "at most 8388608 are read") {
		t.Errorf("beyond 8 MiB: %v", err)
	}
}

// A text of values alone is given up as soon as it cannot fit, not when it is
// read to its end.
func TestHostileTextsCostLittle(t *testing.T) {
	array := "[0" + strings.Repeat(",0", 4*MaxPayload-200) + "]"
	text := line(map[string]string{"action": `{"kind":"x","a":` + array + `}`})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := ParseNative(text, Options{})
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "more than 524304 values") {
		t.Errorf("got %v", err)
	}
	if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 80 {
		t.Errorf("%d MiB were allocated for a text of %d MiB", mib, len(text)>>20)
	}
	fits := "[0" + strings.Repeat(",0", MaxPayload/2-200) + "]"
	if _, _, err := ParseNative(line(map[string]string{"action": `{"kind":"x","a":` + fits + `}`}), Options{}); err != nil {
		t.Errorf("values that fit: %v", err)
	}
}

func TestCanonicalizeRefuses(t *testing.T) {
	for want, text := range map[string][]byte{
		`member "timestamp" is missing`: line(nil),
		"cannot name":                   line(map[string]string{"event_type": `"governance.warn"`, "timestamp": `"2026-01-01T00:00:00Z"`}),
		"ends where":                    nil,
	} {
		if out, _, err := Canonicalize(text); err == nil || out != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %s, %v, want %q", out, err, want)
		}
	}
}

// The allocations of an event: the payload, id, agent, timestamp, rule and
// reason.
func TestParseNativeAllocations(t *testing.T) {
	text := line(map[string]string{"id": `"abc"`, "timestamp": `"2026-01-01T00:00:00Z"`})
	got := testing.AllocsPerRun(100, func() {
		if _, _, err := ParseNative(text, Options{}); err != nil {
			t.Fatal(err)
		}
	})
	if got != 6 {
		t.Errorf("%v allocations, want 6", got)
	}
}

// benchmarkLine is 400 bytes, its members in no order.
const benchmarkLine = `{"id":"0198c0de-7a5b-7c11-9d2e-3f4a5b6c7d8e","timestamp":"2026-01-01T12:00:00.123456789Z",` +
	`"agent_id":"agent:build-runner-17","action":{"kind":"process_spawn","binary":"/usr/bin/curl",` +
	`"args":["-fsSL","--retry","3","https://downloads.example/install.sh","-o","/tmp/install.sh"]},` +
	`"decision":{"decision":"refuse","rule_id":"net.egress.deny-unknown-host","reason":"host is not on the list of this project"}}`

func BenchmarkParseNative(b *testing.B) {
	text := []byte(benchmarkLine)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseNative(text, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseNativeMinting(b *testing.B) {
	text := []byte(strings.Replace(benchmarkLine, `"id":"0198c0de-7a5b-7c11-9d2e-3f4a5b6c7d8e","timestamp":"2026-01-01T12:00:00.123456789Z",`, "", 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseNative(text, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendCanonical(b *testing.B) {
	text := []byte(benchmarkLine)
	var dst []byte
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = AppendCanonical(dst[:0], text); err != nil {
			b.Fatal(err)
		}
	}
}
