package event

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
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

// Report is what became of a request whose elements could be told apart, and the
// body of the answer to native events. The four counts are of all elements that
// did not become dead letters. Events has each accepted event of a format with
// receipts, and of the others the first maxNotTaken (of a format without, only
// what was rejected). Unnamed counts the rest: of a format with receipts both
// together are the four counts.
type Report struct {
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

	DeadLettered int    `json:"-"`
	TooLarge     int    `json:"-"` // of Rejected
	Waiting      int    `json:"-"` // accepted, and not acknowledged as asked
	Cause        error  `json:"-"` // why something has to be sent again, the first such
	Unwatched    bool   `json:"-"` // the client waits for nothing: ack=accepted
	Media        string `json:"-"` // media type of the request, without parameters

	notTaken int // of Events
}

// Head is where the ledger ended when it was looked into. A client that keeps it
// can show later that the ledger lost rows: audit-host verify --head.
type Head struct {
	Sequence uint64 `json:"sequence"`
	RowHash  string `json:"row_hash"` // hexadecimal
}

// Room tells whether one more event that was not taken is named.
func (a *Report) Room() bool { return a.notTaken < maxNotTaken }

// Add names an event, or counts it.
func (a *Report) Add(res Result) {
	switch {
	case res.Status == StatusAccepted:
	case a.Room():
		a.notTaken++
	default:
		a.Unnamed++
		return
	}
	a.Events = append(a.Events, res)
}

// answerNative answers with the report itself. It is written event by event, so
// that the text of a large one is never in memory as a whole.
func answerNative(a *Report) Reply {
	status := a.status()
	switch {
	case a.Retry > 0: // all after the first one too
		a.Error = clip(fmt.Sprintf("event %d and all after it were not taken, send them again: %v",
			a.Accepted+a.Rejected+a.Skipped+a.DeadLettered, a.Cause), shownAnswer)
	case status == 503:
		a.Error = "some events are not acknowledged yet; they may be sent again under the same ids"
	case status >= 400:
		a.Error = "no event of this body can be accepted"
	}
	return Reply{Status: status, Media: "application/json", Body: a.write}
}

// shownAnswer is the number of bytes of an error's text in an answer.
const shownAnswer = 512

func (a *Report) status() int {
	switch {
	case a.Retry > 0 || a.Waiting > 0:
		return 503
	case a.Accepted == 0 && a.Skipped == 0 && a.Rejected > 0 && a.Rejected == a.TooLarge:
		return 413
	case a.Accepted == 0 && a.Skipped == 0 && a.Rejected > 0:
		return 400
	case a.Accepted > 0 && a.Unwatched:
		return 202
	}
	return 200
}

func (a *Report) write(w io.Writer) {
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
