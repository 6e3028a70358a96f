// Command example is a sink plugin for audit-host. It writes one line for each
// event into the file of its append grant: id, type and payload, with tabs
// between them.
//
// Configuration: {"prefix": "…"}, a text before each line.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

// The module is a library: audit-host calls the sink, and never main.
func main() {}

func init() { guest.Register(&sink{}) }

// portion is how many bytes are collected before they are appended.
const portion = 64 << 10

// pause is how long to be left alone when the file is not to be had.
const pause = time.Second

type sink struct {
	config config
	lines  []byte // its memory is used again for every batch
}

type config struct {
	Prefix string `json:"prefix"`
}

// Open gets config of the [[sink]] in audit.toml, as JSON.
func (s *sink) Open(text []byte) guest.Answer {
	s.config = config{}
	if err := readConfig(text, &s.config); err != nil {
		return guest.BadConfig(err.Error())
	}
	if strings.Contains(s.config.Prefix, "\n") {
		return guest.BadConfig("prefix holds a line feed")
	}
	return guest.OK(0)
}

// Deliver stores a batch. It may come again: after a Busy, after a crash, after
// an answer that audit-host did not get. So each line carries the event's id.
func (s *sink) Deliver(batch abi.View) guest.Answer {
	s.lines = s.lines[:0]
	for i := range batch.Len() {
		event := batch.At(i)
		s.lines = append(s.lines, s.config.Prefix...)
		s.lines = append(s.lines, event.ID()...)
		s.lines = append(s.lines, '\t')
		s.lines = append(s.lines, event.EventType()...)
		s.lines = append(s.lines, '\t')
		s.lines = append(s.lines, event.Payload()...)
		s.lines = append(s.lines, '\n')
		if len(s.lines) < portion && i+1 < batch.Len() {
			continue
		}
		if status := guest.Append(s.lines); status != abi.StatusDone {
			// Waiting or the operator mends it. The whole batch comes again.
			return guest.Busy(pause, "append: "+status.String())
		}
		s.lines = s.lines[:0]
	}
	return guest.OK(batch.Len())
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
