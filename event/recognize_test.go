package event

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

func ptr[T any](v T) *T { return &v }

// everyday are events that recognize must know, or Check is slow.
func everyday(t testing.TB) []abi.Event {
	t.Helper()
	refused := Decision{KindRefuse, "R1", "nicht „hier“, no 'quotes'"}
	var list []abi.Event
	for _, c := range []struct {
		a Action
		d Decision
	}{
		{Bash{Command: "rm -rf \"x\" \\ \n\t\x1f\x7f é😀"}, refused},
		{Bash{Command: "", CWD: ptr("/")}, Decision{KindWarn, "", ""}},
		{FilesystemWrite{Path: "/etc/passwd"}, Decision{Kind: KindAllow}},
		{FilesystemWrite{Path: "/x", ByteEstimate: ptr(uint64(999_999_999_999_999_999))}, refused},
		{NetworkRequest{Host: "evil.example"}, refused},
		{ProcessSpawn{Binary: "/usr/bin/curl"}, refused},
		{ProcessSpawn{Binary: "/usr/bin/curl", Args: []string{"-fsSL", "a\"b"}}, refused},
		{Custom{CustomKind: "k"}, refused},
		{Custom{CustomKind: "k", Payload: []byte(`{"b":[1,-2,0,{"a":{}},[],[[]]],"a":true,"z":false,"y":null}`)}, refused},
		{RawAction(`{"kind":"acme","more":{"x":"\u0001"},"payload":[]}`), refused},
	} {
		for _, o := range []Options{{}, at(2026, 0), at(2026, 120_000_000)} {
			e, err := New("agent:É", c.a, c.d, o)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, e)
		}
	}
	list[0].EventType = "acme.refusal-1"
	return list
}

func TestRecognizeKnowsTheEventsOfEveryday(t *testing.T) {
	for _, e := range everyday(t) {
		if !recognize(&e, Options{}) {
			t.Errorf("%s is not recognized", e.Payload)
		}
	}
	line := []byte(benchmarkLine)
	e, _, err := ParseNative(line, Options{})
	if err != nil || !recognize(&e, Options{}) {
		t.Errorf("%s is not recognized, %v", e.Payload, err)
	}
	if n := testing.AllocsPerRun(100, func() { recognize(&e, Options{}) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// agrees fails unless whatever is recognized is what check takes.
func agrees(t *testing.T, e abi.Event, o Options) {
	t.Helper()
	if !recognize(&e, o) {
		return
	}
	if err := check(e, o); err != nil {
		t.Fatalf("recognized, but check says %v: %+v %q", err, e, e.Payload)
	}
}

// Every byte of every event replaced, removed and doubled, and every number and
// string by some that are not canonical.
func TestRecognizeIsNeverLooserThanCheck(t *testing.T) {
	bytesToTry := []byte("\x00\x1f \"\\/09-+.,:;[]{}aeEntfuU\x7f\x80\xc3\xff")
	for _, e := range everyday(t) {
		payload := e.Payload
		try := func(changed []byte) {
			e.Payload = changed
			agrees(t, e, Options{})
		}
		for i := range payload {
			for _, b := range bytesToTry {
				changed := slices.Clone(payload)
				changed[i] = b
				try(changed)
				try(slices.Insert(slices.Clone(payload), i, b))
			}
			try(slices.Delete(slices.Clone(payload), i, i+1))
			try(slices.Insert(slices.Clone(payload), i, payload[i]))
			try(payload[:i])
		}
		for _, with := range []string{
			"-0", "00", "1.0", "1e3", "1.5", "18446744073709551615", "18446744073709551616", "999999999999999999", `"\u0041"`, `"\u001F"`,
			`"\u001f"`, `"\u000a"`, `"\n"`, `"\/"`, `"\ud83d"`, `"\"`, `"a`, `null`, `[]`, `{}`, `["a",1]`, `{"b":1,"a":1}`, `{"a":1,"a":1}`, `{"\u0061":1}`,
			`{"kind":"custom"}`, strings.Repeat("[", 200) + strings.Repeat("]", 200), "1" + strings.Repeat("0", 900),
		} {
			for _, old := range [][]byte{[]byte(`"R1"`), []byte(`"kind"`), []byte(`"custom"`), []byte("true"), []byte("999999999999999999"), []byte(`"/"`), []byte(`[]`), []byte(`null`), []byte(`"-fsSL"`)} {
				if bytes.Contains(payload, old) {
					try(bytes.Replace(payload, old, []byte(with), 1))
				}
			}
		}
		e.Payload = payload
		for _, o := range []Options{{MaxPayload: len(payload)}, {MaxPayload: len(payload) - 1}} {
			agrees(t, e, o)
		}
		for _, text := range []string{"", "x", "a\"b", "a\\b", "a\nb", "\xff", "é", strings.Repeat("x", 5000), TypeRefusal, TypeAllow, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.120+00:00"} {
			for _, change := range []func(e *abi.Event){
				func(e *abi.Event) { e.ID = text },
				func(e *abi.Event) { e.AgentID = text },
				func(e *abi.Event) { e.EventType = text },
				func(e *abi.Event) { e.Timestamp = text },
				func(e *abi.Event) { // in both places
					e.Payload = bytes.Replace(e.Payload, []byte(e.AgentID), []byte(text), 1)
					e.AgentID = text
				},
				func(e *abi.Event) {
					e.Payload = bytes.Replace(e.Payload, []byte(e.Timestamp), []byte(text), 1)
					e.Timestamp = text
				},
			} {
				other := e
				change(&other)
				agrees(t, other, Options{})
			}
		}
	}
}

func FuzzRecognize(f *testing.F) {
	seeds := 0
	for _, e := range everyday(f) {
		f.Add(e.ID, e.AgentID, e.EventType, e.Timestamp, e.Payload)
		seeds++
	}
	for _, row := range vectors(f) {
		f.Add("x", "agent:alice", TypeRefusal, "2026-01-01T00:00:00+00:00", []byte(row[1]))
		seeds++
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, id, agent, eventType, timestamp string, payload []byte) {
		agrees(t, abi.Event{ID: id, AgentID: agent, EventType: eventType, Timestamp: timestamp, Payload: payload}, Options{})
	})
}

func BenchmarkCheck(b *testing.B) {
	e, _, err := ParseNative([]byte(benchmarkLine), Options{})
	if err != nil {
		b.Fatal(err)
	}
	// With an escape in the decision check has to find out.
	slow := e
	slow.Payload = bytes.Replace(e.Payload, []byte("host is"), []byte(`host\nis`), 1)
	for i, e := range []abi.Event{e, slow} {
		b.Run([]string{"recognized", "found_out"}[i]+strconv.Itoa(len(e.Payload)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := Check(e, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
