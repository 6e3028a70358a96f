package event

import (
	"encoding/json"
	"io"

	"github.com/audit-host/audit-host/abi"
)

// Format is one kind of client: where it sends what, how an element of it becomes
// an event, and how the client is answered. Nothing else of audit-host knows a
// client by its name: the HTTP server, audit-host ingest, the metrics and the
// replay of dead letters go by [Formats].
type Format struct {
	// Name is what --format says. Dead letters of the format are of the sink
	// ingest/NAME.
	Name string
	// Source tells the events that a full queue refused apart, in the metrics and
	// in gap records: a word.
	Source string
	// Paths are where the format is posted to, as patterns of net/http.ServeMux
	// without a method. People are told the first.
	Paths []string
	// Media are the media types that are read. The first is also that of a body
	// which names none.
	Media []Media
	// Pointers say where the texts of an event stand, unless the configuration
	// does. They are empty where a format has fixed places.
	Pointers Pointers
	// Compile makes the parser that goes by these pointers. It may be used
	// concurrently.
	Compile func(Pointers) (Parse, error)
	// OnBad is what becomes of an element that can't become an event.
	OnBad OnBad
	// Receipts names each accepted event in the report, and lets a client say
	// with ?ack= what it waits for. Without them it always waits until its events
	// survive a crash.
	Receipts bool
	// Answer says in the client's words what became of a request. It may change
	// the report, and must set its Error if the status is not 2xx: it is logged.
	// A request that is refused before its elements are looked at is answered
	// with a status and {"error":…}.
	Answer func(*Report) Reply
}

// Formats is the table of all formats. The first one is that of audit-host
// itself. A row may be added before anything else is done, not later.
var Formats = []Format{native, opa}

// Parse turns the text of one element into an event with its decision. The event
// does not keep raw. The error wraps an *Error unless o failed.
type Parse func(raw []byte, o Options) (abi.Event, Decision, error)

// Media is some media types whose bodies are taken apart in one way.
type Media struct {
	Types []string // in lower case, without parameters; people are told the first
	Split func(Request) Elements
}

// Request is what a client has sent.
type Request struct {
	Header map[string][]string // by canonical names
	Body   []byte              // decompressed
}

// Elements are what a body holds.
type Elements struct {
	// Blank is true for a body without anything in it.
	Blank bool
	// Each hands the text of every element to f, in order, with the number of its
	// line (from 1; 0 for a body that is not lines), until f returns false. The
	// text is valid until the body is given up. It finds where an element ends
	// and leaves it to the parser whether it is one. It may be called again, and
	// the error is the same each time unless f ends it earlier.
	Each func(f func(raw []byte, line int) bool) *Broken
}

// Count goes through the elements and returns their number, at most one more than
// most. The error is nil if there are more.
func (e Elements) Count(most int) (n int, broken *Broken) {
	broken = e.Each(func([]byte, int) bool {
		n++
		return n <= most
	})
	if n > most {
		return n, nil
	}
	return n, broken
}

// Broken says where a body can't be taken apart any further.
type Broken struct {
	From int // where in the body the text begins that belongs to no element handed out
	Text string
}

// OnBad says what becomes of an element that can't become an event. The others of
// its request are taken.
type OnBad uint8

const (
	// RefuseBad tells the client, whose business it is then. A body that can't be
	// taken apart is refused as a whole.
	RefuseBad OnBad = iota
	// KeepBad makes a dead letter of its text, and of the rest of a body that can't
	// be taken apart. It is for clients that repeat a refused request for ever.
	KeepBad
)

// Reply is the answer to a request. A status of 503 gets a Retry-After.
type Reply struct {
	Status int             // of HTTP
	Media  string          // media type of the body
	Body   func(io.Writer) // writes it; nil: there is none
}

// ReplyJSON answers with v as JSON.
func ReplyJSON(status int, v any) Reply {
	return Reply{Status: status, Media: "application/json", Body: func(w io.Writer) {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.Encode(v) // fails only when the client is gone
	}}
}
