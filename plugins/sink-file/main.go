// Command sink-file is the bundled plugin that writes events as JSON Lines into
// the one file of its append grant.
//
// Guarantee: an event that counts as stored is on disk; the host syncs the file
// before it believes the answer. Not guaranteed: that it is there once only.
// After an error, a crash or an unknown outcome a batch is written again; all
// but the shape payload carry the id by which a reader knows an event again.
//
// Configuration: {"format": "event" | "payload" | "cloudevents", "source": …},
// see package plugins/shape. source, a URI, is that of CloudEvents.
package main

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
	"github.com/audit-host/audit-host/plugins/shape"
)

func main() {}

func init() { guest.Register(&sink{}) }

// portion is how many bytes are collected before they are appended: a record
// is whole lines and lies in one file, so this bounds how unevenly files are
// filled.
const portion = 1 << 20

// pause is how long to wait for a file that is not to be had.
const pause = time.Second

type sink struct {
	config config
	buf    []byte
}

type config struct {
	Format string `json:"format"`
	Source string `json:"source"`
}

// Open reads the configuration.
func (s *sink) Open(text []byte) guest.Answer {
	s.config = config{Format: shape.Event, Source: "audit-host"}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&s.config); err != nil {
		return guest.BadConfig(err.Error())
	}
	if !slices.Contains(shape.Shapes(), s.config.Format) {
		return guest.BadConfig("format is " + strconv.Quote(s.config.Format) + "; wanted one of " + strings.Join(shape.Shapes(), ", "))
	}
	if s.config.Source == "" {
		return guest.BadConfig("source is empty; a CloudEvent needs one, leave it out for audit-host")
	}
	return guest.OK(0)
}

// Deliver appends a line for each event.
func (s *sink) Deliver(b abi.View) guest.Answer {
	if s.config.Format == shape.Payload && b.Len() > 0 {
		return answer(guest.Append(b.Lines()), b.Len())
	}
	s.buf = s.buf[:0]
	for i := range b.Len() {
		s.buf = append(shape.Append(s.buf, b.At(i), s.config.Format, s.config.Source), '\n')
		if len(s.buf) < portion && i+1 < b.Len() {
			continue
		}
		if status := guest.Append(s.buf); status != abi.StatusDone {
			return answer(status, 0)
		}
		s.buf = s.buf[:0]
	}
	return guest.OK(b.Len())
}

func answer(status abi.Status, n int) guest.Answer {
	if status != abi.StatusDone {
		// Waiting and the operator mend all of these; why is in the host's log.
		return guest.Busy(pause, "append: "+status.String())
	}
	return guest.OK(n)
}
