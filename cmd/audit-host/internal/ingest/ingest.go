// Package ingest is how events come in: over HTTP ([Server]) and as JSON Lines
// ([ReadLines]).
//
// # Endpoints
//
//	POST /v1/events, /logs, …  what a client sends: each of [Options.Routes]
//	GET  /-/healthy            200 while the process serves
//	GET  /-/ready              200, or 503 with the reasons
//	GET  /metrics              the handler in [Options.Metrics]
//
// What is posted where, read how and answered how is a row of [event.Formats]; the
// loop is one ([Taker.Run]), that of audit-host ingest too.
//
// POST /v1/events answers with an [event.Report]. "?ack=" says what to wait for:
// "accepted" (in the queue), "durable" (survives a crash; the default) or
// "ledger" (committed; the answer carries sequence and row hash, and the head of the
// ledger at that time: a receipt). The statuses:
//
//	200  at least one event was acknowledged as asked or was skipped, or the
//	     array was empty; events that were refused for their content are named
//	     by index
//	202  the same, when ack=accepted
//	400  nothing was accepted: the body or every event in it is malformed
//	401  the token is missing or wrong
//	403  a web page of another origin made a browser send this
//	405  wrong method; Allow names the right one
//	408  the body did not arrive in time; nothing was accepted
//	413  nothing was accepted: body, number of events or every event too large
//	415  a Content-Type or Content-Encoding that is not served
//	421  addressed to a name that a server without a token does not answer to
//	503  with Retry-After: the queue is full or closed, or the acknowledgement
//	     did not come in time. Every event has its status: "retry" was not
//	     taken, "accepted" waits in the queue and may be repeated under its id
//
// A format with [event.KeepBad] (POST /logs: OPA's decision log) answers 200 to
// whatever could be read, because the client repeats a refused batch for ever: an
// element that can't become an event goes to the dead letters with its text, and so
// does the rest of a body that breaks. What can't be read (401, 408, 413, 415, a
// damaged gzip stream) is refused, so that nothing is lost, and the repetitions are
// logged here until somebody mends the client. 503 makes it keep the batch.
//
// # Guarantees
//
// A body is read whole before its first event is accepted: a request that
// fails with 4xx has accepted nothing. A 2xx other than 202 means durable.
// Order within a request is kept; after an event that the queue did not take,
// no later one of the request is taken.
//
// What a client can make the server hold is bounded: connections, header and
// body size (after decompression), events in a request, the bytes of all
// bodies together and of the answers to them, and the time for each. Of events that
// were not taken an answer names the first 100 and counts the rest. A connection beyond the limit waits
// in the kernel's backlog until another one ends; one that idles ends by its
// timeout.
//
// # Not guaranteed
//
// A client without ids of its own that repeats a request whose answer it did
// not see has its events recorded twice. There is no TLS: beyond loopback, put
// a proxy in front of the server.
package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// Head is where the ledger ended when it was looked into.
type Head = event.Head

// Landed tells where a committed event stands.
type Landed struct {
	Sequence uint64
	RowHash  string // hexadecimal
	Head     Head   // of the same state of the ledger; zero for a dead letter
	// DeadLetter is why the event is a dead letter and not in the ledger;
	// empty for one in the ledger.
	DeadLetter string
}

// Refused is an element, or the rest of a body, that can't become an event and is
// kept.
type Refused struct {
	Format string // its name
	Raw    []byte // its text, valid during the call only
	Reason string
}

// Route serves a format: where it is posted to and how it is answered stands in
// the format.
type Route struct {
	Format event.Format
	Intake Intake
	Parse  Parse
}

// Options configure a [Server]. The zero value of a limit stands for the
// default beside it.
type Options struct {
	Routes []Route
	// Record tells whether events with this decision are recorded.
	Record func(decision string) bool
	// Lookup tells where the event at a position of the queue (0 if that is not
	// known), with this id and the SHA-256 of its payload, stands; false if nowhere.
	// The hash tells it from another one that was sent under the same id.
	Lookup func(ctx context.Context, at queue.Seq, id string, payload [sha256.Size]byte) (Landed, bool, error)
	// DeadLetters stores elements of formats with [event.KeepBad] that no event could be
	// made of, some at a time. When it returns nil they are durable. The same text can
	// come again, when a client repeats a request.
	DeadLetters func(ctx context.Context, refused []Refused) error
	// Ready tells whether events can be recorded now, and if not, why. Nil is
	// always ready. Unless the request has brought the token, told is false, and
	// the reasons hold no text of a plugin: it may hold events.
	Ready   func(told bool) (ok bool, reasons []string)
	Metrics http.Handler // nil: no /metrics
	// Token is asked for at each POST and at /metrics. Empty: none is, and only
	// requests to an IP address or to localhost are served, so that a web page
	// can't reach the server under a name of its own.
	Token string
	// DurableLevel is the level at which an event survives a crash:
	// queue.Durable, or queue.Committed if the queue is in memory.
	DurableLevel queue.Level
	Log          *slog.Logger // nil: discarded

	MaxBody     int // bytes of one body after decompression; 16 MiB
	MaxEvent    int // bytes of one event's text; 1 MiB, at most MaxBody
	MaxEvents   int // in one request; 65,536
	MaxBuffered int // bytes of all bodies being read or parsed; room for 4 of MaxBody

	MaxConnections    int           // 1,024
	ReadHeaderTimeout time.Duration // 5 s
	ReadTimeout       time.Duration // of a whole request; 30 s
	IdleTimeout       time.Duration // between two requests; 60 s
	AckTimeout        time.Duration // 30 s
	DrainTimeout      time.Duration // for the requests under way at shutdown; 5 s
}

// Stats count what the requests so far carried, in events.
type Stats struct {
	Accepted     uint64 // taken by the queue
	Rejected     uint64 // refused for their content, the client was told
	Skipped      uint64 // decisions that are not recorded
	Retry        uint64 // not taken, because the queue was full or closed
	DeadLettered uint64 // kept instead of refused
}

// Server serves the endpoints of the package comment. Make one with [New].
type Server struct {
	o        Options
	token    [sha256.Size]byte
	origin   http.CrossOriginProtection
	handler  http.Handler
	buffered atomic.Int64 // bytes of bodies held
	requests requests

	refusals, unacknowledged, dead throttle

	accepted     atomic.Uint64
	rejected     atomic.Uint64
	skipped      atomic.Uint64
	retry        atomic.Uint64
	deadLettered atomic.Uint64
}

// New checks the options and makes a server.
func New(o Options) (*Server, error) {
	switch {
	case len(o.Routes) == 0, o.Record == nil, o.Lookup == nil, o.DeadLetters == nil:
		return nil, errors.New("make ingest server: Routes, Record, Lookup and DeadLetters are needed")
	case slices.ContainsFunc(o.Routes, func(r Route) bool { return r.Intake == nil || r.Parse == nil }):
		return nil, errors.New("make ingest server: each of Routes needs Intake and Parse")
	case o.DurableLevel != queue.Durable && o.DurableLevel != queue.Committed:
		return nil, fmt.Errorf("make ingest server: DurableLevel %d is neither Durable nor Committed", o.DurableLevel)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	number := func(name string, n *int, standard int) {
		if *n < 0 && err == nil {
			err = fmt.Errorf("make ingest server: %s is negative", name)
		} else if *n == 0 {
			*n = standard
		}
	}
	number("MaxBody", &o.MaxBody, 16<<20)
	number("MaxEvent", &o.MaxEvent, min(1<<20, o.MaxBody))
	number("MaxEvents", &o.MaxEvents, 1<<16)
	number("MaxBuffered", &o.MaxBuffered, 4*(o.MaxBody+1))
	number("MaxConnections", &o.MaxConnections, 1024)
	for _, d := range []struct {
		name     string
		d        *time.Duration
		standard time.Duration
	}{
		{"ReadHeaderTimeout", &o.ReadHeaderTimeout, 5 * time.Second},
		{"ReadTimeout", &o.ReadTimeout, 30 * time.Second},
		{"IdleTimeout", &o.IdleTimeout, time.Minute},
		{"AckTimeout", &o.AckTimeout, 30 * time.Second},
		{"DrainTimeout", &o.DrainTimeout, 5 * time.Second},
	} {
		if *d.d < 0 && err == nil {
			err = fmt.Errorf("make ingest server: %s is negative", d.name)
		} else if *d.d == 0 {
			*d.d = d.standard
		}
	}
	switch {
	case err != nil:
		return nil, err
	case o.MaxEvent > o.MaxBody || o.MaxBody >= o.MaxBuffered:
		return nil, fmt.Errorf("make ingest server: MaxEvent %d, MaxBody %d and MaxBuffered %d do not fit into each other", o.MaxEvent, o.MaxBody, o.MaxBuffered)
	}
	s := &Server{o: o, token: sha256.Sum256([]byte(o.Token))}
	for _, t := range []*throttle{&s.refusals, &s.unacknowledged, &s.dead} {
		t.rate.Interval = time.Second
	}
	s.requests.idle = make(chan struct{})
	s.handler = s.routes()
	return s, nil
}

// Handler serves the endpoints without the limits on connections and time,
// which [Server.Serve] adds.
func (s *Server) Handler() http.Handler { return s.handler }

// Stats returns the counts so far. Each is exact; together they are not of one
// instant.
func (s *Server) Stats() Stats {
	return Stats{
		Accepted: s.accepted.Load(), Rejected: s.rejected.Load(), Skipped: s.skipped.Load(),
		Retry: s.retry.Load(), DeadLettered: s.deadLettered.Load(),
	}
}
