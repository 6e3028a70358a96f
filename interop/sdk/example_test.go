package sdk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/appendfile"
)

func open(t *testing.T, wasm []byte, config, path string) (*host.Sink, error) {
	t.Helper()
	return host.Open(t.Context(), wasm, host.Options{Name: "example", Cache: cache, Config: []byte(config), Append: &appendfile.Options{Path: path}})
}

// mustOpen opens a sink that is closed with the test.
func mustOpen(t *testing.T, wasm []byte, o host.Options) *host.Sink {
	t.Helper()
	o.Name, o.Cache = "example", cache
	s, err := host.Open(t.Context(), wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return s
}

func batch(from, to int, payload func(i int) string) *abi.Batch {
	b := &abi.Batch{ID: uint64(from), Attempt: 1, Queue: [16]byte{1}}
	for i := from; i <= to; i++ {
		b.Events = append(b.Events, abi.Event{ID: fmt.Sprint("id-", i), AgentID: "agent", EventType: "governance.refusal", Seq: uint64(i),
			Timestamp: "2026-01-01T00:00:00+00:00", Payload: []byte(payload(i)), AttestLevel: abi.AttestUnsigned})
	}
	return b
}

func small(i int) string { return fmt.Sprintf(`{"n":%d}`, i) }

func deliver(t *testing.T, s *host.Sink, b *abi.Batch) {
	t.Helper()
	if r := s.Deliver(t.Context(), b); r.Outcome != abi.OK {
		t.Fatalf("%v %q %s", r.Outcome, r.Detail, r.Stderr)
	}
}

// TestSignatures: the examples export what they must, and of the host's
// functions they import the two that they call.
func TestSignatures(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		wasm := example(t, lang)
		in, err := host.Inspect(t.Context(), wasm, host.InspectOptions{Cache: cache})
		if err != nil || !in.Fits {
			t.Fatalf("%v %+v", err, in)
		}
		var imports []string
		for _, i := range in.Imports {
			imports = append(imports, i.Module+"."+i.Name)
		}
		slices.Sort(imports)
		want := []string{"audit.append", "audit.verdict"}
		if lang != "c" {
			want = append(want, "wasi_snapshot_preview1.fd_write") // says why it panicked
		}
		if !slices.Equal(imports, want) || !slices.Equal(in.Capabilities, []string{"append"}) {
			t.Errorf("imports %v, capabilities %v", imports, in.Capabilities)
		}
		if in.Manifest.Name != "example" || in.Manifest.Idempotent || in.Manifest.ConfigSchema == nil {
			t.Errorf("%+v", in.Manifest)
		}
		t.Logf("%d bytes, memory from %d, compiled in %v", in.Size, in.MemoryMin, in.Compile)
	})
}

// TestSameBytesElsewhere: built in another folder an example is the same, so that
// its digest can be pinned and made again.
func TestSameBytesElsewhere(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		if again := build(t, project(t, lang), "example.wasm"); !bytes.Equal(again, example(t, lang)) {
			t.Errorf("%d bytes, and %d with others among them", len(example(t, lang)), len(again))
		}
	})
}

// TestLines delivers 3,000 events and one of 1 MiB, and reads what all of the
// examples write alike.
func TestLines(t *testing.T) {
	long := `{"long":"` + strings.Repeat("é", 1<<19) + `"}`
	payload := func(i int) string {
		if i == 2500 {
			return long
		}
		return small(i)
	}
	var want strings.Builder
	for i := 1; i <= 3000; i++ {
		fmt.Fprintf(&want, "> “q”\t<id-%d\tgovernance.refusal\t%s\n", i, payload(i))
	}
	each(t, func(t *testing.T, lang string) {
		path := filepath.Join(t.TempDir(), "out")
		s := mustOpen(t, example(t, lang), host.Options{Config: []byte(` { "prefix" : "> \u201cq”\t\u003c" } `), Append: &appendfile.Options{Path: path}})
		for i := 1; i <= 3000; {
			n := min(i+i%700, 3000)
			deliver(t, s, batch(i, n, payload))
			i = n + 1
		}
		deliver(t, s, batch(1, 0, payload))
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want.String() {
			t.Errorf("%v, %d bytes, wanted %d: %.200q", err, len(got), want.Len(), got)
		}
	})
}

func TestConfigurations(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		wasm := example(t, lang)
		for config, prefix := range map[string]string{
			`{}`: "", `{"prefix":""}`: "", `{"prefix":"a"}`: "a",
			`{"prefix":"\"\\\/\b\f\r\t"}`: "\"\\/\b\f\r\t", `{"prefix":"\ud83d\ude00x\u00e9\u20AC"}`: "😀xé€", `{"prefix":"\ud83d"}`: "\ufffd",
			`{"prefix":"\ud83dx"}`: "\ufffdx", `{"prefix":"\ude00\u0041"}`: "\ufffdA", `{"prefix":"\ud83d\u0041"}`: "\ufffdA",
			"\t{\r\n}\n": "",
		} {
			path := filepath.Join(t.TempDir(), "out")
			s, err := open(t, wasm, config, path)
			if err != nil {
				t.Errorf("%s: %v", config, err)
				continue
			}
			deliver(t, s, batch(1, 1, small))
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != prefix+"id-1\tgovernance.refusal\t{\"n\":1}\n" {
				t.Errorf("%s: %v, %q", config, err, got)
			}
		}
		deep := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
		for _, config := range []string{
			`{"prefix":"a\nb"}`, `{"prefix":1}`, `{"prefix":null}`, `{"prefix":["a"]}`, `{"prefix":{"prefix":"a"}}`, `{"Prefix":"a"}`, `{"x":"a"}`,
			`{"prefix":"a","x":1}`, `{"x":[{"prefix":"a"},[]],"prefix":"a"}`, `[]`, `"a"`, `null`, `1`, ` `, `{`, `{"prefix"`, `{"prefix":`, `{"prefix":"a"`,
			`{"prefix":"a}`, `{"prefix":"a"}}`, `{"prefix":"a"} {}`, `{"prefix":"a",}`, `{,}`, `{"prefix" "a"}`, `{"prefix":"a" "b":1}`, `{"prefix":"\x"}`,
			`{"prefix":"\u12"}`, `{"prefix":"\u12G4"}`, `{"prefix":"\`, `{"prefix":"\"}`, "{\"prefix\":\"a\x01\"}", `{"x":` + deep + `}`, deep,
			`{"prefix":"a","prefix":"b"}`, `{'prefix':'a'}`, `{"prefix":"\ud83d\u`, "\xff\xfe", `{"\u0070refix":"a"}`,
		} {
			_, err := open(t, wasm, config, filepath.Join(t.TempDir(), "out"))
			var bad *host.ConfigError
			if !errors.As(err, &bad) || bad.Detail == "" {
				t.Errorf("%.60s: %v", config, err)
			}
		}
	})
}

// TestNothingToAppendTo is BUSY, and the sink lives on.
func TestNothingToAppendTo(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		dir := filepath.Join(t.TempDir(), "d")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "out")
		s := mustOpen(t, example(t, lang), host.Options{Append: &appendfile.Options{Path: path}})
		deliver(t, s, batch(1, 2, small))
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if r := s.Deliver(t.Context(), batch(3, 4, small)); r.Outcome != abi.Busy || r.RetryAfter == 0 || r.Detail == "" {
			t.Errorf("%v %v %q", r.Outcome, r.RetryAfter, r.Detail)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		deliver(t, s, batch(3, 4, small))
		if got, err := os.ReadFile(path); err != nil || string(got) != "id-3\tgovernance.refusal\t{\"n\":3}\nid-4\tgovernance.refusal\t{\"n\":4}\n" {
			t.Errorf("%v %q", err, got)
		}
	})
}

// TestMemoryDoesNotCreep delivers batches of all sizes to a sink that may have
// little more than the largest needs.
func TestMemoryDoesNotCreep(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		s := mustOpen(t, example(t, lang), host.Options{Memory: 4 << 20, Append: &appendfile.Options{Path: filepath.Join(t.TempDir(), "out"), MaxSize: 4 << 20, Keep: 1}})
		for i := range 400 {
			n := 1 + i*7919%600
			deliver(t, s, batch(i, i+n/20, func(int) string { return `"` + strings.Repeat("x", n*1000/(1+n/20)) + `"` }))
		}
		for i := range 1000 {
			deliver(t, s, batch(i, i, small))
		}
	})
}
