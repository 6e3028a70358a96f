package conformance

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
)

const page = 64 << 10

// refusedMemory lets the memory of an instance grow by k pages and no further,
// for k from 0 on until a batch is stored.
func refusedMemory(ctx context.Context, k *kit) (string, error) {
	if runtime.GOOS == "windows" {
		return "", inapplicable("the host can't refuse memory on this system")
	}
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	const pages = host.DefaultMemory / page
	for n := range int64(pages) {
		if err := w.fresh(ctx); err != nil {
			return "", err
		}
		if err := w.bench.Limit(ctx, 0, max(1, n*page)); err != nil { // 0 would be no limit
			return "", err
		}
		events := make([]abi.Event, 5)
		for i := range events {
			events[i] = k.event(16 << 10)
		}
		b := k.batchOf(events)
		r := w.deliver(ctx, b)
		if err := w.bench.Limit(ctx, 0, 0); err != nil {
			return "", err
		}
		sent := fmt.Sprintf("a batch of 5 events of 16 KiB, with memory.grow refused beyond %d pages", n)
		switch r.Outcome {
		case abi.OK:
			return fmt.Sprintf("a batch of 80 KiB is stored with %d pages more than the module begins with", n), w.all(ctx, events, sent, "what is done when there is no memory")
		case abi.BadABI, abi.Fuel, abi.Deadline:
			return "", misanswer(sent, r, "a trap, BUSY or RETRY: nothing that looks like an answer, and no endless loop")
		case abi.Reject:
			continue // it may be that it never fits
		}
		if n%8 != 0 {
			continue // what follows is the same for the most part
		}
		if err := w.fresh(ctx); err != nil {
			return "", err
		}
		if err := w.pump(ctx, again(b)); err != nil {
			return "", named(err, sent+"; then with memory")
		}
		if err := w.all(ctx, events, sent+"; then again, with memory", comeAgain); err != nil {
			return "", err
		}
	}
	return "", &Breach{Sent: fmt.Sprintf("a batch of 5 events of 16 KiB, with up to %d pages of memory", pages), Got: "never OK", Wanted: "OK within memory_limit's default of 64 MiB", Change: "how much memory a batch takes"}
}

// fuel measures the work of batches of growing sizes.
func fuel(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	if err := w.accept(ctx, k.batch(1024)); err != nil { // buffers have their size now
		return "", err
	}
	sizes := []int{1, 16, 256, 1024}
	least := make([]int64, len(sizes))
	for i, n := range sizes {
		for range 3 {
			b := k.batch(n)
			if err := w.accept(ctx, b); err != nil {
				return "", err
			}
			spent, ok, err := w.bench.Spent(ctx)
			if err != nil || !ok {
				return "", fmt.Errorf("no instance behind an OK: %w", err)
			}
			if least[i] == 0 || spent.Fuel < least[i] {
				least[i] = spent.Fuel
			}
		}
	}
	// What an event more costs, in small batches and in large ones.
	small := float64(least[2]-least[1]) / float64(sizes[2]-sizes[1])
	large := float64(least[3]-least[2]) / float64(sizes[3]-sizes[2])
	note := fmt.Sprintf("%d units for one event, %.0f an event in a batch of 1,024", least[0], float64(least[3])/1024)
	if large > 2.5*max(small, 1)+50 {
		return "", &Breach{Sent: "batches of 16, 256 and 1,024 events",
			Got:    fmt.Sprintf("%d, %d and %d units of fuel: an event more costs %.0f units below 256 events and %.0f above", least[1], least[2], least[3], small, large),
			Wanted: "about the same for each event more", Change: "what is searched or copied anew for each event of the batch"}
	}
	return note, nil
}

// longest bounds the time of the endurance case, for a disk that syncs slowly, but
// fewest batches there are.
const (
	longest = 10 * time.Second
	fewest  = 1000
)

// slack is what a collector may let memory grow by before it begins in earnest,
// in bytes: Go's does nothing before 4 MiB.
const slack = 8 << 20

// endurance delivers many small batches and looks at the memory.
func endurance(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	total := k.o.Batches
	every := max(1, total/100)
	var sizes []uint64 // of memory, after each so many batches
	begin := time.Now()
	done := 0
	for ; done < total && (done < fewest || time.Since(begin) < longest); done++ {
		if r := w.deliver(ctx, k.batch(2)); r.Outcome != abi.OK {
			if ctx.Err() != nil {
				return "", context.Cause(ctx)
			}
			breach := misanswer(fmt.Sprintf("batch %d of 2 events each", done+1), r, "OK, as for those before")
			if r.Outcome == abi.Memory {
				breach.Rule = "R23"
			}
			return "", breach
		}
		w.forget()
		if (done+1)%every != 0 {
			continue
		}
		spent, ok, err := w.bench.Spent(ctx)
		if err != nil || !ok {
			return "", fmt.Errorf("no instance behind an OK: %w", err)
		}
		sizes = append(sizes, spent.Memory)
	}
	took := time.Since(begin)
	// The first fifth is for buffers and the collector to find their size.
	n := len(sizes)
	first, middle, last := sizes[n/5], sizes[n*3/5], sizes[n-1]
	if last > middle && middle > first && last-first >= 1<<20 && last-sizes[0] >= slack {
		return "", &Breach{Sent: fmt.Sprintf("%d batches of 2 events", done),
			Got: fmt.Sprintf("%d KiB of memory after a fifth of them, %d KiB after three fifths, %d KiB at the end: about %d bytes a batch",
				first>>10, middle>>10, last>>10, int(last-first)/(done*4/5)),
			Wanted: "as much at the end as after the first fifth", Change: "what is kept for each batch or event; in Go without the SDK, that each export yields once (runtime.Gosched) so that the collector gets on"}
	}
	note := fmt.Sprintf("%d batches, %d KiB at the end, %.0f batches a second", done, last>>10, float64(done)/took.Seconds())
	if done < total {
		note += fmt.Sprintf("; of %d, for this took %s", total, longest)
	}
	return note, nil
}

// forget drops what was written, of which endurance makes too much.
func (r *recorder) forget() { r.order, r.synced, r.stray = nil, nil, nil }
