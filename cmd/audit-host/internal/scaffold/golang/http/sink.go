// Command example is a sink plugin for audit-host. It posts batches to one URL,
// as lines of JSON: the event's payload with its id as the first member.
//
// Configuration: {"url": "http…"}, which the http grant has to allow.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

// The module is a library: audit-host calls the sink, and never main.
func main() {}

func init() { guest.Register(&sink{}) }

// pause is how long to be left alone when the server is not to be had.
const pause = time.Second

type sink struct {
	request guest.Request
	body    []byte         // its memory is used again for every batch
	answer  [16 << 10]byte // longer answers are cut
}

type config struct {
	URL string `json:"url"`
}

// Open gets config of the [[sink]] in audit.toml, as JSON.
func (s *sink) Open(text []byte) guest.Answer {
	var c config
	if err := readConfig(text, &c); err != nil {
		return guest.BadConfig(err.Error())
	}
	if !strings.HasPrefix(c.URL, "http://") && !strings.HasPrefix(c.URL, "https://") || strings.ContainsAny(c.URL, " \n") {
		return guest.BadConfig("url is " + strconv.Quote(c.URL) + ", wanted one such as https://collector.test/in")
	}
	s.request = guest.Request{Method: "POST", URL: c.URL, Header: [][2]string{{"Content-Type", "application/x-ndjson"}}}
	return guest.OK(0)
}

// Deliver sends a batch in one request. The batch may come again: after a Busy,
// after a crash, after an answer that was lost. So each line carries the id.
func (s *sink) Deliver(batch abi.View) guest.Answer {
	if batch.Len() == 0 {
		return guest.OK(0)
	}
	s.body = s.body[:0]
	for i := range batch.Len() {
		s.body = appendLine(s.body, batch.At(i))
	}
	s.request.Body = s.body
	answer, status, why := guest.HTTP(&s.request, s.answer[:])
	switch status {
	case abi.StatusDone:
	case abi.StatusTooLarge:
		// Nothing was sent. A refused batch comes again in halves, so that in
		// the end only an event that is too large by itself is a dead letter.
		return guest.Reject("the request is too large: " + why)
	default:
		// No connection, no answer, not granted: waiting or the operator
		// mends it.
		return guest.Busy(pause, why)
	}
	if answer.Status >= 200 && answer.Status <= 299 {
		return guest.OK(batch.Len())
	}
	why = "HTTP " + strconv.Itoa(int(answer.Status)) + " " + string(answer.Body[:min(len(answer.Body), 200)])
	switch answer.Status {
	case 400, 413, 422:
		return guest.Reject(why)
	}
	return guest.Busy(pause, why)
}

// appendLine adds {"id":"…", and the rest of the payload, which is an object.
func appendLine(line []byte, event abi.EventView) []byte {
	line = append(line, `{"id":"`...)
	for _, c := range event.ID() { // it has no control characters
		if c == '"' || c == '\\' {
			line = append(line, '\\')
		}
		line = append(line, c)
	}
	line = append(line, '"')
	rest := bytes.TrimPrefix(event.Payload(), []byte("{"))
	if !bytes.HasPrefix(rest, []byte("}")) {
		line = append(line, ',')
	}
	return append(append(line, rest...), '\n')
}

// readConfig takes one JSON object whose members are all known.
func readConfig(text []byte, into any) error {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return errors.New("the configuration is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more text behind the configuration")
	}
	return nil
}
