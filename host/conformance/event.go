package conformance

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/ledger/chain"
)

// An event of the kit is known by its id, a UUID that begins with mark and ends
// with its number. It is found as text, and as the 16 bytes of the UUID.
const (
	mark   = "01a2c0de-"
	idSize = 36
)

var rawMark = []byte{0x01, 0xa2, 0xc0, 0xde}

// idOf makes the id of event n. Ids of later events are greater.
func idOf(n int) string {
	return fmt.Sprintf(mark+"%04x-7%03x-8000-%012x", n>>12&0xffff, n&0xfff, n)
}

// eachMark finds the ids of the kit's events in what a plugin wrote.
func eachMark(b []byte, found func(id string)) {
	for rest := b; ; {
		at := bytes.Index(rest, []byte(mark))
		if at < 0 || len(rest)-at < idSize {
			break
		}
		found(string(rest[at : at+idSize]))
		rest = rest[at+idSize:]
	}
	for rest := b; ; {
		at := bytes.Index(rest, rawMark)
		if at < 0 || len(rest)-at < 16 {
			return
		}
		h := hex.EncodeToString(rest[at : at+16])
		found(h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:])
		rest = rest[at+16:]
	}
}

// queueID is the queue that the kit's positions belong to.
var queueID = [16]byte{'c', 'o', 'n', 'f', 'o', 'r', 'm', 'a', 'n', 'c', 'e'}

// kitKey signs the kit's events: verifying a signature is no plugin's work, but
// it has the form of one.
var kitKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// event makes the next event, its payload at least size bytes long.
func (k *kit) event(size int) abi.Event {
	k.next++
	id := idOf(k.next)
	const stamp = "2026-01-02T03:04:05.678901234+00:00"
	form := `{"action":{"kind":"filesystem_write","path":"/etc/passwd"},"agent_id":"agent:kit","decision":{"decision":"refuse","rule_id":"R001"},"event":"%s","note":"%s","timestamp":"` + stamp + `"}`
	pad := max(0, size-len(form)-idSize+4)
	e := abi.Event{
		ID: id, AgentID: "agent:kit", EventType: "governance.refusal", Timestamp: stamp, Seq: uint64(k.next),
		Payload: fmt.Appendf(nil, form, id, strings.Repeat("n", pad)), AttestLevel: abi.AttestDaemonSigned, KeyID: "kit",
	}
	seal(&e)
	return e
}

// markOf is the part of an event's id by which it is found.
func markOf(id string) string { return id[:idSize] }

// seal computes what depends on the rest of an event.
func seal(e *abi.Event) {
	e.PayloadHash = sha256.Sum256(e.Payload)
	e.Digest = sha256.Sum256(chain.AppendEventPreimage(nil, e.ID, e.AgentID, e.EventType, e.PayloadHash[:], e.Timestamp))
	if e.AttestLevel == abi.AttestDaemonSigned {
		e.Signature = ed25519.Sign(kitKey, e.Digest[:])
	}
}

// batch makes a batch of n new events.
func (k *kit) batch(n int) *abi.Batch {
	events := make([]abi.Event, n)
	for i := range events {
		events[i] = k.event(0)
	}
	return k.batchOf(events)
}

// batchOf makes a new batch of these events.
func (k *kit) batchOf(events []abi.Event) *abi.Batch {
	k.batches++
	return &abi.Batch{ID: k.batches, Attempt: 1, Queue: queueID, Events: events}
}

// again is the same batch at its next attempt.
func again(b *abi.Batch) *abi.Batch {
	c := *b
	c.Attempt++
	return &c
}

// describe says what was sent.
func describe(b *abi.Batch) string {
	text := fmt.Sprintf("a batch of %d events", len(b.Events))
	if len(b.Events) == 1 {
		text = "a batch of one event"
	}
	if b.Attempt > 1 {
		text += fmt.Sprintf(", attempt %d", b.Attempt)
	}
	return text
}

// answered says how a call ended.
func answered(r abi.Result) string {
	text := r.Outcome.String()
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}
