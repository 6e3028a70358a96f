package sdk

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/appendfile"
)

// bare runs a module without the host of this project: it writes what the host
// never would.
type bare struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

func openBare(t *testing.T, wasm []byte) *bare {
	t.Helper()
	ctx := t.Context()
	b := &bare{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())}
	t.Cleanup(func() { _ = b.runtime.Close(context.Background()) })
	zero := func(_ context.Context, _ api.Module, stack []uint64) {
		if len(stack) > 0 {
			stack[0] = 0
		}
	}
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	stub := func(m wazero.HostModuleBuilder, name string, params int, result ...api.ValueType) wazero.HostModuleBuilder {
		var types []api.ValueType
		for range params {
			types = append(types, i32)
		}
		return m.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(zero), types, result).Export(name)
	}
	audit := b.runtime.NewHostModuleBuilder(abi.ImportModule)
	if _, err := stub(stub(audit, abi.ImportVerdict, 4), abi.ImportAppend, 2, i64).Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := stub(b.runtime.NewHostModuleBuilder("wasi_snapshot_preview1"), "fd_write", 4, i32).Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.compiled, err = b.runtime.CompileModule(ctx, wasm); err != nil {
		t.Fatal(err)
	}
	return b
}

// deliver hands a frame to a fresh instance. said may be another length than the
// frame's.
func (b *bare) deliver(t *testing.T, frame []byte, said int) (uint64, error) {
	t.Helper()
	ctx := t.Context()
	mod, err := b.runtime.InstantiateModule(ctx, b.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions(abi.ExportInitialize))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mod.Close(ctx) }()
	send := func(name string, data []byte, n int) (uint64, error) {
		at, err := mod.ExportedFunction(abi.ExportReserve).Call(ctx, uint64(len(data)))
		if err != nil || at[0] == 0 || !mod.Memory().Write(uint32(at[0]), data) {
			t.Fatalf("%s: %v %v", abi.ExportReserve, at, err)
		}
		answer, err := mod.ExportedFunction(name).Call(ctx, uint64(n))
		if err != nil {
			return 0, err
		}
		return answer[0], nil
	}
	if a, err := send(abi.ExportOpen, []byte("{}"), 2); err != nil || a != abi.Answer(abi.OK, abi.ReasonOther, 0) {
		t.Fatalf("%s: %#x %v", abi.ExportOpen, a, err)
	}
	return send(abi.ExportDeliver, frame, said)
}

// TestMalformedFrames: whatever package abi does not take for a frame traps, and
// the rest is delivered.
func TestMalformedFrames(t *testing.T) {
	good := probed()
	raw := make([]byte, good.Size())
	good.Encode(raw)
	total := uint32(len(raw))
	header, entry := map[string]int{}, map[string]int{}
	for _, p := range abi.Layout() {
		switch name, of, _ := cutHeader(p.Name); of {
		case "Header":
			header[name] = int(p.Value)
		case "Entry":
			entry[name] = int(p.Value)
		}
	}
	entrySize := int(binary.LittleEndian.Uint16(raw[header["EntrySize"]:]))
	// The sizes: two of 16 bits.
	places := map[string]int{"magic": header["Magic"], "sizes": header["HeaderSize"], "count": header["Count"], "total": header["Total"],
		"payload offset": header["Payload"], "payload length": header["Payload"] + 4}
	for i := range good.Events {
		for _, name := range []string{"ID", "Agent", "Type", "Timestamp", "KeyID", "Level", "Payload"} {
			at := 64 + i*entrySize + entry[name]
			places[fmt.Sprint(name, " offset of event ", i)], places[fmt.Sprint(name, " length of event ", i)] = at, at+4
		}
	}
	values := []uint32{0, 1, 63, 64, 64 + uint32(len(good.Events)*entrySize) - 1, 64 + uint32(len(good.Events)*entrySize), total - 1, total, total + 1,
		0x7fffffff, 0x80000000, 0x80000000 + total, 0xffffffff, 0xffffffff - total, 0xffffffc0, 0x01000000, 64 | 200<<16, 64 | 208<<16, 65 | 200<<16, 63 | 200<<16, 64 | 199<<16, 0xffff | 200<<16, 64 | 0xffff<<16}
	each(t, func(t *testing.T, lang string) {
		b := openBare(t, example(t, lang))
		bad := 0
		for name, at := range places {
			for _, v := range values {
				frame := append([]byte(nil), raw...)
				binary.LittleEndian.PutUint32(frame[at:], v)
				view, wrong := abi.Parse(frame)
				answer, err := b.deliver(t, frame, len(frame))
				switch {
				case wrong != nil && err == nil:
					t.Errorf("%s = %#x: answered %#x, wanted a trap: %v", name, v, answer, wrong)
				case wrong == nil && (err != nil || answer != abi.Answer(abi.OK, abi.ReasonOther, uint32(view.Len()))):
					t.Errorf("%s = %#x is a frame: answered %#x, %v", name, v, answer, err)
				}
				if wrong != nil {
					bad++
				}
			}
		}
		for _, said := range []int{0, 1, 63, 64, len(raw) - 1, len(raw) + 1, 1 << 30, 1 << 31, 1<<32 - 1} {
			if answer, err := b.deliver(t, raw, said); err == nil {
				t.Errorf("a length of %d: answered %#x, wanted a trap", said, answer)
			}
		}
		if bad < 500 {
			t.Errorf("%d malformed frames only", bad)
		}
	})
}

// TestFramesOfAnotherVersion: larger headers and entries are read by the sizes in the
// frame, whatever the bytes are that the SDK does not know; smaller ones trap.
func TestFramesOfAnotherVersion(t *testing.T) {
	events := batch(0, 4, func(n int) string { return fmt.Sprint("payload ", n) })
	raw := make([]byte, events.Size())
	events.Encode(raw)
	var want strings.Builder
	for _, e := range events.Events {
		fmt.Fprintf(&want, "p %s\t%s\t%s\n", e.ID, e.EventType, e.Payload)
	}
	each(t, func(t *testing.T, lang string) {
		path := filepath.Join(t.TempDir(), "out")
		s := mustOpen(t, example(t, lang), host.Options{Config: []byte(`{"prefix":"p "}`), Append: &appendfile.Options{Path: path}})
		all := ""
		for _, size := range [][2]int{{64, 200}, {64, 208}, {72, 200}, {68, 212}, {1000, 3000}, {1<<16 - 1, 1<<16 - 1}} {
			frame := abi.Resize(raw, size[0], size[1], 0xff)
			if r := s.Bench().Frame(t.Context(), len(frame), len(events.Events), func(dst []byte) { copy(dst, frame) }); r.Outcome != abi.OK {
				t.Errorf("a header of %d and entries of %d bytes: %v %s", size[0], size[1], r.Outcome, r.Detail)
			}
			all += want.String()
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != all {
			t.Errorf("%v, got\n%s\nwanted\n%s", err, got, all)
		}
		b := openBare(t, example(t, lang))
		for _, size := range [][2]int{{64, 199}, {64, 192}, {64, 0}, {56, 200}, {0, 200}, {72, 192}} {
			frame := abi.Resize(raw, size[0], size[1], 0xff)
			if answer, err := b.deliver(t, frame, len(frame)); err == nil {
				t.Errorf("a header of %d and entries of %d bytes: answered %#x, wanted a trap", size[0], size[1], answer)
			}
		}
	})
}

// cutHeader splits HeaderCount into Count and Header.
func cutHeader(name string) (rest, of string, ok bool) {
	for _, of := range []string{"Header", "Entry"} {
		if rest, ok := strings.CutPrefix(name, of); ok && rest != "" && name != "HeaderSize" && name != "EntrySize" {
			return rest, of, true
		}
	}
	return "", "", false
}

// TestAboveHalf gives the examples a memory that begins with more than 2 GiB, so
// that every address they get is beyond 2^31.
func TestAboveHalf(t *testing.T) {
	const initial = 1<<31 + 16<<20
	linker := fmt.Sprintf("--initial-memory=%d", initial)
	flags := map[string]string{
		"c": "LDFLAGS=" + linker, "rust": "RUSTFLAGS=-Clink-arg=" + linker, "zig": "ZIGFLAGS=" + linker,
		"as": fmt.Sprintf("ASCFLAGS=--memoryBase %d --initialMemory %d", uint32(1)<<31, initial>>16),
	}
	each(t, func(t *testing.T, lang string) {
		wasm := build(t, project(t, lang), "example.wasm", flags[lang])
		path := filepath.Join(t.TempDir(), "out")
		s := mustOpen(t, wasm, host.Options{Memory: initial + 64<<20, Config: []byte(`{"prefix":"p "}`), Append: &appendfile.Options{Path: path}})
		var want strings.Builder
		for i := range 3 {
			payload := func(n int) string { return strings.Repeat("y", 1+i*500_000) + fmt.Sprint(n) }
			deliver(t, s, batch(10*i, 10*i+4, payload))
			for n := 10 * i; n <= 10*i+4; n++ {
				fmt.Fprintf(&want, "p id-%d\tgovernance.refusal\t%s\n", n, payload(n))
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want.String() {
			t.Errorf("%v, %d bytes, wanted %d", err, len(got), want.Len())
		}
	})
}
