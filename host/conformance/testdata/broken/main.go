// Command broken is the guest of the tests of package conformance: a sink that
// keeps all rules, but for the one that its configuration tells it to break.
package main

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

func main() {}

func init() { guest.Register(&sink{}) }

type sink struct {
	breaks string
	url    string
	script guest.Script
	out    [64 << 10]byte
	kept   [][]byte        // of "leaks"
	had    map[string]bool // of "remembers"
	held   []row           // of "holds" and "flushes"
	work   int
}

type row struct{ id, payload []byte }

const pause = 10 * time.Millisecond

// Open takes {"break":"…"} or {"break":"…","url":"…"} and nothing else. Package
// encoding/json would make the guest twice as large, and the tests that load it
// many times as slow.
func (s *sink) Open(text []byte) guest.Answer {
	t := string(text)
	rest, ok := strings.CutPrefix(t, `{"break":"`)
	rest, end := strings.CutSuffix(rest, `"}`)
	name, url, _ := strings.Cut(rest, `","url":"`)
	switch {
	case ok && end && !strings.ContainsAny(name+url, `"{}`):
		s.breaks, s.url = name, url
	case strings.Contains(t, "takes-all"), s.breaks == "takes-all":
		s.breaks = "takes-all"
	case strings.Contains(t, "traps-on-config"):
		panic("no such configuration: " + t)
	default:
		return guest.BadConfig("it is not of the form {\"break\":\"…\"}")
	}
	s.had = map[string]bool{}
	return guest.OK(0)
}

func (s *sink) Deliver(b abi.View) guest.Answer {
	switch s.breaks {
	case "leaks":
		s.kept = append(s.kept, make([]byte, 64<<10))
	case "address":
		if b.Len() > 0 && int32(uintptr(unsafe.Pointer(unsafe.SliceData(b.At(0).Payload())))) < 0 {
			return guest.Reject("a pointer below 0")
		}
	case "signed":
		if int32(b.Attempt()) < 1 {
			return guest.Reject("an attempt below 1")
		}
	case "fixed-stride":
		for i := range b.Len() {
			if i > 0 && uintptr(unsafe.Pointer(unsafe.SliceData(b.At(i).Digest())))-uintptr(unsafe.Pointer(unsafe.SliceData(b.At(i-1).Digest()))) != 200 {
				return guest.Reject("entries do not have 200 bytes")
			}
		}
	case "quadratic":
		for i := range b.Len() * b.Len() {
			s.work += i * len(b.Lines())
		}
	case "falls-over":
		panic("this sink takes no batch")
	case "silent":
		return guest.OK(b.Len())
	case "garbage":
		return guest.Answer{Outcome: abi.Trap}
	case "appends", "ignores-append", "remembers", "numbers", "claims":
		return s.lines(b)
	case "puts", "ignores-http":
		return s.puts(b)
	}
	return s.rows(b)
}

// puts puts each event at a place of its own, so that a second one changes
// nothing.
func (s *sink) puts(b abi.View) guest.Answer {
	for i := range b.Len() {
		e := b.At(i)
		r := guest.Request{Method: "PUT", URL: s.url + "/" + hex.EncodeToString(e.ID()), Body: e.Payload()}
		a, status, text := guest.HTTP(&r, s.out[:])
		switch {
		case status != abi.StatusDone:
			return guest.Busy(pause, text)
		case a.Status != 200 && s.breaks == "puts":
			return guest.Busy(pause, "HTTP "+strconv.Itoa(int(a.Status)))
		}
	}
	return guest.OK(b.Len())
}

// rows stores a batch in the database.
func (s *sink) rows(b abi.View) guest.Answer {
	rows := s.held
	s.held = nil
	for i := range b.Len() {
		r := row{b.At(i).ID(), b.At(i).Payload()}
		if s.breaks == "scrambles" {
			r = row{scrambled(r.id), scrambled(r.payload)}
		}
		rows = append(rows, r)
	}
	switch s.breaks {
	case "reorders":
		slices.Reverse(rows)
	case "drops":
		if len(rows) > 1000 {
			rows = rows[:1000]
		}
	case "holds", "flushes":
		if n := len(rows); b.Len() > 1 {
			s.held = []row{{slices.Clone(rows[n-1].id), slices.Clone(rows[n-1].payload)}}
			rows = rows[:n-1]
		}
	}
	fresh, status := s.insert(rows)
	if status == abi.SQLDone {
		switch s.breaks {
		case "miscounts":
			return guest.OK(fresh)
		case "misplaces", "places-anew": // the one twice in a batch, the other once for each delivery
			list := make([]abi.Place, b.Len())
			for i := range list {
				if s.breaks == "places-anew" {
					s.work++
				}
				list[i] = abi.Place{Sequence: uint64(1 + s.work), Flags: abi.PlaceStoredNow}
			}
			guest.Places(list)
		}
		return guest.OK(b.Len())
	}
	switch s.breaks {
	case "ignores-sql":
		return guest.OK(b.Len())
	case "no-verdicts":
		return guest.Partial(b.Len() - 1)
	case "rejects":
		return guest.Reject("status " + strconv.Itoa(int(status)))
	case "traps-on-status":
		panic("status " + strconv.Itoa(int(status)))
	}
	return guest.Busy(pause, "status "+strconv.Itoa(int(status)))
}

// scrambled is what an encryption would make of a text.
func scrambled(text []byte) []byte {
	out := make([]byte, len(text))
	for i, c := range text {
		out[i] = c ^ 1
	}
	return out
}

// insert runs one transaction and returns how many rows are new.
func (s *sink) insert(rows []row) (fresh int, status abi.SQLStatus) {
	sc := &s.script
	sc.Reset()
	switch s.breaks {
	case "no-table":
	case "not-idempotent":
		sc.Step(abi.SQLExec, "CREATE TABLE IF NOT EXISTS events (id TEXT, payload TEXT, luck INTEGER)", 0, 0)
	default:
		sc.Step(abi.SQLExec, "CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, payload TEXT, luck INTEGER)", 0, 0)
	}
	sc.Step(abi.SQLQuery, "SELECT count(*) FROM events", 0, 0)
	if len(rows) > 0 {
		luck := int64(0)
		if s.breaks == "asks-for-chance" {
			luck = s.chance()
		}
		if s.breaks == "concatenates" {
			var text strings.Builder
			for i, r := range rows {
				text.WriteString([]string{"INSERT OR IGNORE INTO events VALUES ('", ",('"}[min(i, 1)])
				text.Write(r.id)
				text.WriteString("','',0)")
			}
			sc.Step(abi.SQLExec, text.String(), 0, 0)
			rows = nil
		}
		sc.Step(abi.SQLMany, "INSERT OR IGNORE INTO events VALUES", 3, len(rows))
		for _, r := range rows {
			sc.Text(r.id)
			sc.Text(r.payload)
			sc.Int(luck)
		}
	}
	sc.Step(abi.SQLQuery, "SELECT count(*) FROM events", 0, 0)
	status, answer := sc.Run(abi.SQLWrite, s.out[:])
	if status != abi.SQLDone {
		return 0, status
	}
	r := guest.NewRows(answer)
	r.Next()
	before := r.Int()
	r.Next()
	return int(r.Int() - before), status
}

func (s *sink) chance() int64 {
	var sc guest.Script
	sc.Step(abi.SQLQuery, "SELECT random()", 0, 0)
	_, answer := sc.Run(abi.SQLRead, s.out[:])
	r := guest.NewRows(answer)
	r.Next()
	return r.Int()
}

// lines appends a batch to the file, a line for each event.
func (s *sink) lines(b abi.View) guest.Answer {
	number := 0
	if s.breaks == "numbers" {
		v, status := guest.KVGet("number", nil)
		if status != abi.StatusDone && status != abi.StatusAbsent {
			return guest.Busy(pause, status.String())
		}
		number, _ = strconv.Atoi(string(v))
	}
	for i := range b.Len() {
		e := b.At(i)
		if s.breaks == "remembers" && s.had[string(e.ID())] {
			continue
		}
		number++
		line := append(strconv.AppendInt(nil, int64(number), 10), ' ')
		line = append(append(append(append(line, e.ID()...), ' '), e.Payload()...), '\n')
		if status := guest.Append(line); status != abi.StatusDone && s.breaks != "ignores-append" {
			return guest.Busy(pause, status.String())
		}
		s.had[string(e.ID())] = s.breaks == "remembers"
	}
	if s.breaks == "numbers" {
		if status := guest.KVSet("number", []byte(strconv.Itoa(number))); status != abi.StatusDone {
			return guest.Busy(pause, status.String())
		}
	}
	return guest.OK(b.Len())
}

func (s *sink) Flush() guest.Answer {
	if s.breaks == "flushes" && len(s.held) > 0 {
		if _, status := s.insert(s.held); status != abi.SQLDone {
			return guest.Busy(pause, "flush")
		}
		s.held = nil
	}
	return guest.OK(0)
}
