package abi

import (
	"bytes"
	"encoding/binary"
)

// The http capability. A request has a head and a body, at two addresses, so
// that the payload region of a batch can be sent as it lies. The head is text,
// its lines end in one line feed:
//
//	POST https://collector.example/in
//	Content-Type: application/x-ndjson
//	Authorization: Bearer {{secret token}}
//
// The answer is [HTTPAnswerSize] bytes of numbers, then the header, then the
// body; see [HTTPAnswer.Put]. README.md has the layout.

// MaxHTTPHead is the longest head of a request in bytes.
const MaxHTTPHead = 64 << 10

// HTTPAnswerSize is the size of the fixed part of an answer in bytes.
const HTTPAnswerSize = 24

// Flags of an answer.
const (
	// HTTPCut: the answer did not fit into the guest's buffer. Header lines
	// that did not fit are missing whole, the body is cut.
	HTTPCut uint32 = 1 << iota
	// HTTPWithheld: the body was compressed although nobody had asked for it
	// and a secret was sent, so it could not be searched for the secret and is
	// left out.
	HTTPWithheld
)

// HTTPAnswer is what a server answered.
type HTTPAnswer struct {
	// Status is HTTP's, 100 to 999.
	Status uint32
	// Flags are HTTPCut and HTTPWithheld.
	Flags uint32
	// Redirects is how many were followed.
	Redirects uint32
	// Full is the length of the body before it was cut.
	Full uint32
	// Header has a line for each field, "name: value" and a line feed, the name
	// in lower case.
	Header []byte
	Body   []byte
}

// Put writes an answer into dst, cut to its size, which must be at least
// [HTTPAnswerSize], and returns how many bytes it wrote: status u32, flags u32,
// redirects u32, length of the header u32, of the body u32, of the whole body
// u32, then header and body.
func (a *HTTPAnswer) Put(dst []byte) int {
	le := binary.LittleEndian
	header, flags := a.Header, a.Flags
	if room := len(dst) - HTTPAnswerSize; len(header) > room {
		header = header[:bytes.LastIndexByte(header[:room], '\n')+1]
		flags |= HTTPCut
	}
	n := HTTPAnswerSize + copy(dst[HTTPAnswerSize:], header)
	body := copy(dst[n:], a.Body)
	if body < len(a.Body) {
		flags |= HTTPCut
	}
	for i, v := range [...]uint32{a.Status, flags, a.Redirects, uint32(len(header)), uint32(body), uint32(len(a.Body))} {
		le.PutUint32(dst[4*i:], v)
	}
	return n + body
}

// ParseHTTPAnswer reads what Put wrote. The answer's slices are parts of b. It
// returns false, and reads nothing outside b, if b is none.
func ParseHTTPAnswer(b []byte) (HTTPAnswer, bool) {
	if len(b) < HTTPAnswerSize {
		return HTTPAnswer{}, false
	}
	u32 := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	a := HTTPAnswer{Status: u32(0), Flags: u32(1), Redirects: u32(2), Full: u32(5)}
	header, body := uint64(u32(3)), uint64(u32(4))
	rest := b[HTTPAnswerSize:]
	if header+body > uint64(len(rest)) {
		return HTTPAnswer{}, false
	}
	a.Header, a.Body = rest[:header:header], rest[header:header+body:header+body]
	return a, true
}

// Get returns the value of the first field of a name, which is given in lower
// case, or "".
func (a *HTTPAnswer) Get(name string) string {
	for line := range bytes.Lines(a.Header) {
		if v, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			return string(bytes.TrimSpace(v))
		}
	}
	return ""
}
