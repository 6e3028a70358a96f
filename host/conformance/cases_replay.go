package conformance

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/audit-host/audit-host/abi"
)

// replay delivers the same frames in two worlds and compares what the plugin
// asks for.
func replay(ctx context.Context, k *kit) (string, error) {
	for _, c := range []string{abi.CapabilityNow, abi.CapabilityRandom} {
		if slices.Contains(k.manifest.Capabilities, c) {
			return "", inapplicable("the plugin is granted " + c + ", and may use it")
		}
	}
	batches := []*abi.Batch{k.batch(1), k.batch(16), k.batch(64), k.batch(3)}
	batches = append(batches, again(batches[3]))
	type turn struct {
		outcome string
		asks    int
		digest  string
	}
	var runs [2][]turn
	for i := range runs {
		w, err := k.openWorld(ctx, nil)
		if err != nil {
			return "", err
		}
		for _, b := range batches {
			r := w.deliver(ctx, b)
			runs[i] = append(runs[i], turn{answered(r), len(w.asks), hex.EncodeToString(w.digest.Sum(nil))})
		}
		w.close(ctx)
	}
	for i := range batches {
		a, b := runs[0][i], runs[1][i]
		if a == b {
			continue
		}
		got := fmt.Sprintf("%s with %d calls of capabilities, and %s with %d", a.outcome, a.asks, b.outcome, b.asks)
		if a.outcome == b.outcome && a.asks == b.asks {
			got = a.outcome + " both times, with other contents in the calls of capabilities"
		}
		return "", &Breach{Sent: fmt.Sprintf("batch %d of 5, after the same batches in the same world twice", i+1), Got: got,
			Wanted: "the same calls with the same bytes, and the same outcome",
			Change: "what is asked of others although it was not granted: random() and CURRENT_TIMESTAMP in SQL, a server's date, the address of something"}
	}
	return fmt.Sprintf("%d batches", len(batches)), nil
}

// closing flushes, closes, and opens again what is there.
func closing(ctx context.Context, k *kit) (string, error) {
	w, err := k.openWorld(ctx, nil)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	first := k.batch(8)
	if err := w.accept(ctx, first); err != nil {
		return "", err
	}
	if r := w.sink.Flush(ctx); r.Outcome != abi.OK {
		return "", misanswer("audit_flush, behind a batch that was OK", r, "OK")
	}
	w.ended(true)
	err = w.sink.Close(ctx)
	w.sink = nil
	if err != nil {
		return "", &Breach{Sent: "audit_flush and audit_close, behind a batch that was OK", Got: err.Error(), Wanted: "OK from both", Change: "audit_flush or audit_close"}
	}
	if err := w.all(ctx, first.Events, "a batch of 8 events, audit_flush, audit_close", "what audit_close throws away"); err != nil {
		return "", ruled(err, "R20")
	}
	if err := w.open(ctx, nil); err != nil {
		return "", err
	}
	second := k.batch(8)
	if err := w.accept(ctx, second); err != nil {
		return "", named(err, "a sink that was closed and opened again where it had been")
	}
	events := append(append([]abi.Event(nil), first.Events...), second.Events...)
	return "", w.all(ctx, events, "a batch of 8 events, audit_close, and another 8 to a sink that was opened again", "what audit_open assumes of the place that it writes to: it may have been there before")
}
