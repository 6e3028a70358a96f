package shape

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

func view(t testing.TB, e abi.Event) abi.EventView {
	t.Helper()
	b := abi.Batch{ID: 1, Attempt: 1, Events: []abi.Event{e}}
	raw := make([]byte, b.Size())
	b.Encode(raw)
	v, err := abi.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return v.At(0)
}

func sample(signed bool) abi.Event {
	e := abi.Event{ID: "0192-a", AgentID: "agent:ü\"\\", EventType: "governance.refusal", Timestamp: "2026-01-01T00:00:00+00:00",
		Payload: []byte(`{"action":{"kind":"x"},"n":1}`), PayloadHash: [32]byte{0xab}, Digest: [32]byte{0xcd}, AttestLevel: abi.AttestUnsigned, Seq: 9}
	if signed {
		e.AttestLevel, e.KeyID, e.Signature = abi.AttestDaemonSigned, "k1", bytes.Repeat([]byte{7}, abi.SignatureSize)
	}
	return e
}

func TestShapes(t *testing.T) {
	zeros := strings.Repeat("00", 31)
	for _, c := range []struct {
		shape  string
		signed bool
		want   string
	}{
		{Payload, true, `{"action":{"kind":"x"},"n":1}`},
		{Event, false, `{"id":"0192-a","event_type":"governance.refusal","agent_id":"agent:ü\"\\","timestamp":"2026-01-01T00:00:00+00:00",` +
			`"payload_sha256":"ab` + zeros + `","digest":"cd` + zeros + `","attest_level":"unsigned","payload":{"action":{"kind":"x"},"n":1}}`},
		{Event, true, `{"id":"0192-a","event_type":"governance.refusal","agent_id":"agent:ü\"\\","timestamp":"2026-01-01T00:00:00+00:00",` +
			`"payload_sha256":"ab` + zeros + `","digest":"cd` + zeros + `","attest_level":"daemon_signed","key_id":"k1","signature":"` + strings.Repeat("07", 64) +
			`","payload":{"action":{"kind":"x"},"n":1}}`},
		{CloudEvents, false, `{"specversion":"1.0","id":"0192-a","source":"host-1","type":"governance.refusal","subject":"agent:ü\"\\",` +
			`"time":"2026-01-01T00:00:00+00:00","datacontenttype":"application/json","digest":"cd` + zeros + `","data":{"action":{"kind":"x"},"n":1}}`},
		{CloudEvents, true, `{"specversion":"1.0","id":"0192-a","source":"host-1","type":"governance.refusal","subject":"agent:ü\"\\",` +
			`"time":"2026-01-01T00:00:00+00:00","datacontenttype":"application/json","digest":"cd` + zeros + `","keyid":"k1","signature":"` + strings.Repeat("07", 64) +
			`","data":{"action":{"kind":"x"},"n":1}}`},
	} {
		got := Append([]byte("before"), view(t, sample(c.signed)), c.shape, "host-1")
		if string(got) != "before"+c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.shape, got, c.want)
		}
		if !json.Valid(got[len("before"):]) || bytes.ContainsRune(got, '\n') {
			t.Errorf("%s is no line of JSON: %s", c.shape, got)
		}
	}
	if got := strings.Join(Shapes(), " "); got != "event payload cloudevents" {
		t.Errorf("shapes %s", got)
	}
}

// FuzzQuote: encoding/json reads back what was quoted.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "plain", "\x00\x1f\"\\/", "ü\u2028\x7f", "\xff\xc3", "𝄞"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		q := Quote(nil, text)
		var got string
		if err := json.Unmarshal(q, &got); err != nil {
			t.Fatalf("%q: %v", q, err)
		}
		if want := strings.ToValidUTF8(string(text), "\uFFFD"); strings.ReplaceAll(got, "\uFFFD", "") != strings.ReplaceAll(want, "\uFFFD", "") {
			t.Errorf("%q read back as %q", text, got)
		}
		if bytes.ContainsFunc(q, func(r rune) bool { return r < ' ' }) {
			t.Errorf("a control character in %q", q)
		}
	})
}
