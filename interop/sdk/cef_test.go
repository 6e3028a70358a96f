package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/appendfile"
)

var builtCEF sync.Map

// sinkCEF builds plugins/sink-cef in a folder of its own.
func sinkCEF(t *testing.T) []byte {
	t.Helper()
	if wasm, ok := builtCEF.Load(""); ok {
		return wasm.([]byte)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "plugins", "sink-cef"))); err != nil {
		t.Fatal(err)
	}
	wasm := build(t, dir, "sink-cef.wasm", "SDK="+filepath.Join(root, "abi", "sdk", "rust"))
	builtCEF.Store("", wasm)
	return wasm
}

// told delivers events to sink-cef and returns its lines.
func told(t *testing.T, config string, events ...abi.Event) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	s := mustOpen(t, sinkCEF(t), host.Options{Config: []byte(config), Append: &appendfile.Options{Path: path}})
	deliver(t, s, &abi.Batch{ID: 1, Attempt: 1, Events: events})
	text, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(text), "\n") {
		t.Fatalf("%v: %q", err, text)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != len(events) {
		t.Fatalf("%d lines of %d events: %q", len(lines), len(events), text)
	}
	return lines
}

// refusal is an event of the shape that package event makes.
func refusal(rule, reason, kind string) abi.Event {
	payload, err := json.Marshal(map[string]any{
		"action": map[string]any{"kind": kind, "path": "/etc"}, "agent_id": "agent",
		"decision": map[string]any{"decision": "refuse", "rule_id": rule, "reason": reason},
	})
	if err != nil {
		panic(err)
	}
	e := abi.Event{ID: "id-1", AgentID: "agent:alice", EventType: "governance.refusal", Timestamp: "2026-01-01T00:00:00.123456789+00:00", Seq: 7,
		Payload: payload, AttestLevel: abi.AttestUnsigned}
	if e.Payload, err = event.AppendCanonical(nil, payload); err != nil {
		panic(err)
	}
	return e
}

const noHash = "0000000000000000000000000000000000000000000000000000000000000000"

// TestCEFLines: whole lines, and how each character that means something is
// escaped.
func TestCEFLines(t *testing.T) {
	signed := refusal("R001", "no writes", "filesystem_write")
	signed.Signature, signed.KeyID, signed.AttestLevel = make([]byte, abi.SignatureSize), "k|=1", abi.AttestDaemonSigned
	allowed := refusal("", "", "")
	allowed.EventType, allowed.Payload = "policy|allow\\", []byte(`{"action":{"kind":"bash"},"decision":{"decision":"allow"}}`)
	odd := refusal("", "", "")
	odd.ID, odd.AgentID, odd.Timestamp, odd.Payload = "a=b\\c|d", "x\ny\rz\t\x7f", "some day", []byte(`{"action":7,"decision":{"decision":["refuse"],"rule_id":null}}`)
	for name, c := range map[string]struct {
		config string
		e      abi.Event
		want   string
	}{
		"plain": {`{}`, refusal("R001", "no writes to /etc", "filesystem_write"),
			`CEF:0|audit-host|audit-host|1|R001|governance.refusal|7|cn1Label=queuePosition cn1=7 rt=1767225600123 suser=agent:alice act=refuse reason=no writes to /etc cs1Label=eventId cs1=id-1 cs2Label=actionKind cs2=filesystem_write cs3Label=payloadSha256 cs3=` + noHash + ` cs4Label=attestation cs4=unsigned`},
		"signed": {`{"format":"cef"}`, signed,
			`CEF:0|audit-host|audit-host|1|R001|governance.refusal|7|cn1Label=queuePosition cn1=7 rt=1767225600123 suser=agent:alice act=refuse reason=no writes cs1Label=eventId cs1=id-1 cs2Label=actionKind cs2=filesystem_write cs3Label=payloadSha256 cs3=` + noHash + ` cs4Label=attestation cs4=daemon_signed cs5Label=keyId cs5=k|\=1`},
		"device": {`{"vendor":"A|B\\","product":"p=q","version":"2.0 é"}`, refusal("R", "x", "k"),
			`CEF:0|A\|B\\|p=q|2.0 é|R|governance.refusal|7|cn1Label=queuePosition cn1=7 rt=1767225600123 suser=agent:alice act=refuse reason=x cs1Label=eventId cs1=id-1 cs2Label=actionKind cs2=k cs3Label=payloadSha256 cs3=` + noHash + ` cs4Label=attestation cs4=unsigned`},
		"escapes": {`{}`, refusal(`R|1\2=3`+"\n4", "a=b\\c|d\ne\rf\tg\"h]\u0001", "k=\\"),
			`CEF:0|audit-host|audit-host|1|R\|1\\2=3 4|governance.refusal|7|cn1Label=queuePosition cn1=7 rt=1767225600123 suser=agent:alice act=refuse reason=a\=b\\c|d\ne\rf g"h]  cs1Label=eventId cs1=id-1 cs2Label=actionKind cs2=k\=\\ cs3Label=payloadSha256 cs3=` + noHash + ` cs4Label=attestation cs4=unsigned`},
		"allow": {`{}`, allowed,
			`CEF:0|audit-host|audit-host|1|policy\|allow\\|policy\|allow\\|2|cn1Label=queuePosition cn1=7 rt=1767225600123 suser=agent:alice act=allow cs1Label=eventId cs1=id-1 cs2Label=actionKind cs2=bash cs3Label=payloadSha256 cs3=` + noHash + ` cs4Label=attestation cs4=unsigned`},
		"odd": {`{}`, odd,
			`CEF:0|audit-host|audit-host|1|governance.refusal|governance.refusal|5|cn1Label=queuePosition cn1=7 suser=x\ny\rz   cs1Label=eventId cs1=a\=b\\c|d cs3Label=payloadSha256 cs3=` + noHash + ` cs4Label=attestation cs4=unsigned`},
		"syslog": {`{"format":"rfc5424"}`, refusal("R001", "no writes to /etc", "filesystem_write"),
			`<108>1 2026-01-01T00:00:00.123456+00:00 - audit-host - governance.refusal [audit@32473 id="id-1" agent="agent:alice" decision="refuse" rule="R001" reason="no writes to /etc" kind="filesystem_write" position="7" sha256="` + noHash + `" attestation="unsigned"] {"action":{"kind":"filesystem_write","path":"/etc"},"agent_id":"agent","decision":{"decision":"refuse","reason":"no writes to /etc","rule_id":"R001"}}`},
		"syslog signed": {`{"format":"rfc5424","hostname":"gw1.example","product":"guard","sd_id":"x@1"}`, signed,
			`<108>1 2026-01-01T00:00:00.123456+00:00 gw1.example guard - governance.refusal [x@1 id="id-1" agent="agent:alice" decision="refuse" rule="R001" reason="no writes" kind="filesystem_write" position="7" sha256="` + noHash + `" attestation="daemon_signed" key="k|=1"] {"action":{"kind":"filesystem_write","path":"/etc"},"agent_id":"agent","decision":{"decision":"refuse","reason":"no writes","rule_id":"R001"}}`},
		"syslog escapes": {`{"format":"rfc5424"}`, refusal(`a"b\c]d`, "é=\n\t", "k"),
			`<108>1 2026-01-01T00:00:00.123456+00:00 - audit-host - governance.refusal [audit@32473 id="id-1" agent="agent:alice" decision="refuse" rule="a\"b\\c\]d" reason="é=  " kind="k" position="7" sha256="` + noHash + "\" attestation=\"unsigned\"] \ufeff" + `{"action":{"kind":"k","path":"/etc"},"agent_id":"agent","decision":{"decision":"refuse","reason":"é=\n\t","rule_id":"a\"b\\c]d"}}`},
		"syslog allow": {`{"format":"rfc5424"}`, allowed,
			`<110>1 2026-01-01T00:00:00.123456+00:00 - audit-host - policy|allow\ [audit@32473 id="id-1" agent="agent:alice" decision="allow" kind="bash" position="7" sha256="` + noHash + `" attestation="unsigned"] {"action":{"kind":"bash"},"decision":{"decision":"allow"}}`},
		"syslog odd": {`{"format":"rfc5424"}`, odd,
			`<109>1 - - audit-host - governance.refusal [audit@32473 id="a=b\\c|d" agent="x y z  " position="7" sha256="` + noHash + `" attestation="unsigned"] {"action":7,"decision":{"decision":["refuse"],"rule_id":null}}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := told(t, c.config, c.e)[0]; got != c.want {
				t.Errorf("got\n%s\nwanted\n%s", got, c.want)
			}
		})
	}
}

// TestCEFTimes compares rt with what package time makes of the same text.
func TestCEFTimes(t *testing.T) {
	texts := []string{"1970-01-01T00:00:00+00:00", "1969-12-31T23:59:59.999+00:00", "2000-02-29T12:00:00.5Z", "2100-03-01T00:00:00.1234567+00:00",
		"0000-03-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999+00:00", "2024-02-29T23:30:00+05:30", "2026-01-01T00:00:00-08:00", "1600-02-29T00:00:00Z"}
	var events []abi.Event
	for _, text := range texts {
		e := refusal("R", "x", "k")
		e.Timestamp = text
		events = append(events, e)
	}
	for i, line := range told(t, `{}`, events...) {
		at, err := time.Parse(time.RFC3339Nano, texts[i])
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf(" rt=%d ", at.UnixMilli()); !strings.Contains(line, want) {
			t.Errorf("%s: no%s in %s", texts[i], want, line)
		}
	}
	leap := refusal("R", "x", "k")
	leap.Timestamp = "2016-12-31T23:59:60.5+00:00"
	if line := told(t, `{}`, leap)[0]; !strings.Contains(line, " rt=1483228800500 ") {
		t.Error(line)
	}
	if line := told(t, `{"format":"rfc5424"}`, leap)[0]; !strings.HasPrefix(line, "<108>1 - - ") {
		t.Error(line)
	}
	for _, text := range []string{"", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00+0000", "2026-01-01T24:00:00Z", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00.+00:00x"} {
		e := refusal("R", "x", "k")
		e.Timestamp = text
		if line := told(t, `{}`, e)[0]; strings.Contains(line, " rt=") {
			t.Errorf("%q: %s", text, line)
		}
	}
}

var (
	cefKey = regexp.MustCompile(`(?:^| )([A-Za-z0-9]+)=`)
	sdPair = regexp.MustCompile(`^ ([a-z0-9]+)="((?:[^"\\\]]|\\["\\\]])*)"`)
)

// parseCEF reads a line as a collector does: by the format's rules only.
func parseCEF(line string) (header []string, extension map[string]string) {
	var b strings.Builder
	at := 0
	for ; len(header) < 7 && at < len(line); at++ {
		switch c := line[at]; {
		case c == '\\' && at+1 < len(line):
			at++
			b.WriteByte(line[at])
		case c == '|':
			header = append(header, b.String())
			b.Reset()
		default:
			b.WriteByte(c)
		}
	}
	extension = map[string]string{}
	rest := line[at:]
	keys := cefKey.FindAllStringSubmatchIndex(rest, -1)
	for i, k := range keys {
		end := len(rest)
		if i+1 < len(keys) {
			end = keys[i+1][0]
		}
		extension[rest[k[2]:k[3]]] = strings.NewReplacer(`\\`, `\`, `\=`, `=`, `\n`, "\n", `\r`, "\r").Replace(rest[k[1]:end])
	}
	return header, extension
}

func parseSyslog(line string) (parameters map[string]string, message string, ok bool) {
	_, rest, ok := strings.Cut(line, "[audit@32473")
	parameters = map[string]string{}
	for ok {
		m := sdPair.FindStringSubmatch(rest)
		if m == nil {
			break
		}
		parameters[m[1]] = strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\]`, `]`).Replace(m[2])
		rest = rest[len(m[0]):]
	}
	message, ok = strings.CutPrefix(rest, "] ")
	return parameters, strings.TrimPrefix(message, "\ufeff"), ok
}

// TestCEFCannotBeForged: whatever texts an event has, a collector finds these
// texts and no other fields.
func TestCEFCannotBeForged(t *testing.T) {
	pieces := []string{"|", "\\", "=", "\n", "\r", "\t", "\x00", "\x1b", " ", "]", "\"", "[", "é", "😀", "a", "act=allow", " act=allow", "cs1=", "\\n", "\\=", "CEF:0|", "<0>1 ", "\u2028", "\u0085"}
	r := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		var b strings.Builder
		for range r.IntN(12) {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		return b.String()
	}
	const n = 2000
	var events []abi.Event
	var words [][3]string
	for range n {
		w := [3]string{word(), word(), word()}
		e := refusal(w[0], w[1], w[2])
		e.AgentID = "agent " + w[1]
		words, events = append(words, w), append(events, e)
	}
	spaces := func(keep string) func(string) string {
		return func(s string) string {
			return strings.Map(func(c rune) rune {
				if (c < ' ' || c == 0x7f) && !strings.ContainsRune(keep, c) {
					return ' '
				}
				return c
			}, s)
		}
	}
	lineBreaks, none := spaces("\n\r"), spaces("")
	for i, line := range told(t, `{}`, events...) {
		header, ext := parseCEF(line)
		w := words[i]
		class := w[0]
		if class == "" {
			class = "governance.refusal"
		}
		if len(header) != 7 || header[4] != none(class) || header[6] != "7" {
			t.Fatalf("%q: header %q of %s", w, header, line)
		}
		want := map[string]string{"act": "refuse", "reason": lineBreaks(w[1]), "cs2": lineBreaks(w[2]), "suser": "agent " + lineBreaks(w[1]), "cs1": "id-1", "cn1": "7"}
		for k, v := range want {
			if ext[k] != v {
				t.Fatalf("%q: %s is %q, wanted %q: %s", w, k, ext[k], v, line)
			}
		}
	}
	for i, line := range told(t, `{"format":"rfc5424"}`, events...) {
		got, message, ok := parseSyslog(line)
		w := words[i]
		for k, v := range map[string]string{"id": "id-1", "decision": "refuse", "rule": none(w[0]), "reason": none(w[1]), "kind": none(w[2]), "agent": none("agent " + w[1])} {
			if got[k] != v {
				t.Fatalf("%q: %s is %q, wanted %q: %s", w, k, got[k], v, line)
			}
		}
		if !ok || message != string(events[i].Payload) {
			t.Fatalf("%q: message %q of %s", w, message, line)
		}
	}
}

// TestCEFDeepAndLong: a payload as deep as one may be is read, and a reason is
// cut between characters.
func TestCEFDeepAndLong(t *testing.T) {
	deep := refusal("R", "x", "k")
	deep.Payload = []byte(`{"action":{"kind":"deep","v":` + strings.Repeat("[", event.MaxDepth-2) + strings.Repeat("]", event.MaxDepth-2) + `},"decision":{"decision":"warn","reason":"` + strings.Repeat("é", 2000) + `","rule_id":"R2"}}`)
	if _, err := event.AppendCanonical(nil, deep.Payload); err != nil {
		t.Fatal(err)
	}
	line := told(t, `{}`, deep)[0]
	header, ext := parseCEF(line)
	if header[4] != "R2" || header[6] != "5" || ext["act"] != "warn" || ext["cs2"] != "deep" || ext["reason"] != strings.Repeat("é", 511) {
		t.Errorf("%q %q", header, ext)
	}
}

func TestCEFConfigurations(t *testing.T) {
	for config, want := range map[string]string{
		`[]`: "no JSON object", `{"format":"xml"}`: "must be cef or rfc5424", `{"path":"x"}`: "unknown key", `{"vendor":""}`: "not an empty one", `{"vendor":1}`: "one text",
		`{"vendor":"a","vendor":"b"}`: "one text", `{"vendor":"a\nb"}`: "control character", `{"version":"` + strings.Repeat("1", 32) + `"}`: "up to 31",
		`{"hostname":"h"}`: "of rfc5424", `{"format":"rfc5424","vendor":"v"}`: "of the format cef", `{"format":"rfc5424","product":"a b"}`: "printable ASCII",
		`{"format":"rfc5424","hostname":"é"}`: "printable ASCII", `{"format":"rfc5424","sd_id":"a]b"}`: "sd_id", `{"format":"rfc5424","sd_id":"` + strings.Repeat("a", 33) + `"}`: "sd_id",
	} {
		_, err := host.Open(t.Context(), sinkCEF(t), host.Options{Name: "cef", Cache: cache, Config: []byte(config), Append: &appendfile.Options{Path: filepath.Join(t.TempDir(), "out")}})
		var bad *host.ConfigError
		if !errors.As(err, &bad) || !strings.Contains(bad.Detail, want) {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func TestCEFNothingToAppendTo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, sinkCEF(t), host.Options{Append: &appendfile.Options{Path: filepath.Join(dir, "out")}})
	deliver(t, s, &abi.Batch{Attempt: 1, Events: []abi.Event{refusal("R", "x", "k")}})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if r := s.Deliver(t.Context(), &abi.Batch{Attempt: 1, Events: []abi.Event{refusal("R", "x", "k")}}); r.Outcome != abi.Busy || r.Detail == "" {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}
