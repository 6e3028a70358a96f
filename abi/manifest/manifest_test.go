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
