package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
)

// Advice that several cases give.
const (
	idempotence = "look an event's id up, or have the store refuse a second one; and count what was there before as stored"
	comeAgain   = "what is remembered of a batch whose end is unknown: a fresh instance remembers nothing, and looks"
)

// twice delivers events twice in one batch.
func twice(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	events := k.batch(4).Events
	double := append(append(events[:2:2], events[0]), events[2:]...)
	double = append(double, events[3])
	sent := "a batch of 6 events: first, second, first again, third, fourth, fourth again"
	return w.repeated(ctx, double, events, sent)
}

// repeated delivers a batch with events that were there before and looks that
// they are stored as often as they should be.
func (w *world) repeated(ctx context.Context, batch, events []abi.Event, sent string) (string, error) {
	b := w.k.batchOf(batch)
	w.displace(b)
	r := w.deliver(ctx, b)
	if r.Outcome != abi.OK {
		breach := misanswer(sent, r, fmt.Sprintf("OK(%d): a second delivery is stored too", len(batch)))
		if breach.Rule == "" || breach.Rule == "R5" {
			breach.Change = idempotence
		}
		return "", breach
	}
	return w.noteDoubled(ctx, events), w.all(ctx, events, sent, idempotence)
}

// displace takes the positions away if the sink has a kv store: by them the host
// would keep a second delivery from it (R17). Dead letters that are replayed have
// none either.
func (w *world) displace(b *abi.Batch) {
	if !slices.Contains(w.k.manifest.Capabilities, abi.CapabilityKV) {
		return
	}
	b.Queue = [16]byte{}
	for i := range b.Events {
		b.Events[i].Seq = 0
	}
}

// noteDoubled tells what a sink does that does not claim to be idempotent.
func (w *world) noteDoubled(ctx context.Context, events []abi.Event) string {
	if _, doubled, err := w.compare(ctx, events); err == nil && doubled != nil && !w.k.manifest.Idempotent {
		return "events are there twice then; the manifest says so: idempotent = false"
	}
	return ""
}

// later delivers events that were stored again, to the same instance and to
// a fresh one, alone and among others.
func later(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	events := k.batch(5).Events
	if err := w.accept(ctx, k.batchOf(append([]abi.Event(nil), events...))); err != nil {
		return "", err
	}
	note := ""
	for _, c := range []struct {
		sent  string
		fresh bool
		batch []abi.Event
	}{
		{"a batch of 5 events, and the same events in another batch", false, append([]abi.Event(nil), events...)},
		{"a batch of 5 events, and three of them among four new ones in a later batch", false, mixed(k, events)},
		{"a batch of 5 events, and three of them among four new ones in a batch for a fresh instance", true, mixed(k, events)},
	} {
		if c.fresh {
			if err := w.fresh(ctx); err != nil {
				return "", err
			}
		}
		whole := append(append([]abi.Event(nil), events...), c.batch...)
		n, err := w.repeated(ctx, c.batch, whole, c.sent)
		if err != nil {
			return "", err
		}
		note = n
	}
	return note, nil
}

func mixed(k *kit, old []abi.Event) []abi.Event {
	events := k.batch(4).Events
	return []abi.Event{events[0], old[0], events[1], old[4], events[2], old[2], events[3]}
}

// lostAnswer has the instance end behind its answer, before anybody has noted it.
func lostAnswer(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	for _, n := range []int{1, 7} {
		b := k.batch(n)
		w.displace(b)
		if err := w.accept(ctx, b); err != nil {
			return "", err
		}
		if err := w.fresh(ctx); err != nil {
			return "", err
		}
		sent := describe(b) + ", answered with OK, and the same once more to a fresh instance"
		if err := w.pump(ctx, again(b)); err != nil {
			return "", named(err, sent)
		}
		if err := w.all(ctx, b.Events, sent, idempotence); err != nil {
			return "", err
		}
	}
	return "", nil
}

// named says of a breach what was sent in more words.
func named(err error, sent string) error {
	var b *Breach
	if errors.As(err, &b) {
		b.Sent = sent + ": " + b.Sent
	}
	return err
}

// maxPoints bounds how many calls of a batch are made to fail, each in its turn.
const maxPoints = 24

// killed ends instances before and behind each call of a capability, of a batch
// that is the first of its instance and of a later one.
func killed(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	if !k.visible() {
		return "", inapplicable("the plugin calls no capability")
	}
	points := 0
	for _, warm := range []bool{false, true} {
		for at := range maxPoints {
			for _, kind := range []host.FaultKind{host.FaultKillBefore, host.FaultKillAfter} {
				if err := w.ready(ctx, warm); err != nil {
					return "", err
				}
				b := k.batch(5)
				w.strike(at, host.Fault{Kind: kind})
				w.deliver(ctx, b)
				w.calm()
				if !w.struck {
					break
				}
				points++
				sent := fmt.Sprintf("a batch of 5 events; the instance ended %s its call %d, %s; the batch again, attempt 2, to a fresh instance",
					map[host.FaultKind]string{host.FaultKillBefore: "before", host.FaultKillAfter: "behind"}[kind], at+1, w.asks[at].function)
				if err := w.pump(ctx, again(b)); err != nil {
					return "", named(err, sent)
				}
				if err := w.all(ctx, b.Events, sent, comeAgain); err != nil {
					return "", err
				}
			}
		}
	}
	return fmt.Sprintf("%d points", points), nil
}

// ready makes a fresh instance, or one that has stored a batch already.
func (w *world) ready(ctx context.Context, warm bool) error {
	if !warm {
		return w.fresh(ctx)
	}
	return w.accept(ctx, w.k.batch(2))
}

// stopped takes the fuel away at points of a batch, wherever they are.
func stopped(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	if err := w.accept(ctx, k.batch(5)); err != nil {
		return "", err
	}
	if err := w.accept(ctx, k.batch(5)); err != nil {
		return "", err
	}
	spent, ok, err := w.bench.Spent(ctx)
	if err != nil || !ok {
		return "", fmt.Errorf("no instance behind an OK: %w", err)
	}
	const points = 16
	ended := 0
	for i := range int64(points) {
		if err := w.accept(ctx, k.batch(5)); err != nil { // an instance that is warm
			return "", err
		}
		b := k.batch(5)
		if err := w.bench.Limit(ctx, max(1, spent.Fuel*(2*i+1)/(2*points)), 0); err != nil {
			return "", err
		}
		r := w.deliver(ctx, b)
		if err := w.bench.Limit(ctx, 0, 0); err != nil {
			return "", err
		}
		if r.Outcome == abi.OK {
			continue // this one took less
		}
		ended++
		sent := fmt.Sprintf("a batch of 5 events; the instance was stopped after %d%% of its work; the batch again, attempt 2, to a fresh instance", 100*(2*i+1)/(2*points))
		if err := w.pump(ctx, again(b)); err != nil {
			return "", named(err, sent)
		}
		if err := w.all(ctx, b.Events, sent, comeAgain); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d points", ended), nil
}
