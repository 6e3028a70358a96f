package sdk

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
)

var probes sync.Map

// probe is the module of testdata/probe in a language, which uses all of its
// SDK.
func probe(t *testing.T, lang string) []byte {
	t.Helper()
	if wasm, ok := probes.Load(lang); ok {
		return wasm.([]byte)
	}
	dir := project(t, lang)
	ending := map[string]string{"c": "c", "rust": "rs", "as": "ts", "zig": "zig"}[lang]
	for _, name := range []string{"manifest.json", "sink." + ending} {
		b, err := os.ReadFile(filepath.Join("testdata", "probe", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wasm := build(t, dir, "example.wasm")
	probes.Store(lang, wasm)
	return wasm
}

// TestEverySignature: a module that uses all of an SDK imports and exports all
// of the ABI, as package abi has it.
func TestEverySignature(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		in, err := host.Inspect(t.Context(), probe(t, lang), host.InspectOptions{Cache: cache})
		if err != nil || !in.Fits {
			t.Fatalf("%v %+v", err, in)
		}
		find := func(what string, list []host.Symbol, module string, want abi.Signature) {
			text := fmt.Sprintf("(%s) -> (%s)", types(want.Params), types(want.Results))
			if !slices.ContainsFunc(list, func(s host.Symbol) bool { return s.Module == module && s.Name == want.Name && s.Type == text }) {
				t.Errorf("no %s %s %s", what, want.Name, text)
			}
		}
		for _, s := range abi.Exports() {
			if s.Name != abi.ExportInitialize {
				find("export", in.Exports, "", s)
			}
		}
		for _, s := range abi.Imports() {
			find("import", in.Imports, abi.ImportModule, s)
		}
	})
}

func types(list []abi.ValueType) string {
	var names []string
	for _, t := range list {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// probed is the batch that the probes get.
func probed() *abi.Batch {
	b := &abi.Batch{ID: 1<<63 + 5, Attempt: 2, Queue: [16]byte{1, 2, 0xfe, 15: 0xff}}
	for i := range 3 {
		e := abi.Event{ID: fmt.Sprint("id-", i), AgentID: "agent:é", EventType: "type", Timestamp: "2026-01-01T00:00:00+00:00",
			Seq: uint64(i + 10), Payload: fmt.Appendf(nil, `{"n":%d}`, i), AttestLevel: abi.AttestUnsigned}
		e.PayloadHash = sha256.Sum256(e.Payload)
		e.Digest = sha256.Sum256([]byte(e.ID))
		if i == 1 {
			e.Signature, e.KeyID, e.AttestLevel, e.Minted = bytes.Repeat([]byte{0xab}, abi.SignatureSize), "key", abi.AttestDaemonSigned, true
		}
		b.Events = append(b.Events, e)
	}
	return b
}

// report is what they append of it.
func report(b *abi.Batch) string {
	var w strings.Builder
	lines := 0
	for _, e := range b.Events {
		lines += len(e.Payload) + 1
	}
	fmt.Fprintf(&w, "batch %d %d %d %d %x %d\n", b.ID, b.Attempt, len(b.Events), b.Events[0].Seq, b.Queue, lines)
	for _, e := range b.Events {
		minted := 0
		if e.Minted {
			minted = 1
		}
		fmt.Fprintf(&w, "event %d %s %s %s %s %s %s %s %x %x %x %d 1\n", e.Seq, e.ID, e.AgentID, e.EventType, e.Timestamp, e.KeyID, e.AttestLevel,
			e.Payload, e.PayloadHash, e.Digest, e.Signature, minted)
	}
	w.WriteString("kv 0 0 value 0 6 6 0 2\nrandom 1 1\nsql 0")
	for _, e := range b.Events {
		fmt.Fprintf(&w, "\nrow 2 6 %d %s %x 0 3 %d", e.Seq, e.ID, e.PayloadHash, e.Seq)
	}
	fmt.Fprintf(&w, "\nguard 65536 1 %d 0\nwrong 1 SQL logic error: near \"SELEC\": syntax error", len(b.Events))
	fmt.Fprintf(&w, "\nhttp 0 201 0 0 %d yes  got %d\nrefused 1 1\n", len(fmt.Sprint("got ", lines)), lines)
	return w.String()
}

// openProbe opens a probe with every grant.
func openProbe(t *testing.T, wasm []byte, log io.Writer) (*host.Sink, string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("X-Probe") != "1" || r.Method != http.MethodPost {
			t.Errorf("%v %s %v", err, r.Method, r.Header)
		}
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "got ", len(b))
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	s, err := host.Open(t.Context(), wasm, host.Options{
		Name: "probe", Cache: cache, Config: fmt.Appendf(nil, `{"url":%q}`, server.URL), Append: &appendfile.Options{Path: path}, Now: true, Random: true,
		SQL: &host.SQLGrant{Database: filepath.Join(dir, "t.db"), Create: true},
		KV:  &host.KVGrant{Path: filepath.Join(dir, "kv.db"), MaxKeys: 10, MaxBytes: 1000},
		HTTP: &egress.Policy{Timeout: 5 * time.Second, Hosts: []egress.HostRule{
			{Scheme: "http", Host: u.Hostname(), Port: uint16(port), Methods: []string{"POST"}}}},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, path
}

// TestEverything: what comes of each function of the host, in all languages
// alike.
func TestEverything(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		var log bytes.Buffer
		s, path := openProbe(t, probe(t, lang), &log)
		b := probed()
		r := s.Deliver(t.Context(), b)
		if r.Outcome != abi.Partial || r.Races != 3 || len(r.Verdicts) != 3 || r.Verdicts[1] != (abi.Verdict{Code: abi.Reject, Reason: "not “this” one"}) {
			t.Fatalf("%+v", r)
		}
		for i, want := range []abi.Place{
			{Sequence: 10, Flags: abi.PlaceStoredNow, RowHash: b.Events[0].Digest}, {}, {Sequence: 12, RowHash: b.Events[2].Digest},
		} {
			if len(r.Places) != 3 || r.Places[i] != want {
				t.Errorf("place %d of %d: %+v, wanted %+v", i, len(r.Places), r.Places, want)
			}
		}
		again := probed()
		again.Attempt = 98
		if r := s.Deliver(t.Context(), again); r.Outcome != abi.Busy || r.Reason != abi.ReasonLocked || r.RetryAfter != 7*time.Millisecond || r.Detail != "locked" {
			t.Errorf("%+v", r)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		got, err := os.ReadFile(path)
		if want := report(b); err != nil || string(got) != want {
			t.Errorf("%v, got\n%s\nwanted\n%s", err, got, want)
		}
		for _, want := range []string{"level=INFO msg=plugin sink=probe plugin=probe text=opened", "level=WARN msg=plugin sink=probe plugin=probe text=flushed", "level=ERROR msg=plugin sink=probe plugin=probe text=closed"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("no %s in\n%s", want, &log)
			}
		}
	})
}

// TestBeyondTheEnd: an event that is not there is a trap, which says where the
// language has a way to say it, and the next batch is delivered.
func TestBeyondTheEnd(t *testing.T) {
	says := map[string]string{"c": "unreachable", "rust": "event 3 of a batch of 3", "as": "event beyond the end of the batch at audit-host-sdk/frame.ts:", "zig": "event beyond the end of the batch"}
	each(t, func(t *testing.T, lang string) {
		s, _ := openProbe(t, probe(t, lang), io.Discard)
		b := probed()
		b.Attempt = 99
		r := s.Deliver(t.Context(), b)
		if r.Outcome != abi.Trap || !strings.Contains(r.Detail, says[lang]) {
			t.Errorf("%v %q", r.Outcome, r.Detail)
		}
		b.Attempt = 100
		if r := s.Deliver(t.Context(), b); r.Outcome != abi.Partial {
			t.Errorf("%v %q", r.Outcome, r.Detail)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
