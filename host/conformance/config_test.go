package conformance

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

const sampleSchema = `{"type": "object", "additionalProperties": false, "required": ["url", "level", "how"], "properties": {
	"url": {"type": "string", "pattern": "^https?://"}, "level": {"type": "integer", "minimum": 3},
	"how": {"enum": ["a", "b"]}, "on": {"type": "boolean"}, "any": {}}}`

func TestConfigFromSchema(t *testing.T) {
	s, err := readSchema(json.RawMessage(sampleSchema))
	if err != nil {
		t.Fatal(err)
	}
	good := s.example("", "http://127.0.0.1:1")
	if want := `{"how":"a","level":3,"url":"http://127.0.0.1:1/events"}`; string(good) != want {
		t.Errorf("made %s, wanted %s", good, want)
	}
	if why := s.problem(good); why != "" {
		t.Errorf("what was made does not fit: %s", why)
	}
	for text, want := range map[string]string{
		`[]`:                                                  "it is no JSON object: json: cannot unmarshal array into Go value of type map[string]json.RawMessage",
		`{"url":"http://x","level":3}`:                        "how is missing, and required",
		`{"url":1,"level":3,"how":"a"}`:                       "url is of type integer, wanted string",
		`{"url":"u","level":3.5,"how":"a"}`:                   "level is of type number, wanted integer",
		`{"url":"u","level":3,"how":"c"}`:                     `how is "c", which its enum does not have`,
		`{"url":"u","level":3,"how":"a","x":1}`:               "x is no key of the schema",
		`{"url":"u","level":3,"how":"b","any":[1],"on":true}`: "",
	} {
		if got := s.problem(json.RawMessage(text)); got != want {
			t.Errorf("%s: %q, wanted %q", text, got, want)
		}
	}
	// Each bad configuration is one by the kit's own reading.
	for _, b := range s.badConfigs(good) {
		if why := s.problem(json.RawMessage(b.config)); why == "" {
			t.Errorf("%q (%s) fits the schema", b.config, b.why)
		}
	}
	if n := len(s.badConfigs(good)); n < 14 {
		t.Errorf("%d bad configurations", n)
	}
}

func TestConfigStaysOnLoopback(t *testing.T) {
	const origin = "http://127.0.0.1:7"
	got, err := onLoopback(json.RawMessage(`{"url":"https://user:pw@collector.example:8088/in?x=1","list":["http://a",{"b":"HTTPS://C/d"}],"n":12345678901234567890,"s":"see http://x"}`), origin)
	want := `{"list":["http://127.0.0.1:7",{"b":"http://127.0.0.1:7/d"}],"n":12345678901234567890,"s":"see http://x","url":"http://127.0.0.1:7/in?x=1"}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v; wanted %s", got, err, want)
	}
	if _, err := onLoopback(json.RawMessage(`{`), origin); err == nil {
		t.Error("what is no JSON passes")
	}
	if got := secretNames(json.RawMessage(`{"a":"Bearer {{secret one}}","b":"{{secret two}}{{secret one}}"}`)); !slices.Equal(got, []string{"one", "two", "one"}) {
		t.Errorf("secrets %q", got)
	}
}

// TestMarks: an event is found in the text of its id and in its bytes.
func TestMarks(t *testing.T) {
	k := &kit{}
	e := k.event(5000)
	if len(e.Payload) != 5000 || !json.Valid(e.Payload) || len(e.ID) != idSize {
		t.Errorf("id %s, %d bytes of payload", e.ID, len(e.Payload))
	}
	raw := append([]byte{9, 9}, rawMark...)
	raw = append(raw, 0, 0, 0x70, 1, 0x80, 0, 0, 0, 0, 0, 0, 1)
	for _, b := range [][]byte{e.Payload, []byte("x" + e.ID + "y"), append(raw, 1, 2)} {
		var got []string
		eachMark(b, func(id string) { got = append(got, id) })
		if !slices.Equal(got, []string{e.ID}) {
			t.Errorf("found %q in %.80q, wanted %s", got, b, e.ID)
		}
	}
	for _, b := range [][]byte{nil, []byte(mark), []byte(e.ID[:idSize-1]), raw[:len(raw)-1]} {
		eachMark(b, func(id string) { t.Errorf("found %s in %q", id, b) })
	}
	if a, z := idOf(4095), idOf(4096); a >= z {
		t.Errorf("ids %s and %s are not in order", a, z)
	}
}

// TestFrameWithHole: the frame with a hole is a frame, with the same events.
func TestFrameWithHole(t *testing.T) {
	k := &kit{}
	b := k.batch(5)
	dst := make([]byte, 1<<20)
	for i := range dst {
		dst[i] = 0xa5
	}
	putWithHole(dst, b)
	v, err := abi.Parse(dst)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for i := range b.Events {
		e := v.At(i)
		if string(e.ID()) != b.Events[i].ID || string(e.Payload()) != string(b.Events[i].Payload) || string(e.KeyID()) != "kit" || e.Seq() != b.Events[i].Seq {
			t.Errorf("event %d: %s %s", i, e.ID(), e.Payload())
		}
		lines += len(e.Payload()) + 1
	}
	if len(v.Lines()) != lines {
		t.Errorf("%d bytes of lines, wanted %d", len(v.Lines()), lines)
	}
}
