// Package manifest reads and writes the custom section in which a plugin says
// what it is, before any of its code runs.
//
// The section is named "audit.manifest" and holds one JSON object:
//
//	{"name": "sink-sqlite", "version": "1.0.0", "capabilities": ["sql"],
//	 "idempotent": true, "config_schema": {…}}
//
// name and version are required. Standard library only.
package manifest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
)

// Section is the name of the custom section.
const Section = "audit.manifest"

// MaxSize is the largest manifest in bytes.
const MaxSize = 64 << 10

// ErrNone is returned by [Read] for a module without the section.
var ErrNone = errors.New("no " + Section + " section; add one with: audit-host plugin manifest MANIFEST.json FILE.wasm")

// Manifest is a plugin's description of itself.
type Manifest struct {
	Name         string          `json:"name"`
	Version      string          `json:"version"`
	Capabilities []string        `json:"capabilities,omitempty"`
	Idempotent   bool            `json:"idempotent"`
	ConfigSchema json.RawMessage `json:"config_schema,omitempty"`
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// ValidName tells whether a plugin may have that name.
func ValidName(name string) bool { return nameForm.MatchString(name) }

// Parse reads the JSON text of a manifest.
func Parse(text []byte) (Manifest, error) {
	var m Manifest
	if len(text) > MaxSize {
		return m, fmt.Errorf("manifest has %d bytes, at most %d are read", len(text), MaxSize)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return m, errors.New("read manifest: more text after the object")
	}
	if !ValidName(m.Name) {
		return m, fmt.Errorf("manifest: name %q is not of the form %s", m.Name, nameForm)
	}
	if m.Version == "" || len(m.Version) > 64 {
		return m, fmt.Errorf("manifest of %s: version %q must have 1 to 64 bytes", m.Name, m.Version)
	}
	return m, nil
}

// Read finds the manifest of a WebAssembly module. A module with two is
// refused.
func Read(wasm []byte) (Manifest, error) {
	var found []byte
	err := Sections(wasm, func(id byte, name string, body []byte) error {
		if id != 0 || name != Section {
			return nil
		}
		if found != nil {
			return fmt.Errorf("two %s sections", Section)
		}
		found = body
		return nil
	})
	switch {
	case err != nil:
		return Manifest{}, err
	case found == nil:
		return Manifest{}, ErrNone
	}
	return Parse(found)
}

// Sections calls f for every section of a module, with the name and the rest
// of a custom one.
func Sections(wasm []byte, f func(id byte, name string, body []byte) error) error {
	return sections(wasm, func(s section) error { return f(s.id, s.name, s.body) })
}

// section lies in a module from start to end.
type section struct {
	id         byte
	name       string // of a custom one
	body       []byte
	start, end int
}

func sections(wasm []byte, f func(section) error) error {
	if len(wasm) < 8 || string(wasm[:4]) != "\x00asm" {
		return errors.New("not a WebAssembly module: it does not begin with \\0asm")
	}
	if v := binary.LittleEndian.Uint32(wasm[4:]); v != 1 {
		return fmt.Errorf("WebAssembly binary version %d, wanted 1 (a module, not a component)", v)
	}
	for at := 8; at < len(wasm); {
		id := wasm[at]
		size, n := binary.Uvarint(wasm[at+1:])
		start := at + 1 + n
		if n <= 0 || size > uint64(len(wasm)-start) {
			return fmt.Errorf("section %d at offset %d is cut short", id, at)
		}
		body := wasm[start : start+int(size)]
		name := ""
		if id == 0 {
			l, n := binary.Uvarint(body)
			if n <= 0 || l > uint64(len(body)-n) {
				return fmt.Errorf("custom section at offset %d has no name", at)
			}
			name, body = string(body[n:n+int(l)]), body[n+int(l):]
		}
		end := start + int(size)
		if err := f(section{id: id, name: name, body: body, start: at, end: end}); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// Append returns the module with the manifest as its last section. A module
// that has one is refused; [Set] replaces it.
func Append(wasm, text []byte) ([]byte, error) {
	if _, err := Read(wasm); err == nil {
		return nil, errors.New("the module has a manifest already")
	} else if !errors.Is(err, ErrNone) {
		return nil, err
	}
	return Set(wasm, text)
}

// Set returns the module with the manifest as its last section, in place of
// any that it has. Every other byte stays as it is.
func Set(wasm, text []byte) ([]byte, error) {
	if _, err := Parse(text); err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, err
	}
	var out []byte
	kept := 0 // up to here all of the module is in out, or left out on purpose
	err := sections(wasm, func(s section) error {
		if s.id == 0 && s.name == Section {
			out = append(out, wasm[kept:s.start]...)
			kept = s.end
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out = append(out, wasm[kept:]...)
	body := binary.AppendUvarint(nil, uint64(len(Section)))
	body = append(append(body, Section...), compact.Bytes()...)
	out = append(out, 0)
	out = binary.AppendUvarint(out, uint64(len(body)))
	return append(out, body...), nil
}
