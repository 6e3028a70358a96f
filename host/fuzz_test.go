package host

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// mutations of a module are pairs of an offset (u16, scaled to the module)
// and what is done there.
func mutate(wasm, how []byte) []byte {
	out := append([]byte(nil), wasm...)
	for len(how) >= 4 && len(out) > 0 {
		at := int(binary.LittleEndian.Uint16(how)) % len(out)
		v := how[3]
		switch how[2] % 5 {
		case 0:
			out[at] = v
		case 1:
			out[at] ^= 1 << (v % 8)
		case 2:
			out = append(out[:at], out[min(len(out), at+1+int(v)%16):]...)
		case 3:
			out = append(out[:at], append([]byte{v}, out[at:]...)...)
		case 4: // a piece of the module again
			n := min(len(out)-at, 1+int(v)%64)
			out = append(out, out[at:at+n]...)
		}
		how = how[4:]
	}
	return out
}

// fuzzSeeds are modules to begin with: the hostile ones and some that use
// every section.
func fuzzSeeds() [][]byte {
	seeds := [][]byte{nil, []byte("\x00asm"), []byte("\x00asm\x01\x00\x00\x00"), guestModule{}.bytes()}
	for _, c := range hostileGuests() {
		seeds = append(seeds, c.guest.bytes())
	}
	seeds = append(seeds, guestModule{
		imports: [][]byte{imported("audit", "verdict", typFour), imported(wasiModule, "fd_write", typWASI4)},
		change: func(m *wasmtest.Module) {
			m.Globals = [][]byte{cat(op(0x7f, 1), i32c(7), op(0x0b))}
			m.Elems = [][]byte{cat(op(0), i32c(0), op(0x0b), vec(leb(2)))}
			m.Data = [][]byte{cat(op(0), i32c(64), op(0x0b), str("text")), cat(op(1), str("passive"))}
			m.Tables = [][]byte{{0x70, 1, 1, 9}, {0x6f, 0, 3}}
			m.Custom["name"] = cat(op(1), leb(6), vec(cat(leb(2), str("abc"))))
		},
	}.bytes())
	return seeds
}

// FuzzOpen: whatever the bytes, Open and the deliveries after it return; no
// panic, no hang, and an outcome that the ABI knows.
func FuzzOpen(f *testing.F) {
	seeds := fuzzSeeds()
	if len(seeds) < 30 {
		f.Fatalf("%d seeds", len(seeds))
	}
	for i, s := range seeds {
		f.Add(s, []byte{}, i%2 == 0)
		f.Add(s, []byte{byte(i * 7), byte(i), byte(i), byte(i * 31)}, i%2 == 1)
	}
	f.Fuzz(func(t *testing.T, wasm, how []byte, interpreter bool) {
		if len(wasm) > 64<<10 || len(how) > 64 {
			return
		}
		o := Options{Name: "fuzz", Fuel: 200_000, Stack: 64 << 10, Memory: 4 << 20, Deadline: time.Second, Interpreter: interpreter}
		s, err := Open(context.Background(), mutate(wasm, how), o)
		if err != nil {
			if s != nil || err.Error() == "" {
				t.Fatalf("a sink beside the error %v", err)
			}
			return
		}
		for n := 1; n <= 3; n++ {
			r := s.Deliver(context.Background(), batchOf(n, "x"))
			if r.Outcome > abi.Busy && !r.Outcome.HostMade() || r.Outcome > abi.BadABI {
				t.Errorf("outcome %v", r.Outcome)
			}
			if r.Outcome == abi.HostPanic {
				t.Errorf("the host panicked: %s", r.Detail)
			}
			if r.Outcome == abi.Partial && len(r.Verdicts) != n {
				t.Errorf("%d verdicts for %d events", len(r.Verdicts), n)
			}
			if r.Outcome.HostMade() != (s.inst == nil) && r.Outcome != abi.Busy && r.Outcome != abi.Retry {
				t.Errorf("%v, instance lives: %t", r.Outcome, s.inst != nil)
			}
		}
		_ = s.Close(context.Background()) // may tell that the guest failed
	})
}
