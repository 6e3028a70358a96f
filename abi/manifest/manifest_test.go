package manifest

import (
	"errors"
	"strings"
	"testing"
)

const empty = "\x00asm\x01\x00\x00\x00"

func TestAppendThenRead(t *testing.T) {
	out, err := Append([]byte(empty), []byte(`{ "name": "sink-x", "version": "1.0.0", "capabilities": ["sql"], "idempotent": true }`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Read(out)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "sink-x" || m.Version != "1.0.0" || !m.Idempotent || len(m.Capabilities) != 1 || m.Capabilities[0] != "sql" {
		t.Fatalf("read back %+v", m)
	}
	if _, err := Append(out, []byte(`{"name":"x","version":"1"}`)); err == nil {
		t.Error("a second manifest was accepted")
	}
}

// Set leaves all other bytes alone, also the sizes that a linker has padded, and
// mends a module with two manifests.
func TestSetReplaces(t *testing.T) {
	const padded = "\x00\x84\x80\x00\x03abc" // a custom section "abc" of 4 bytes
	const old = "\x00\x10\x0eaudit.manifest{"
	for name, wasm := range map[string]string{
		"none": empty + padded, "last": empty + padded + old, "first": empty + old + padded,
		"two": empty + old + padded + old, "nothing else": empty + old,
	} {
		out, err := Set([]byte(wasm), []byte(` {"name":"x", "version":"1"} `))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := strings.ReplaceAll(wasm, old, "") + "\x00\x29\x0eaudit.manifest" + `{"name":"x","version":"1"}`
		if string(out) != want {
			t.Errorf("%s: %q, wanted %q", name, out, want)
		}
		if m, err := Read(out); err != nil || m.Name != "x" {
			t.Errorf("%s: read back %+v, %v", name, m, err)
		}
	}
	for name, c := range map[string][2]string{
		"a text": {"text", `{"name":"x","version":"1"}`}, "cut": {empty + "\x00\x05ab", `{"name":"x","version":"1"}`},
		"a bad manifest": {empty, `{}`},
	} {
		if out, err := Set([]byte(c[0]), []byte(c[1])); err == nil {
			t.Errorf("%s: accepted, %q", name, out)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	if _, err := Read([]byte(empty)); !errors.Is(err, ErrNone) {
		t.Errorf("no section: %v", err)
	}
	for name, wasm := range map[string]string{
		"not a module": "MZ", "version": "\x00asm\x02\x00\x00\x00",
		"cut section": empty + "\x00\x05ab", "no name": empty + "\x00\x01\x09",
	} {
		if _, err := Read([]byte(wasm)); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{``, `{}`, `{"name":"X","version":"1"}`, `{"name":"x"}`,
		`{"name":"x","version":"1","nme":1}`, `{"name":"x","version":"1"} {}`,
		`{"name":"x","version":"` + strings.Repeat("1", MaxSize) + `"}`} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("accepted %.60q", text)
		}
	}
}
