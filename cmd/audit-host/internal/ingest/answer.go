package ingest

import (
	"bufio"
	"encoding/json"
	"net/http"
)

// Status is what became of one event of a request.
type Status string

// Statuses of an event.
const (
	StatusAccepted   Status = "accepted"    // in the queue, no more is known yet
	StatusDurable    Status = "durable"     // survives a crash
	StatusAppended   Status = "appended"    // in the ledger
	StatusDeadLetter Status = "dead_letter" // kept, but not in the ledger
	StatusRejected   Status = "rejected"    // refused for its content
	StatusSkipped    Status = "skipped"     // its decision is not recorded
	StatusRetry      Status = "retry"       // not taken: send it again
)

// Result is one event of a request.
type Result struct {
	Index    int    `json:"index"`          // from 0; blank lines are not counted
	Line     int    `json:"line,omitempty"` // of JSON Lines, from 1
	ID       string `json:"id,omitempty"`
	Status   Status `json:"status"`
	Sequence uint64 `json:"sequence,omitempty"`
	RowHash  string `json:"row_hash,omitempty"` // hexadecimal
	Error    string `json:"error,omitempty"`
}

// maxNotTaken is how many events of a request that were not taken (rejected,
// skipped, retry) an answer names. Two bytes of a body can be such an event, and
// what is said of each is a hundred times as long.
const maxNotTaken = 100

// resultBytes is what an event of an answer takes in memory, about, in bytes: an
// accepted one, with its id, its receipt and a row hash.
const resultBytes = 320

// Answer is the body of an answer of POST /v1/events to a request of which
// events could be told apart. The four counts are of all events of the request.
// Events has each that was accepted, and of the others the first maxNotTaken;
// Unnamed counts the rest. Both together are the four counts.
type Answer struct {
	Accepted int    `json:"accepted"` // taken by the queue, whatever came then
	Rejected int    `json:"rejected"`
	Skipped  int    `json:"skipped"`
	Retry    int    `json:"retry"`
	Error    string `json:"error,omitempty"` // why the status is not 2xx
	// Head is the last row of the ledger when the events of ack=ledger were looked
	// up; it is theirs or a later one.
	Head    *Head    `json:"head,omitempty"`
	Unnamed int      `json:"unnamed,omitempty"`
	Events  []Result `json:"events"`

	notTaken int // of Events
}

// room tells whether one more event that was not taken is named.
func (a *Answer) room() bool { return a.notTaken < maxNotTaken }

// add names an event, or counts it.
func (a *Answer) add(res Result) {
	switch {
	case res.Status == StatusAccepted:
	case a.room():
		a.notTaken++
	default:
		a.Unnamed++
		return
	}
	a.Events = append(a.Events, res)
}

// code is the status of the answer; waiting is the number of accepted events
// that did not reach the level asked for, tooLarge that of events rejected for
// their size.
func (a *Answer) code(asked ack, waiting, tooLarge int) int {
	switch {
	case a.Retry > 0 || waiting > 0:
		return http.StatusServiceUnavailable
	case a.Accepted == 0 && a.Skipped == 0 && a.Rejected > 0 && a.Rejected == tooLarge:
		return http.StatusRequestEntityTooLarge
	case a.Accepted == 0 && a.Skipped == 0 && a.Rejected > 0:
		return http.StatusBadRequest
	case a.Accepted > 0 && asked == ackAccepted:
		return http.StatusAccepted
	}
	return http.StatusOK
}

// write sends the answer event by event, so that the text of a large one is
// never in memory as a whole.
func (a *Answer) write(w http.ResponseWriter, code int) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if code == http.StatusServiceUnavailable {
		h.Set("Retry-After", retryAfter)
	}
	w.WriteHeader(code)
	head := *a
	head.Events = nil
	text, err := json.Marshal(head)
	if err != nil {
		return // not with these types
	}
	const tail = "null}" // of Events, which stands last
	out := bufio.NewWriterSize(w, 4<<10)
	out.Write(text[:len(text)-len(tail)])
	for i := range a.Events {
		sep := byte(',')
		if i == 0 {
			sep = '['
		}
		out.WriteByte(sep)
		if text, err = json.Marshal(&a.Events[i]); err != nil {
			return
		}
		if _, err = out.Write(text); err != nil {
			return // the client is gone
		}
	}
	if len(a.Events) == 0 {
		out.WriteByte('[')
	}
	out.WriteString("]}\n")
	out.Flush() // an error means that the client is gone
}
