package conformance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"github.com/audit-host/audit-host/abi"
)

// wideNumbers delivers numbers that are negative to whoever takes them for
// signed, and 0 to whoever cuts them to 32 bits.
func wideNumbers(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	for _, c := range []struct {
		what string
		make func(*abi.Batch)
	}{
		{"attempt 2147483653", func(b *abi.Batch) { b.Attempt = 1<<31 + 5 }},
		{"the batch id 2^63 + 9", func(b *abi.Batch) { b.ID = 1<<63 + 9 }},
		{"positions from 2^31 on", func(b *abi.Batch) { number(b, 1<<31) }},
		{"positions from 2^32 on", func(b *abi.Batch) { number(b, 1<<32) }},
		{"positions from 2^40 on", func(b *abi.Batch) { number(b, 1<<40) }},
	} {
		b := k.batch(3)
		c.make(b)
		sent := "a batch of 3 events with " + c.what
		r := w.deliver(ctx, b)
		const change = "what type the number is read with: u32 and u64, never signed, never cut"
		if r.Outcome != abi.OK {
			breach := misanswer(sent, r, "OK")
			breach.Rule, breach.Change = "R18", change
			return "", breach
		}
		if err := w.all(ctx, b.Events, sent, change); err != nil {
			return "", ruled(err, "R18")
		}
	}
	return "", nil
}

// otherSizes delivers frames as a later version of the ABI writes them: header and
// entries are larger, and hold what this one does not know.
func otherSizes(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	for _, more := range [][2]int{{0, 8}, {8, 0}, {16, 64}, {1000, 2000}} {
		b := k.batch(5)
		frame := make([]byte, b.Size())
		b.Encode(frame)
		header, entry := place("HeaderSize")+more[0], place("EntrySize")+more[1]
		frame = abi.Resize(frame, header, entry, 0xff)
		w.begin()
		r := w.bench.Frame(ctx, len(frame), len(b.Events), func(dst []byte) { copy(dst, frame) })
		w.ended(r.Outcome == abi.OK)
		sent := fmt.Sprintf("a frame of 5 events with a header of %d bytes and entries of %d", header, entry)
		const change = "the header ends, and the next entry begins, where the sizes in the header say; what is beyond the known bytes is ignored"
		if r.Outcome != abi.OK {
			breach := misanswer(sent, r, "OK")
			breach.Rule, breach.Change = "R26", change
			return "", breach
		}
		if err := w.all(ctx, b.Events, sent, change); err != nil {
			return "", ruled(err, "R26")
		}
	}
	return "", nil
}

func number(b *abi.Batch, from uint64) {
	for i := range b.Events {
		b.Events[i].Seq = from + uint64(i)
	}
}

// ruled gives a breach another rule.
func ruled(err error, rule string) error {
	var b *Breach
	if errors.As(err, &b) {
		b.Rule = rule
	}
	return err
}

// sign is the first address, and the first size, that is negative as an i32.
const sign = 1 << 31

// highMemory delivers a frame of which a part lies beyond 2^31. The frame has
// a hole that nobody reads, so that no memory is taken for it.
func highMemory(ctx context.Context, k *kit) (string, error) {
	if runtime.GOOS == "windows" {
		return "", inapplicable("on this system memory that is not touched takes room too, and this case would take gigabytes")
	}
	w, err := k.bigWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	size, err := w.climb(ctx)
	if err != nil {
		return "", err
	}
	if size == 0 {
		return "", inapplicable("its inbox is never so large that a frame reaches beyond 2^31: nothing was refused by the host")
	}
	b := k.batch(5)
	r := w.bench.Frame(ctx, size, len(b.Events), func(dst []byte) { putWithHole(dst, b) })
	w.ended(r.Outcome == abi.OK)
	spent, _, err := w.bench.Spent(ctx)
	if err != nil {
		return "", err
	}
	sent := fmt.Sprintf("a frame of 5 events and %d bytes, whose texts lie behind address 2^31", size)
	const change = "pointers that are read or compared as signed numbers: an address is a u32 (uintptr, size_t), a difference of addresses too"
	switch r.Outcome {
	case abi.OK:
	case abi.Memory:
		return "", inapplicable("a frame of " + fmt.Sprint(size) + " bytes is too much for it: " + r.Detail)
	default:
		breach := misanswer(sent, r, "OK, as for the same events at a lower address")
		breach.Rule, breach.Change = "R18", change
		return "", breach
	}
	if err := w.all(ctx, b.Events, sent, change); err != nil {
		return "", ruled(err, "R18")
	}
	return fmt.Sprintf("inbox at %#x, texts at %#x", spent.Inbox, int(spent.Inbox)+size-b.Size()), nil
}

// climb has the guest's inbox lie so high that a frame of the size that it
// returns ends far beyond 2^31; 0 if the guest does not get there. A guest whose
// memory is handed out by memory.grow goes on where the host has grown it to;
// one that counts its memory itself gets there by inboxes that do not fit into
// the space of those before.
func (w *world) climb(ctx context.Context) (int, error) {
	const most = abi.MaxFrame
	for _, way := range []struct {
		raise uint64
		sizes []int
	}{{sign - 256<<20, []int{most / 2, most}}, {0, []int{most / 3, most * 3 / 4, most}}, {sign, []int{64 << 20, 512 << 20}}} {
		if err := w.fresh(ctx); err != nil {
			return 0, err
		}
		if err := w.accept(ctx, w.k.batch(2)); err != nil {
			return 0, err
		}
		if err := w.bench.Raise(ctx, way.raise); err != nil {
			return 0, err
		}
		for _, n := range way.sizes {
			if r := w.bench.Frame(ctx, n, 0, nil); r.Outcome != abi.OK {
				break // no memory, or no larger inbox
			}
			spent, ok, err := w.bench.Spent(ctx)
			if err != nil {
				return 0, err
			}
			if ok && uint64(spent.Inbox)+uint64(n) >= sign+1<<20 {
				return n, nil
			}
		}
	}
	return 0, nil
}

// putWithHole writes a frame that is as long as dst: header and entries at its
// beginning, texts and payloads at its end.
func putWithHole(dst []byte, b *abi.Batch) {
	small := make([]byte, b.Size())
	b.Encode(small)
	le, header, entry := binary.LittleEndian, place("HeaderSize"), place("EntrySize")
	front := header + len(b.Events)*entry
	hole := uint32(len(dst) - len(small))
	copy(dst[len(dst)-(len(small)-front):], small[front:])
	for i := range b.Events {
		x := small[header+i*entry:]
		for at := place("EntryID"); at <= place("EntryPayload"); at += 8 {
			le.PutUint32(x[at:], le.Uint32(x[at:])+hole)
		}
	}
	le.PutUint32(small[place("HeaderPayload"):], le.Uint32(small[place("HeaderPayload"):])+hole)
	le.PutUint32(small[place("HeaderTotal"):], uint32(len(dst)))
	copy(dst, small[:front])
}

// place is a number of the frame's layout.
func place(name string) int {
	for _, p := range abi.Layout() {
		if p.Name == name {
			return int(p.Value)
		}
	}
	panic("conformance: the layout has no " + name)
}
