// Command sink-http is the bundled plugin that sends batches to an HTTP
// collector through its http grant: as lines of JSON, to Splunk's HTTP Event
// Collector, to the _bulk endpoint of Elasticsearch or OpenSearch, or to Loki.
//
// Guarantee: an event counts as stored when the collector has said so, for the
// batch or, where its protocol knows that, for the event. What waiting or the
// operator can mend (no connection, 429, 5xx, a wrong password, a URL that is
// not granted) is BUSY and never costs an event; Retry-After is honoured. What
// the collector refuses for good becomes a dead letter: that event alone, since
// a refused batch comes again in halves.
//
// Not guaranteed: that an event is there once only. A collector that has stored
// a batch and whose answer is lost gets it again, with the same Idempotency-Key,
// the SHA-256 of the body. In Elasticsearch the document's id is the event's, and
// a second one is not made.
//
// config.go has the configuration; a header in it may hold {{secret NAME}}.
package main

import (
	"encoding/hex"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

func main() {}

func init() { guest.Register(&sink{}) }

type sink struct {
	config  config
	request guest.Request
	body    []byte
	// out takes the answer. It grows when one did not fit.
	out []byte
}

// Sizes of out in bytes.
const (
	firstAnswer   = 64 << 10
	largestAnswer = 16 << 20
)

// Open reads the configuration.
func (s *sink) Open(text []byte) guest.Answer {
	c, why := readConfig(text)
	if why != "" {
		return guest.BadConfig(why)
	}
	s.config = c
	s.request = guest.Request{Method: c.Method, URL: c.target()}
	s.request.Header = append(c.fields(), [2]string{"Content-Type", c.contentType()}, [2]string{"Idempotency-Key", ""})
	s.out = make([]byte, firstAnswer)
	return guest.OK(0)
}

// Deliver sends a batch in one request.
func (s *sink) Deliver(b abi.View) guest.Answer {
	s.request.Body = s.encode(b)
	var sum [abi.HashSize]byte
	guest.SHA256(&sum, s.request.Body)
	s.request.Header[len(s.request.Header)-1][1] = hex.EncodeToString(sum[:])
	a, status, text := guest.HTTP(&s.request, s.out)
	if a.Flags&abi.HTTPCut != 0 {
		// For the next time; what has been cut is mostly not needed.
		s.out = make([]byte, min(largestAnswer, abi.HTTPAnswerSize+2*len(a.Header)+int(a.Full)+firstAnswer))
	}
	return s.judge(b, &a, status, text)
}
