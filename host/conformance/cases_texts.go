package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/audit-host/audit-host/abi"
)

// texts delivers events at the bounds of what the host accepts: texts that are
// long, or mean something elsewhere, and fields that are empty.
func texts(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	const change = "how these texts are written: bound as a parameter, quoted as the format wants"
	const strange = `'"\;--{{%s}}</script>` + "\u00e4\u65e5\U0001F512 \u2028"
	long := func(text string, most int) string { return text + strings.Repeat("z", most-len(text)) }
	var all []abi.Event
	for _, c := range []struct {
		what string
		make func(*abi.Event)
	}{
		{"an id with quotes, a backslash and letters beyond ASCII", func(e *abi.Event) { e.ID += strange }},
		{"an id of 128 bytes", func(e *abi.Event) { e.ID = long(e.ID, abi.MaxIDLen) }},
		{"an agent id with quotes, a backslash and letters beyond ASCII", func(e *abi.Event) { e.AgentID = strange }},
		{"an agent id of 256 bytes", func(e *abi.Event) { e.AgentID = long("agent:", abi.MaxAgentIDLen) }},
		{"an event type of 64 bytes", func(e *abi.Event) { e.EventType = long("governance.", abi.MaxEventTypeLen) }},
		{"an event without a signature", func(e *abi.Event) { e.Signature, e.KeyID, e.AttestLevel = nil, "", abi.AttestUnsigned }},
		{"a timestamp that the host stamped", func(e *abi.Event) { e.Minted = true }},
		{"a payload with escapes", func(e *abi.Event) {
			e.Payload = fmt.Appendf(nil, `{"event":"%s","note":"\u0000\n\"\\'%s","timestamp":"%s"}`, markOf(e.ID), "\u00e4\u65e5\U0001F512", e.Timestamp)
		}},
	} {
		e := k.event(0)
		c.make(&e)
		seal(&e)
		all = append(all, e)
		b := k.batchOf([]abi.Event{e})
		if err := w.accept(ctx, b); err != nil {
			return "", advised(named(err, c.what), change)
		}
		if err := w.all(ctx, b.Events, c.what, change); err != nil {
			return "", err
		}
	}
	// And all of them beside each other, as other events.
	for i := range all {
		old := markOf(all[i].ID)
		id := k.event(0).ID
		all[i].ID = id + strings.TrimPrefix(all[i].ID, old)
		all[i].Seq = uint64(k.next)
		all[i].Payload = []byte(strings.ReplaceAll(string(all[i].Payload), old, id))
		seal(&all[i])
	}
	if err := w.accept(ctx, k.batchOf(all)); err != nil {
		return "", advised(named(err, "all of the texts of this case in one batch"), change)
	}
	return fmt.Sprintf("%d events", 2*len(all)), w.all(ctx, all, "all of the texts of this case in one batch", change)
}

// advised gives a breach another advice than the general one.
func advised(err error, change string) error {
	var b *Breach
	if errors.As(err, &b) && b.Change == general {
		b.Change = change
	}
	return err
}

// large delivers much at once.
func large(ctx context.Context, k *kit) (string, error) {
	w, err := k.bigWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	note := ""
	const change = "bounds that were meant for small batches: fixed buffers, counters of 16 bits, a last portion that is not written"
	events := k.batch(1024).Events
	for i := range events {
		if i%4 == 0 {
			events[i] = k.event(12 << 10) // 4 MiB in all, audit.toml's default
		}
	}
	one := []abi.Event{k.event(1 << 20)}
	many := make([]abi.Event, 24)
	for i := range many {
		many[i] = k.event(1 << 20)
	}
	for _, c := range []struct {
		events []abi.Event
		sent   string
		may    bool // it may be refused, to come again in halves
	}{{events, "1,024 events, about 4 MiB", false}, {one, "one event of 1 MiB", false}, {many, "24 events of 1 MiB each", true}} {
		b := k.batchOf(c.events)
		r := w.deliver(ctx, b)
		if r.Outcome == abi.Reject && c.may {
			note = "24 MiB at once are refused (" + r.Detail + ") and would come again in halves"
			continue
		}
		if r.Outcome != abi.OK {
			return "", misanswer(c.sent, r, "OK")
		}
		if err := w.all(ctx, c.events, c.sent, change); err != nil {
			return "", err
		}
	}
	return note, nil
}
