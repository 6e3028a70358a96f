package event

import (
	"strings"
	"testing"
)

// opaElement is what OPA uploads for a query, but for its result.
func opaElement(members string) []byte {
	return []byte(`{"labels":{"id":"opa-1","version":"1.22.2"},"decision_id":"4ca636c1-55e4-417a-b1d8-4aceb67960d1",` +
		`"bundles":{"authz":{"revision":"r1"}},"path":"http/authz/allow","input":{"user":"bob","n":9007199254740993},` +
		members + `"erased":["/input/password"],"masked":["/input/card"],"requested_by":"127.0.0.1:5000",` +
		`"timestamp":"2026-01-01T00:00:00.123456789Z","metrics":{"timer_rego_query_eval_ns":69994},"req_id":2}`)
}

func TestParseOPA(t *testing.T) {
	e, d, err := ParseOPA(opaElement(`"result":{"allow":false,"rule_id":"R7","reason":"not yours"},`), nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const payload = `{"action":{"bundles":{"authz":{"revision":"r1"}},"erased":["/input/password"],` +
		`"input":{"n":9007199254740993,"user":"bob"},"kind":"opa_decision","labels":{"id":"opa-1","version":"1.22.2"},` +
		`"masked":["/input/card"],"metrics":{"timer_rego_query_eval_ns":69994},"path":"http/authz/allow","req_id":2,` +
		`"requested_by":"127.0.0.1:5000","result":{"allow":false,"reason":"not yours","rule_id":"R7"}},` +
		`"agent_id":"bob","decision":{"decision":"refuse","reason":"not yours","rule_id":"R7"},` +
		`"timestamp":"2026-01-01T00:00:00.123456789+00:00"}`
	if string(e.Payload) != payload {
		t.Errorf("\n got %s\nwant %s", e.Payload, payload)
	}
	if e.ID != "4ca636c1-55e4-417a-b1d8-4aceb67960d1" || e.AgentID != "bob" || e.EventType != TypeRefusal || e.Minted ||
		d != (Decision{KindRefuse, "R7", "not yours"}) {
		t.Errorf("got %+v, %+v", e, d)
	}
	if err := Check(e, Options{}); err != nil {
		t.Error(err)
	}
}

func TestOPADecisions(t *testing.T) {
	refusal := func(reason string) Decision { return Decision{KindRefuse, "http/authz/allow", reason} }
	for members, want := range map[string]Decision{
		``:                                            refusal("denied by policy"),
		`"result":null,`:                              refusal("denied by policy"),
		`"error":{"code":"x"},`:                       refusal("denied by policy"),
		`"result":false,`:                             refusal("denied by policy"),
		`"result":true,`:                              allowed,
		`"result":"deny",`:                            refusal("denied by policy"),
		`"result":"allow",`:                           allowed,
		`"result":{"allow":true},`:                    allowed,
		`"result":{"allow":false},`:                   refusal("denied by policy"),
		`"result":{"deny":[]},`:                       allowed,
		`"result":{"deny":["no","x"]},`:               refusal("no"),
		`"result":{"deny":[{"m":1}]},`:                refusal("denied by policy"),
		`"result":{"deny":["no"],"reason":"r"},`:      refusal("r"),
		`"result":{"decision":"deny","allow":true},`:  refusal("denied by policy"),
		`"result":{"decision":"refuse","reason":""},`: refusal("denied by policy"),
		`"result":{"decision":"allow","allow":false,"reason":"x"},`: allowed,
		`"result":{"decision":"warn","rule_id":"W"},`:               {KindWarn, "W", "warned by policy"},
		`"result":{"decision":null,"allow":{},"deny":["z"]},`:       refusal("z"),
	} {
		_, d, err := ParseOPA(opaElement(members), nil, Options{})
		if err != nil || d != want {
			t.Errorf("%s: got %+v, %v, want %+v", members, d, err, want)
		}
	}
}

func TestOPAMintsWhatIsAbsent(t *testing.T) {
	for _, text := range []string{
		`{"labels":{"id":"opa-1"}}`,
		`{"labels":{"id":"opa-1"},"decision_id":"","timestamp":null}`,
		`{"labels":{"id":"opa-1"},"decision_id":null,"input":null}`,
	} {
		e, d, err := ParseOPA([]byte(text), nil, at(2026, 0))
		if err != nil || e.ID != "id-1" || !e.Minted || e.AgentID != "opa-1" || d.RuleID != "opa" {
			t.Errorf("%s: %+v, %+v, %v", text, e, d, err)
		}
		if strings.Contains(string(e.Payload), "decision_id") || strings.Count(string(e.Payload), "timestamp") != 1 {
			t.Errorf("%s: payload %s", text, e.Payload)
		}
	}
}

func TestOPARefuses(t *testing.T) {
	for _, c := range [][2]string{
		{`{}`, "byte 0: no agent is named at any of /input/agent_id, /input/user, /input/subject, /labels/id"},
		{`[]`, "must be an object"},
		{`{"input":{"user":"b"},"kind":"x"}`, "at /kind, byte 22: stands where"},
		{`{"input":{"user":"` + strings.Repeat("b", 257) + `"}}`, "at /input/user, byte 17: is 257 bytes long"},
		{`{"input":{"user":"b\n"}}`, "at /input/user, byte 17: holds the control character U+000A"},
		{`{"input":{"user":"b"},"decision_id":7}`, "at /decision_id, byte 36: must be a string"},
		{`{"input":{"user":"b"},"decision_id":"` + strings.Repeat("d", 129) + `"}`, "at /decision_id, byte 36: is 129 bytes"},
		{`{"input":{"user":"b"},"timestamp":"now"}`, "at /timestamp, byte 34: must be an RFC 3339"},
		{`{"input":{"user":"b"},"path":"` + strings.Repeat("p", 257) + `"}`, "at /path: the rule_id is 257 bytes"},
		{`{"input":{"user":"b"},"result":{"deny":["a\r"]}}`, "at /result: the reason holds"},
		{`{"input":{"user":"b"},"result":{"decision":"refuse","reason":"a\r"}}`, "at /result/reason: the reason holds"},
		{`{"input":{"user":"b"},"result":{"decision":"maybe"}}`, `at /result/decision, byte 43: must be refuse, deny, warn or allow, found "maybe"`},
		{`{"input":{"user":"b"},"result":{"x":1}}`, "at /result, byte 31: no decision can be read"},
		{`{"input":{"user":"b"},"result":[]}`, "at /result, byte 31: no decision can be read"},
		{`{"input":{"user":"b"},"result":[1]}`, "at /result, byte 31: no decision can be read"},
		{`{"input":{"user":"b"},"result":1}`, "at /result, byte 31: no decision can be read"},
		{`{"input":{"user":"b","x":` + strings.Repeat("[", MaxDepth-2) + strings.Repeat("]", MaxDepth-2) + `}}`, "more than 127 levels"},
	} {
		if _, _, err := ParseOPA([]byte(c[0]), nil, Options{}); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%.80s: got %v, want %q", c[0], err, c[1])
		}
	}
}

func TestOPAMappings(t *testing.T) {
	m, err := CompileOPA(Pointers{
		Agent:    []string{"/input/a~1b/~0c/1", "/input/who"},
		Decision: []string{"/result/verdicts/0/ok"},
		Rule:     []string{"/result/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"input":{"a/b":{"~c":["x","y"]},"who":"z"},"result":{"verdicts":[{"ok":false}],"":"empty name"}}`
	e, d, err := ParseOPA([]byte(text), m, Options{})
	if err != nil || e.AgentID != "y" || d != (Decision{KindRefuse, "empty name", "denied by policy"}) {
		t.Errorf("got %q, %+v, %v", e.AgentID, d, err)
	}
	const index = `{"input":{"a/b":{"~c":["x"]},"who":"z"},"result":{"verdicts":[{"ok":true}]}}`
	if e, d, err := ParseOPA([]byte(index), m, Options{}); err != nil || e.AgentID != "z" || d != allowed {
		t.Errorf("got %q, %+v, %v", e.AgentID, d, err)
	}
	for pointer, want := range map[string]string{"input": "must begin with /", "/a~": "~ must be written ~0", "/a~2b": "~ must be written ~0"} {
		if _, err := CompileOPA(Pointers{Reason: []string{pointer}}); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "reason pointers") {
			t.Errorf("%s: %v", pointer, err)
		}
	}
	var d0 doc
	if err := d0.parse([]byte(`["a","b"]`), 2); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int32{"0": 1, "1": 2, "2": 0, "01": 0, "-": 0, "+1": 0, "-1": 0, "": 0, "99999999999": 0} {
		if got := d0.element(0, token); got != want {
			t.Errorf("element %q is node %d, want %d", token, got, want)
		}
	}
}

func BenchmarkParseOPA(b *testing.B) {
	text := opaElement(`"result":{"allow":false,"rule_id":"R7","reason":"not yours"},`)
	m, err := CompileOPA(DefaultOPAPointers())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseOPA(text, m, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
