package main

import (
	"context"
	_ "embed" // the guests
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	extism "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/sign"
)

// What it costs to hand a batch over to a guest that does nothing with it: the
// bytes are in its memory, it reads how many events there are and says so.

// The guests, assembled by wat2wasm from the files beside these; that of ours has
// got its manifest by audit-host plugin manifest.
var (
	//go:embed guests/audit.hex
	auditGuest string
	//go:embed guests/bare.hex
	bareGuest string
	//go:embed guests/extism.hex
	extismGuest string
)

func guestBytes(text string) ([]byte, error) {
	return hex.DecodeString(strings.Join(strings.Fields(text), ""))
}

// handoverEvents are in a batch, and so many batches are handed over.
const (
	handoverEvents  = 256
	handoverBatches = 5_000
)

// events reads n events from a file and seals them.
func events(path string, n int, sealer *sign.Sealer) ([]abi.Event, error) {
	list := make([]abi.Event, 0, n)
	err := lines(path, func(line []byte) error {
		e, _, err := event.ParseNative(line, event.Options{})
		if err != nil {
			return err
		}
		e.Seq = uint64(len(list) + 1)
		sealer.Seal(&e)
		if list = append(list, e); len(list) == n {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err == nil && len(list) < n {
		err = fmt.Errorf("%d events are wanted, give -events that many", n)
	}
	return list, err
}

// handedOver measures deliver, which hands over a batch of which frame is the
// encoded form.
func handedOver(open func(ctx context.Context, wasmCache string) (deliver func(*abi.Batch, []byte) error, stop func() error, err error)) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, _ string) (_ []value, err error) {
		list, err := events(b.minted, handoverEvents, sign.NewSealer(nil))
		if err != nil {
			return nil, err
		}
		batch := &abi.Batch{ID: 1, Attempt: 1, Queue: [16]byte{1}, Events: list}
		frame := make([]byte, (batch.Size()+7)&^7)
		batch.Encode(frame)
		deliver, stop, err := open(ctx, b.cache)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		elapsed, used := stopwatch(), ownCPU()
		for range handoverBatches {
			if err := deliver(batch, frame); err != nil {
				return nil, err
			}
		}
		const n = handoverBatches * handoverEvents
		return []value{{"", elapsed().Seconds() * 1e9 / n, "ns/event"}, {".cpu", (ownCPU() - used) * 1e9 / n, "ns/event"}}, nil
	}
}

// handOurs has the host frame the batch and call the metered guest.
func handOurs(ctx context.Context, _ string) (func(*abi.Batch, []byte) error, func() error, error) {
	wasm, err := guestBytes(auditGuest)
	if err != nil {
		return nil, nil, err
	}
	s, err := host.Open(ctx, wasm, host.Options{Name: "nothing"})
	if err != nil {
		return nil, nil, err
	}
	return func(b *abi.Batch, _ []byte) error {
		if r := s.Deliver(ctx, b); r.Outcome != abi.OK {
			return fmt.Errorf("the guest answered %s: %s", r.Outcome, r.Detail)
		}
		return nil
	}, func() error { return s.Close(ctx) }, nil
}

// handBare writes the frame into the guest's memory and calls it.
func handBare(ctx context.Context, _ string) (func(*abi.Batch, []byte) error, func() error, error) {
	wasm, err := guestBytes(bareGuest)
	if err != nil {
		return nil, nil, err
	}
	r := wazero.NewRuntime(ctx)
	stop := func() error { return r.Close(ctx) }
	m, err := r.Instantiate(ctx, wasm)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	at, err := m.ExportedFunction("inbox").Call(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	deliver := m.ExportedFunction("deliver")
	var stack [1]uint64
	return func(b *abi.Batch, frame []byte) error {
		if !m.Memory().Write(uint32(at[0]), frame) {
			return errors.New("the batch does not fit")
		}
		stack[0] = uint64(len(frame))
		if err := deliver.CallWithStack(ctx, stack[:]); err != nil || stack[0] != uint64(len(b.Events)) {
			return fmt.Errorf("the guest saw %d events: %w", stack[0], err)
		}
		return nil
	}, stop, nil
}

// handExtism calls an Extism plugin with the frame as its input.
func handExtism(ctx context.Context, _ string) (func(*abi.Batch, []byte) error, func() error, error) {
	wasm, err := guestBytes(extismGuest)
	if err != nil {
		return nil, nil, err
	}
	p, err := extism.NewPlugin(ctx, extism.Manifest{Wasm: []extism.Wasm{extism.WasmData{Data: wasm}}}, extism.PluginConfig{}, nil)
	if err != nil {
		return nil, nil, err
	}
	return func(_ *abi.Batch, frame []byte) error {
		if code, _, err := p.CallWithContext(ctx, "deliver", frame); err != nil || code != 0 {
			return fmt.Errorf("the plugin answered %d: %w", code, err)
		}
		return nil
	}, func() error { return p.Close(ctx) }, nil
}
