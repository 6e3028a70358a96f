package event

import (
	"encoding/json"
	"strconv"
)

// Action is what an agent wanted to do: Bash, FilesystemWrite, NetworkRequest,
// ProcessSpawn, Custom or RawAction.
type Action interface {
	// appendAction writes the canonical form. The error's path starts at the
	// action; its offset is one into a RawAction or a payload.
	appendAction(dst []byte) ([]byte, *Error)
}

// Bash is a shell command. A nil CWD is left out.
type Bash struct {
	Command string
	CWD     *string
}

// FilesystemWrite is a write to a file. A nil ByteEstimate is left out.
type FilesystemWrite struct {
	Path         string
	ByteEstimate *uint64
}

// NetworkRequest is a request to a host; Scheme may be empty.
type NetworkRequest struct{ Host, Scheme string }

// ProcessSpawn is the start of a program. Nil Args are written as [].
type ProcessSpawn struct {
	Binary string
	Args   []string
}

// Custom is an action of the client's own kind. Payload is the text of any
// JSON value; an empty one is written as null.
type Custom struct {
	CustomKind string
	Payload    json.RawMessage
}

// RawAction is any action as the text of a JSON object with a string member
// "kind". A kind of the types above must have their shape; members beyond it
// are kept.
type RawAction []byte

func (a Bash) appendAction(dst []byte) ([]byte, *Error) {
	w := writer{dst: dst}
	w.text(`{"command":`, "command", a.Command)
	if a.CWD != nil {
		w.text(`,"cwd":`, "cwd", *a.CWD)
	}
	return w.end(`,"kind":"bash"}`)
}

func (a FilesystemWrite) appendAction(dst []byte) ([]byte, *Error) {
	w := writer{dst: append(dst, '{')}
	if a.ByteEstimate != nil {
		w.dst = append(w.dst, `"byte_estimate":`...)
		w.dst = strconv.AppendUint(w.dst, *a.ByteEstimate, 10)
		w.dst = append(w.dst, ',')
	}
	w.text(`"kind":"filesystem_write","path":`, "path", a.Path)
	return w.end(`}`)
}

func (a NetworkRequest) appendAction(dst []byte) ([]byte, *Error) {
	w := writer{dst: dst}
	w.text(`{"host":`, "host", a.Host)
	w.text(`,"kind":"network_request","scheme":`, "scheme", a.Scheme)
	return w.end(`}`)
}

func (a ProcessSpawn) appendAction(dst []byte) ([]byte, *Error) {
	w := writer{dst: append(dst, `{"args":[`...)}
	before := ""
	for i, arg := range a.Args {
		if w.text(before, strconv.Itoa(i), arg); w.err != nil {
			return dst, w.err.under("args")
		}
		before = ","
	}
	w.text(`],"binary":`, "binary", a.Binary)
	return w.end(`,"kind":"process_spawn"}`)
}

func (a Custom) appendAction(dst []byte) ([]byte, *Error) {
	w := writer{dst: dst}
	w.text(`{"custom_kind":`, "custom_kind", a.CustomKind)
	w.dst = append(w.dst, `,"kind":"custom","payload":`...)
	if len(a.Payload) == 0 {
		return w.end(`null}`)
	}
	d := newDoc()
	defer d.free()
	// The payload stands two levels below the top of the event.
	if err := d.parse(a.Payload, MaxDepth-2); err != nil {
		return dst, err.under("payload")
	}
	w.dst = d.append(w.dst, 0)
	return w.end(`}`)
}

func (a RawAction) appendAction(dst []byte) ([]byte, *Error) {
	d := newDoc()
	defer d.free()
	if err := d.parse(a, MaxDepth-1); err != nil {
		return dst, err
	}
	if err := d.action(0); err != nil {
		return dst, err
	}
	return d.append(dst, 0), nil
}

// writer writes the members of a typed action and keeps the first error.
type writer struct {
	dst []byte
	err *Error
}

func (w *writer) text(before, member, s string) {
	if w.err != nil {
		return
	}
	if i := invalidUTF8(s); i >= 0 {
		w.err = fault(-1, "is not valid UTF-8 (at its byte %d)", i).under(member)
		return
	}
	w.dst = appendString(append(w.dst, before...), s)
}

func (w *writer) end(text string) ([]byte, *Error) {
	return append(w.dst, text...), w.err
}

// want is what a member of a known kind of action must be.
type want uint8

const (
	wantString want = iota
	wantUint64
	wantStrings
)

type member struct {
	name     string
	want     want
	optional bool // may be absent; null counts as absent and is left out
}

// membersOf returns what a known kind of action must have, nil for any other
// kind. The payload of a custom action may be anything and is not listed.
func membersOf(kind []byte) []member {
	switch string(kind) {
	case "bash":
		return bashMembers[:]
	case "filesystem_write":
		return fileMembers[:]
	case "network_request":
		return networkMembers[:]
	case "process_spawn":
		return processMembers[:]
	case "custom":
		return customMembers[:]
	}
	return nil
}

var (
	bashMembers    = [...]member{{"command", wantString, false}, {"cwd", wantString, true}}
	fileMembers    = [...]member{{"path", wantString, false}, {"byte_estimate", wantUint64, true}}
	networkMembers = [...]member{{"host", wantString, false}, {"scheme", wantString, false}}
	processMembers = [...]member{{"binary", wantString, false}, {"args", wantStrings, false}}
	customMembers  = [...]member{{"custom_kind", wantString, false}}
)

// action checks the action n and brings it into the source system's form:
// optional members that are null are taken out, and a custom action has a
// payload.
func (d *doc) action(n int32) *Error {
	if err := d.expect(n, kindObject); err != nil {
		return err
	}
	k := d.member(n, "kind")
	if k == 0 {
		return d.missing(n, "kind", "it says what the action is")
	}
	if err := d.expect(k, kindString); err != nil {
		return err.under("kind")
	}
	for _, m := range membersOf(d.text(k)) {
		c := d.member(n, m.name)
		switch {
		case c == 0 && m.optional:
		case c == 0:
			return d.missing(n, m.name, "a "+string(d.text(k))+" action needs it")
		case d.nodes[c].kind == kindNull && m.optional:
			d.remove(n, c)
		default:
			if err := d.fits(c, m.want); err != nil {
				return err.under(m.name)
			}
		}
	}
	if string(d.text(k)) == "custom" && d.member(n, "payload") == 0 {
		d.insert(n, "payload", kindNull, "")
	}
	return nil
}

func (d *doc) fits(n int32, w want) *Error {
	switch w {
	case wantString:
		return d.expect(n, kindString)
	case wantUint64:
		// A number in side is a float.
		if self := d.nodes[n]; self.kind != kindNumber || self.textSide || d.text(n)[0] == '-' {
			return fault(int(self.at), "must be an integer from 0 to 18446744073709551615")
		}
	case wantStrings:
		if err := d.expect(n, kindArray); err != nil {
			return err
		}
		i := 0
		for c := d.nodes[n].first; c != 0; c = d.nodes[c].next {
			if err := d.expect(c, kindString); err != nil {
				return err.underIndex(i)
			}
			i++
		}
	}
	return nil
}

// expect refuses a value of another kind.
func (d *doc) expect(n int32, k kind) *Error {
	if self := d.nodes[n]; self.kind != k {
		return fault(int(self.at), "must be %s, found %s", k, self.kind)
	}
	return nil
}

// missing refuses an object that lacks a member.
func (d *doc) missing(object int32, name, why string) *Error {
	return fault(int(d.nodes[object].at), "member %q is missing; %s", name, why)
}
