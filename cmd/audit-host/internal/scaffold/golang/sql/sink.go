// Command example is a sink plugin for audit-host. It keeps id and payload of
// each event in a table of its own, in the database of its sql grant.
//
// An event that comes twice is stored once. It has no configuration: {}.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

// The module is a library: audit-host calls the sink, and never main.
func main() {}

func init() { guest.Register(&sink{}) }

// table has the rule that makes the sink idempotent: a row whose id is there
// already is passed over.
const table = `CREATE TABLE IF NOT EXISTS events (
	id      TEXT NOT NULL PRIMARY KEY ON CONFLICT IGNORE,
	payload TEXT NOT NULL
)`

// pause is how long to be left alone when the database is not to be had.
const pause = time.Second

type sink struct {
	script guest.Script
	answer [1 << 10]byte // for the text of an error
}

// Open gets config of the [[sink]] in audit.toml, as JSON.
func (s *sink) Open(text []byte) guest.Answer {
	if err := readConfig(text, &struct{}{}); err != nil {
		return guest.BadConfig(err.Error())
	}
	return guest.OK(0)
}

// Deliver stores a batch in one transaction, which audit-host begins and
// commits. The batch may come again: after a Busy, after a crash, after an
// answer that audit-host did not get.
func (s *sink) Deliver(batch abi.View) guest.Answer {
	if batch.Len() == 0 {
		return guest.OK(0)
	}
	s.script.Reset()
	s.script.Step(abi.SQLExec, table, 0, 0)
	// The host adds the placeholders, for 16 rows at a time.
	s.script.Step(abi.SQLMany, "INSERT INTO events (id, payload) VALUES", 2, batch.Len())
	for i := range batch.Len() {
		event := batch.At(i)
		s.script.Text(event.ID())
		s.script.Text(event.Payload())
	}
	status, text := s.script.Run(abi.SQLWrite, s.answer[:])
	switch {
	case status == abi.SQLDone:
		return guest.OK(batch.Len())
	case status == abi.SQLTooLarge, status&0xff == sqliteConstraint && status <= 0xffff:
		// A refused batch comes again in halves, so that in the end only the
		// event that is at fault is a dead letter.
		return guest.Reject(string(text))
	}
	// A lock, a full disk, another table of that name: waiting or the operator
	// mends it.
	return guest.Busy(pause, string(text))
}

// sqliteConstraint is SQLITE_CONSTRAINT, the lower byte of its extended codes.
const sqliteConstraint = 19

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
