package main

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/plugins/shape"
)

// encode writes the body for a batch. The result is valid until the next call,
// and a part of the frame where nothing has to be written.
func (s *sink) encode(b abi.View) []byte {
	c := &s.config
	if c.Format == ndjson && c.Shape == shape.Payload {
		return b.Lines()
	}
	s.body = s.body[:0]
	switch c.Format {
	case loki:
		s.streams(b)
		return s.body
	case splunk:
		for i := range b.Len() {
			s.splunkEvent(b.At(i))
		}
		return s.body
	}
	for i := range b.Len() {
		e := b.At(i)
		if c.Format == elasticsearch {
			// create and not index: what is there stays as it was first.
			s.text(`{"create":{"_index":`).quote([]byte(c.Index)).text(`,"_id":`).quote(e.ID()).text("}}\n")
		}
		s.body = append(shape.Append(s.body, e, c.Shape, c.Source), '\n')
	}
	return s.body
}

func (s *sink) text(t string) *sink {
	s.body = append(s.body, t...)
	return s
}

func (s *sink) quote(t []byte) *sink {
	s.body = shape.Quote(s.body, t)
	return s
}

// splunkEvent writes one event as Splunk's collector wants it: an object, with
// the time in seconds. Objects follow each other.
func (s *sink) splunkEvent(e abi.EventView) {
	c := &s.config
	s.text(`{"source":`).quote([]byte(c.Source))
	if at, ok := timeOf(e); ok {
		s.text(`,"time":`)
		s.body = strconv.AppendInt(s.body, at.Unix(), 10)
		s.text(".")
		milli := strconv.Itoa(at.Nanosecond() / 1e6)
		s.text("000"[len(milli):] + milli)
	}
	if c.SourceType != "" {
		s.text(`,"sourcetype":`).quote([]byte(c.SourceType))
	}
	if c.Index != "" {
		s.text(`,"index":`).quote([]byte(c.Index))
	}
	s.text(`,"event":`)
	s.body = append(shape.Append(s.body, e, c.Shape, c.Source), '}')
}

// streams writes a batch for Loki: one stream for each type of event, since
// types are few and labels have to be.
func (s *sink) streams(b abi.View) {
	s.text(`{"streams":[`)
	var types [][]byte
	for i := range b.Len() {
		typ := b.At(i).EventType()
		if slices.ContainsFunc(types, func(t []byte) bool { return bytes.Equal(t, typ) }) {
			continue
		}
		if len(types) > 0 {
			s.text(",")
		}
		types = append(types, typ)
		s.text(`{"stream":{`)
		labels := maps.Clone(s.config.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		if _, own := labels["job"]; !own {
			labels["job"] = "audit-host"
		}
		labels["event_type"] = string(typ)
		for k, name := range slices.Sorted(maps.Keys(labels)) {
			if k > 0 {
				s.text(",")
			}
			s.quote([]byte(name)).text(":").quote([]byte(labels[name]))
		}
		s.text(`},"values":[`)
		s.values(b, i)
		s.text("]}")
	}
	s.text("]}")
}

// values writes the events of the type of event first, which is the first one.
func (s *sink) values(b abi.View, first int) {
	var line []byte
	for i := first; i < b.Len(); i++ {
		e := b.At(i)
		if !bytes.Equal(e.EventType(), b.At(first).EventType()) {
			continue
		}
		if i > first {
			s.text(",")
		}
		at, _ := timeOf(e)
		s.text(`["` + strconv.FormatInt(at.UnixNano(), 10) + `",`)
		line = shape.Append(line[:0], e, s.config.Shape, s.config.Source)
		s.quote(line).text("]")
	}
}

// timeOf reads an event's timestamp; 1970 and false if it can't be read, which
// the host's check of an event rules out.
func timeOf(e abi.EventView) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339Nano, string(e.Timestamp()))
	if err != nil {
		return time.Unix(0, 0), false
	}
	return at, true
}
