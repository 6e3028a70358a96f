package conformance

import (
	"context"
	"fmt"
	"slices"

	"github.com/audit-host/audit-host/abi"
)

// general is the advice where there is no better one.
const general = "audit_deliver, and the message that came with its answer"

// advice is what to change, by the rule that the host says was broken.
var advice = map[string]string{
	"R5": "the number that goes with OK: all events of the batch, also those that were there before",
	"R6": "the number that goes with PARTIAL, and that each other event gets one verdict, RETRY or REJECT",
	"R7": "the 64 bits that are returned: reason << 48 | outcome << 32 | argument, with an outcome of the table; " +
		"and audit_reserve: an address behind which the bytes that were asked for are, or 0 if they can't be had",
	"R28": "the list that is given to places: an entry for each event, zeros for one that is not stored, " +
		"sequences that rise with the batch, stored now only for a row that this call has made",
	"R27": "the upper 16 bits that are returned: they are 0 with OK and PARTIAL",
}

// misanswer is the breach of an answer that the host does not accept, or of one
// that was not wanted.
func misanswer(sent string, r abi.Result, wanted string) *Breach {
	b := &Breach{Sent: sent, Got: answered(r), Wanted: wanted, Change: general}
	switch {
	case r.Outcome == abi.BadABI:
		b.Rule, b.Change = r.Rule, advice[r.Rule]
	case r.Outcome == abi.Trap || r.Outcome == abi.Exit:
		b.Rule, b.Change = "R25", "what it falls over; --log shows what the plugin logs, and its own tests can have the same batch"
	case r.Outcome == abi.Fuel || r.Outcome == abi.Deadline:
		b.Rule, b.Change = "R9", "what takes so long: a loop without an end, a wait"
	case r.Outcome == abi.Memory:
		b.Rule, b.Change = "R9", "what takes so much memory; buffers are to be reused between batches"
	}
	return b
}

// pump delivers a batch until all of it is stored, as the queue does.
func (w *world) pump(ctx context.Context, b *abi.Batch) error {
	var r abi.Result
	last := b
	for range 6 {
		last = b
		r = w.deliver(ctx, b)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, later := stored(b, r)
		switch {
		case r.Outcome == abi.OK:
			return nil
		case r.Outcome == abi.Reject, r.Outcome == abi.BadABI:
			return misanswer(describe(b), r, "OK: nothing is wrong with these events, and nothing fails")
		case r.Outcome == abi.Partial && len(later) == 0:
			return misanswer(describe(b), r, "no REJECT: nothing is wrong with these events")
		case r.Outcome == abi.Partial:
			b = w.k.batchOf(later)
		default:
			b = again(b)
		}
	}
	return misanswer(describe(last), r, "OK by now: nothing fails, and this was the sixth time in a row")
}

// accept is pump for an undisturbed batch: it is to be OK at once.
func (w *world) accept(ctx context.Context, b *abi.Batch) error {
	r := w.deliver(ctx, b)
	if r.Outcome == abi.Busy || r.Outcome == abi.Retry {
		return w.pump(ctx, again(b)) // the other of two writers, say
	}
	if r.Outcome != abi.OK {
		return misanswer(describe(b), r, "OK")
	}
	return nil
}

// all tells that events are stored, and not lost; exact also that none is there
// twice, which is asked of a sink that says it is idempotent.
func (w *world) all(ctx context.Context, events []abi.Event, sent, change string) error {
	missing, doubled, err := w.compare(ctx, events)
	switch {
	case err != nil:
		return err
	case missing != nil:
		return &Breach{Rule: "R5", Sent: sent, Got: "OK in the end, and " + places(events, missing) + " missing in: " + w.k.surfaces(),
			Wanted: "each event that was counted as stored", Change: change}
	case doubled != nil && w.k.manifest.Idempotent:
		return &Breach{Rule: "R8", Sent: sent, Got: places(events, doubled) + " more than once in: " + w.k.surfaces(),
			Wanted: "each event once, for the manifest says idempotent = true", Change: "look an event's id up, or have the store refuse a second one; or say idempotent = false"}
	}
	return nil
}

// empty delivers a frame without events. The host sends none; a plugin that
// meets one must not fall over it.
func empty(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	b := k.batch(0)
	if r := w.bench.Frame(ctx, b.Size(), 0, func(dst []byte) { b.Encode(dst) }); r.Outcome != abi.OK {
		return "", misanswer("a frame of no events", r, "OK(0)")
	}
	return "", nil
}

// one delivers one event and then three, and learns where events are found.
func one(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	w.wrote = false
	first, more := k.batch(1), k.batch(3)
	for _, b := range []*abi.Batch{first, more} {
		if err := w.accept(ctx, b); err != nil {
			return "", err
		}
	}
	if !k.visible() {
		k.usual = map[string]int{}
		return "the plugin has no capability that reaches anything: judged by its outcomes alone", nil
	}
	// What is held back is looked at in the next case.
	if r := w.sink.Flush(ctx); r.Outcome == abi.OK {
		w.ended(true)
	}
	kept, _, err := w.look(ctx)
	if err != nil {
		return "", err
	}
	k.usual = map[string]int{}
	for surface, found := range kept {
		n := found[first.Events[0].ID]
		for i := range more.Events {
			n = min(n, found[more.Events[i].ID])
		}
		if n > 0 {
			k.usual[surface] = n
		}
	}
	// The last event of a batch may be held back until the next one.
	if len(k.usual) == 0 {
		for surface, found := range kept {
			if n := found[first.Events[0].ID]; n > 0 && surface != "kv" {
				k.usual[surface] = n
			}
		}
	}
	if len(k.usual) == 0 && w.wrote {
		return "", unchecked("it writes, and no event's id is in what it writes (is it encrypted, or compressed?): whether what it counts as stored is there can't be checked, here and below")
	}
	if len(k.usual) == 0 {
		return "", &Breach{Sent: "a batch of one event and one of three", Got: "OK, and their ids came out nowhere: not in rows, lines, requests or values",
			Wanted: "each event, with its id or its payload, in what the plugin writes", Change: "that what is written is what was delivered; OK is the promise that it is there"}
	}
	return "found in: " + k.surfaces(), nil
}

// visible tells that what the plugin writes can be seen.
func (k *kit) visible() bool {
	return slices.ContainsFunc(k.manifest.Capabilities, func(c string) bool { return c != abi.CapabilityNow && c != abi.CapabilityRandom })
}

// kept has the instance end after an OK: what it held back is lost then.
func kept(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	for _, n := range []int{1, 8} {
		b := k.batch(n)
		if err := w.accept(ctx, b); err != nil {
			return "", err
		}
		missing, _, err := w.compare(ctx, b.Events)
		if err != nil {
			return "", err
		}
		if missing == nil {
			continue
		}
		flushed := w.sink.Flush(ctx)
		w.ended(flushed.Outcome == abi.OK)
		still, _, err := w.compare(ctx, b.Events)
		if err != nil {
			return "", err
		}
		breach := &Breach{Sent: describe(b), Got: "OK, with " + places(b.Events, missing) + " not written by then; audit_flush wrote it",
			Wanted: "all of it written before the answer: after OK it is never delivered again, and an instance may end without audit_flush",
			Change: "write what is held back before the answer, or answer PARTIAL with RETRY for it"}
		if still != nil {
			breach.Got = "OK, with " + places(b.Events, missing) + " not written by then; audit_flush answered " + flushed.Outcome.String() + " and did not write it either"
		}
		return "", breach
	}
	if len(k.usual) == 0 {
		return "", inapplicable("nothing of what it stores can be seen")
	}
	return "", w.fresh(ctx)
}

// order delivers ids that descend: a sink that sorts them is not in order.
func order(ctx context.Context, k *kit) (string, error) {
	if len(k.usual) == 0 {
		return "", inapplicable("nothing of what it stores can be seen")
	}
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	var want []string
	for range 2 {
		events := k.batch(64).Events
		for i := range len(events) / 2 {
			a, z := &events[i], &events[len(events)-1-i]
			a.Seq, z.Seq = z.Seq, a.Seq
			*a, *z = *z, *a
		}
		for i := range events {
			want = append(want, events[i].ID)
		}
		if err := w.accept(ctx, k.batchOf(events)); err != nil {
			return "", err
		}
	}
	seen, at := map[string]bool{}, 0
	var got []string
	for _, id := range w.written() {
		if !seen[id] {
			seen[id] = true
			got = append(got, id)
		}
	}
	if got == nil {
		return "", inapplicable("what it writes to has no order")
	}
	for ; at < len(got) && got[at] == want[at]; at++ {
	}
	if at < len(got) {
		return "", &Breach{Sent: "two batches of 64 events whose ids are in no order", Got: fmt.Sprintf("as number %d of what was written the event that came as number %d", at+1, slices.Index(want, got[at])+1),
			Wanted: "the order of the batch, and batch after batch", Change: "a map that is ranged over, a sort, or writing from the end"}
	}
	return "", nil
}

// written lists the ids in the order in which they were written. The host knows
// what was handed to a capability; of a batch that was sent compressed, only
// the server does.
func (w *world) written() []string {
	if len(w.order) > 0 {
		return w.order
	}
	var list []string
	for _, b := range w.k.server.inOrder() {
		eachMark(b, func(id string) { list = append(list, id) })
	}
	return list
}
