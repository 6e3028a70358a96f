package host

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// hostileCase is a guest that misbehaves on a batch of one event and stores
// every other.
type hostileCase struct {
	name   string
	guest  guestModule
	want   abi.Outcome
	detail string // in Detail
	fuel   int64  // 0 for the default
}

const testDeadline = 150 * time.Millisecond

// hostileGuests are ended by what they do or by the meter, on either engine.
func hostileGuests() []hostileCase {
	bad := func(code ...[]byte) guestModule { return guestModule{deliver: when(1, cat(code...))} }
	with := func(imports [][]byte, code ...[]byte) guestModule {
		g := bad(code...)
		g.imports = imports
		return g
	}
	verdict := [][]byte{imported("audit", "verdict", typFour)}
	logs := [][]byte{imported("audit", "log", typThree)}
	say := func(index, code, msg, n int32) []byte {
		return cat(i32c(index), i32c(code), i32c(msg), i32c(n), callf(0))
	}
	wasi := func(name string, typ byte) [][]byte { return [][]byte{imported(wasiModule, name, typ)} }

	// Functions that call themselves; they are the first after the exports.
	twice := bad(i32c(60), callf(4))
	twice.more = []wasmtest.Func{{Type: typInt, Code: cat(
		arg0, op(0x45, 0x04, 0x40, 0x0f, 0x0b), arg0, i32c(1), op(0x6b), callf(4), arg0, i32c(1), op(0x6b), callf(4))}}
	down := bad(callf(4))
	down.more = []wasmtest.Func{{Type: typVoid, Code: callf(4)}}
	grow := bad(op(0x03, 0x40), i32c(64), op(0x40, 0), i32c(-1), op(0x47, 0x0d, 0, 0x0b), opUnreachable)
	fill := cat(i32c(0), i32c(7), i32c(32<<20), op(0xfc, 11, 0))

	const fuel = 500_000
	cases := []hostileCase{
		{"infinite loop", bad(forever()), abi.Fuel, "raise fuel", fuel},
		{"exponential recursion without a loop", twice, abi.Fuel, "raise fuel", fuel},
		{"4 GiB of memory.fill", bad(i32c(1022), op(0x40, 0, 0x1a), forever(fill)), abi.Fuel, "raise fuel", fuel},
		{"memory.fill past the end", bad(i32c(0), i32c(7), i32c(-1), op(0xfc, 11, 0)), abi.Trap, "out of bounds", 0},
		{"memory.copy past the end", bad(i32c(0), i32c(-5), i32c(10), op(0xfc, 10, 0, 0)), abi.Trap, "out of bounds", 0},
		{"unreachable", bad(opUnreachable), abi.Trap, "unreachable", 0},
		{"out of bounds", bad(i32c(-1), op(0x28, 2, 0, 0x1a)), abi.Trap, "out of bounds", 0},
		{"division by zero", bad(i32c(1), i32c(0), op(0x6d, 0x1a)), abi.Trap, "divide by zero", 0},
		{"call of a null function", bad(i32c(0), op(0x11, typVoid, 0)), abi.Trap, "table", 0},
		{"memory.grow to the cap, then trap", grow, abi.Trap, "memory_limit", 0},

		{"verdict past the batch", with(verdict, say(1, 3, 0, 0)), abi.BadABI, "verdict for event 1 of a batch of 1", 0},
		{"verdict of index -2", with(verdict, say(-2, 3, 0, 0)), abi.BadABI, "verdict for event 4294967294", 0},
		{"verdict OK", with(verdict, say(0, 0, 0, 0)), abi.BadABI, "must be RETRY or REJECT", 0},
		{"verdict of the host's", with(verdict, say(0, 0x100, 0, 0)), abi.BadABI, "must be RETRY or REJECT", 0},
		{"verdict with a pointer past memory", with(verdict, say(0, 3, -10, 5)), abi.Trap, "outside the guest's memory", 0},
		{"verdict with a negative length", with(verdict, say(0, 3, 0, -1)), abi.Trap, "outside the guest's memory", 0},
		{"message with a bad pointer", with(verdict, say(-1, 3, -10, 50)), abi.Trap, "outside the guest's memory", 0},
		{"two verdicts for an event", with(verdict, say(0, 3, 0, 5), say(0, 2, 0, 5)), abi.BadABI, "two verdicts for event 0", 0},
		{"verdict flood", with(verdict, forever(say(0, 3, 0, 1024))), abi.Fuel, "raise fuel", 100_000},
		{"message flood", with(verdict, forever(say(-1, 3, 0, 1<<16))), abi.Fuel, "raise fuel", 20_000},
		{"log flood", with(logs, forever(i32c(1), i32c(0), i32c(1<<16), callf(0))), abi.Fuel, "raise fuel", 100_000},
		{"log with a bad pointer", with(logs, i32c(1), i32c(-4), i32c(8), callf(0)), abi.Trap, "outside the guest's memory", 0},
		{"OK with a verdict", with(verdict, say(0, 3, 0, 0)), abi.BadABI, "verdicts go with PARTIAL", 0},
		{"REJECT with a verdict", with(verdict, say(0, 3, 0, 0), says(3, 0)), abi.BadABI, "verdicts go with PARTIAL", 0},
		{"PARTIAL that counts too few", with(verdict, says(1, 0)), abi.BadABI, "PARTIAL(0) with 0 verdicts for 1 events", 0},
		{"PARTIAL that counts too many", with(verdict, say(0, 3, 0, 0), says(1, 1)), abi.BadABI, "PARTIAL(1) with 1 verdicts", 0},
		{"PARTIAL of 4 billion", bad(says(1, 1<<32-1)), abi.BadABI, "PARTIAL(4294967295)", 0},
		{"OK that counts too many", bad(says(0, 2)), abi.BadABI, "OK(2) for 1 events", 0},
		{"OK that counts none", bad(says(0, 0)), abi.BadABI, "OK(0) for 1 events", 0},
		{"BAD_CONFIG from deliver", bad(says(5, 0)), abi.BadABI, "audit_deliver answered BAD_CONFIG", 0},
		{"unknown outcome", bad(says(6, 0)), abi.BadABI, "outcome(0x6)", 0},

		{"re-entry into its own exports", guestModule{deliver: when(1, cat(i32c(100), callf(1), callf(3), opDrop))}, abi.Trap, "stack", 0},
		{"deep native stack", down, abi.Trap, "stack", 0},

		{"proc_exit", with(wasi("proc_exit", typInt), i32c(3), callf(0)), abi.Exit, "proc_exit(3)", 0},
		{"proc_exit(0)", with(wasi("proc_exit", typInt), i32c(0), callf(0)), abi.Exit, "proc_exit(0)", 0},
		{"standard error flood", with(wasi("fd_write", typWASI4), i32c(16), i32c(0), op(0x36, 2, 0), i32c(20), i32c(1<<16), op(0x36, 2, 0),
			forever(i32c(2), i32c(16), i32c(1), i32c(32), callf(0), opDrop)), abi.Fuel, "raise fuel", 50_000},
	}
	for o := abi.Trap; o <= abi.BadABI; o++ {
		cases = append(cases, hostileCase{"answers " + o.String(), bad(says(uint32(o), 0)), abi.BadABI, "an outcome of the host", 0})
	}
	return append(cases, hostileCase{"answers the highest outcome", bad(says(1<<32-1, 0)), abi.BadABI, "an outcome of the host", 0})
}

// run delivers the bad batch and then a good one, and checks both.
func (c hostileCase) run(t *testing.T, o Options) {
	t.Helper()
	o.Fuel = c.fuel
	s := openGuest(t, c.guest.bytes(), o)
	for range 2 { // the second time on the fresh instance
		begin := time.Now()
		r := s.Deliver(context.Background(), batchOf(1, "x"))
		if took := time.Since(begin); took > 3*time.Second && !o.Interpreter {
			t.Errorf("ended after %v", took)
		}
		if r.Outcome != c.want || !strings.Contains(r.Detail, c.detail) {
			t.Errorf("%v %q, want %v with %q", r.Outcome, r.Detail, c.want, c.detail)
		}
		if s.inst != nil {
			t.Error("the instance lives on")
		}
		if r := s.Deliver(context.Background(), batchOf(2, "x")); r.Outcome != abi.OK {
			t.Errorf("next batch: %v %q", r.Outcome, r.Detail)
		}
	}
}

func TestHostileGuests(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		for _, c := range hostileGuests() {
			t.Run(c.name, func(t *testing.T) { c.run(t, o) })
		}
	})
}

// Inboxes that can't be used. The configuration is two bytes long, a batch
// more than 250, so the plugin opens.
func TestHostileInboxes(t *testing.T) {
	choose := func(large ...[]byte) []byte {
		return cat(arg0, i32c(250), op(0x4b, 0x04, 0x7f), cat(large...), op(0x05), i32c(inbox), op(0x0b))
	}
	engines(t, func(t *testing.T, o Options) {
		for _, c := range []struct {
			name    string
			reserve []byte
			want    abi.Outcome
			detail  string
		}{
			{"0", choose(i32c(0)), abi.Memory, "lower batch_bytes"},
			{"pointer past memory", choose(i32c(1 << 30)), abi.BadABI, "returned 0x40000000"},
			{"pointer that wraps", choose(i32c(-8)), abi.BadABI, "returned 0xfffffff8"},
			{"region across the end", choose(i32c(2*wasmPage - 16)), abi.BadABI, "memory has 131072 bytes"},
			{"trap", choose(opUnreachable), abi.Trap, "unreachable"},
			{"spin", choose(forever(), i32c(0)), abi.Fuel, "raise fuel"},
		} {
			t.Run(c.name, func(t *testing.T) {
				o.Fuel = 500_000
				s := openGuest(t, guestModule{reserve: c.reserve}.bytes(), o)
				for range 2 {
					r := s.Deliver(context.Background(), batchOf(1, "x"))
					if r.Outcome != c.want || !strings.Contains(r.Detail, c.detail) || s.inst != nil {
						t.Fatalf("%v %q, want %v with %q and no instance", r.Outcome, r.Detail, c.want, c.detail)
					}
				}
			})
		}
		// The inbox lies over the code's own data: its own trouble, and what
		// it reads there is the batch.
		s := openGuest(t, guestModule{reserve: i32c(inbox), deliver: cat(i32c(inbox+8), i32c(1), op(0x36, 2, 0))}.bytes(), o)
		if r := s.Deliver(context.Background(), batchOf(3, "x")); r.Outcome != abi.BadABI || !strings.Contains(r.Detail, "OK(1) for 3") {
			t.Errorf("guest that overwrites its inbox: %v %q", r.Outcome, r.Detail)
		}
	})
}

// What a guest sends is cut: lines, their length, messages and reasons.
func TestWhatAGuestSendsIsBounded(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		var lines countingHandler
		o.Log = lines.logger()
		flood := cat(i32c(5000), op(0x21, 1), op(0x03, 0x40), // local 1 counts down
			i32c(1), i32c(0), i32c(1<<16), callf(0),
			op(0x20, 1), i32c(1), op(0x6b, 0x22, 1, 0x0d, 0, 0x0b))
		s := openGuest(t, guestModule{imports: [][]byte{imported("audit", "log", typThree)}, change: func(m *wasmtest.Module) {
			m.Funcs[3].Locals = vec(op(1, 0x7f))
			m.Funcs[3].Code = cat(flood, storeAll)
		}}.bytes(), o)
		for range 3 {
			lines.reset()
			if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
			// 16 lines of 4,096 bytes are 64 KiB; and one says the rest is dropped.
			if n, bytes := lines.count(); n != 17 || bytes > DefaultLogBytes+1024 {
				t.Errorf("%d lines, %d bytes", n, bytes)
			}
		}
	})
	s := openGuest(t, guestModule{imports: [][]byte{imported("audit", "verdict", typFour)},
		deliver: cat(i32c(0), i32c(3), i32c(0), i32c(5000), callf(0), i32c(-1), i32c(3), i32c(0), i32c(1<<16), callf(0), says(1, 1))}.bytes(), Options{})
	r := s.Deliver(context.Background(), batchOf(2, "x"))
	if r.Outcome != abi.Partial || len(r.Verdicts) != 2 || r.Verdicts[0].Code != abi.Reject || r.Verdicts[1].Code != abi.OK {
		t.Fatalf("%v %q %v", r.Outcome, r.Detail, r.Verdicts)
	}
	// Zero bytes become replacement characters of three bytes each: 341 fit.
	if want := strings.Repeat("\uFFFD", 341); r.Verdicts[0].Reason != want || r.Detail != want {
		t.Errorf("reason of %d bytes, message of %d, want %d", len(r.Verdicts[0].Reason), len(r.Detail), len(want))
	}

	// A reason for each of 3,000 events, 1 MiB of them kept.
	each := cat(op(0x03, 0x40), op(0x20, 1), i32c(3), i32c(0), i32c(1023), callf(0),
		op(0x20, 1), i32c(1), op(0x6a, 0x22, 1), count, op(0x49, 0x0d, 0, 0x0b))
	s = openGuest(t, guestModule{imports: [][]byte{imported("audit", "verdict", typFour)}, memory: cat(op(0), leb(32)), change: func(m *wasmtest.Module) {
		m.Funcs[3].Locals = vec(op(1, 0x7f))
		m.Funcs[3].Code = cat(each, says(1, 0), storeAll)
	}}.bytes(), Options{})
	for range 2 {
		r = s.Deliver(context.Background(), batchOf(3000, "x"))
		if r.Outcome != abi.Partial || len(r.Verdicts) != 3000 {
			t.Fatalf("%v %q, %d verdicts", r.Outcome, r.Detail, len(r.Verdicts))
		}
		kept := 0
		for _, v := range r.Verdicts {
			if strings.HasPrefix(v.Reason, "\uFFFD") {
				kept += len(v.Reason)
			}
		}
		if kept > DefaultVerdictBytes || kept < DefaultVerdictBytes-1024 || !strings.Contains(r.Verdicts[2999].Reason, "was dropped") {
			t.Errorf("%d bytes kept, the last is %q", kept, r.Verdicts[2999].Reason)
		}
	}
}

func TestRing(t *testing.T) {
	var r ring
	for _, s := range []string{strings.Repeat("a", 5000), strings.Repeat("b", 1<<20), "", strings.Repeat("c", 4000)} {
		if n, err := r.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	got := r.String()
	if !strings.HasPrefix(got, "aaaa") || !strings.HasSuffix(got, "cccc") || !strings.Contains(got, "[…]") || len(got) > stderrSize+16 {
		t.Errorf("%d bytes, %.10q … %.10q", len(got), got, got[len(got)-10:])
	}
	if c := cap(r.head) + cap(r.tail); c > 4*stderrSize {
		t.Errorf("%d bytes kept in memory", c)
	}
	var short ring
	_, _ = short.Write([]byte("abc"))
	if short.String() != "abc" {
		t.Errorf("%q", short.String())
	}
}

// Guests that only time ends: in code, and in host functions, whose work costs
// no fuel. Compiler only: a stop from another goroutine is a data race by the
// letter when the guest is interpreted (see meter.Gauge.Stop).
func TestDeadline(t *testing.T) {
	wasi := func(name string, typ byte) [][]byte { return [][]byte{imported(wasiModule, name, typ)} }
	// A subscription at 64: clock 1, one hour.
	subscribe := cat(i32c(64), i64c(0), op(0x37, 3, 24), i32c(64), i64c(3600e9), op(0x37, 3, 24))
	hash := func(n int32) []byte { return cat(i32c(0), i32c(n), i32c(0), callf(0)) }
	sha := [][]byte{imported("audit", "sha256", typThree)}
	for _, c := range []struct {
		name   string
		guest  guestModule
		memory int64
	}{
		{"infinite loop", guestModule{deliver: when(1, forever())}, 0},
		{"poll_oneoff", guestModule{imports: wasi("poll_oneoff", typWASI4),
			deliver: when(1, cat(subscribe, i32c(64), i32c(256), i32c(1), i32c(512), callf(0), opDrop, storeAll, opReturn))}, 0},
		// Between two looks of the meter lie 20,000 of these calls.
		{"hashing 1 MiB again and again", guestModule{imports: sha, deliver: when(1, cat(i32c(1000), op(0x40, 0, 0x1a), forever(hash(1<<20))))}, 0},
		{"hashing almost 4 GiB", guestModule{imports: sha, deliver: when(1, cat(i32c(65_000), op(0x40, 0, 0x1a), hash(-(1<<28))))}, 4 << 30},
		{"huge fills", guestModule{deliver: when(1, cat(i32c(1000), op(0x40, 0, 0x1a), forever(i32c(0), i32c(7), i32c(48<<20), op(0xfc, 11, 0))))}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openGuest(t, c.guest.bytes(), Options{Deadline: testDeadline, Memory: c.memory})
			begin := time.Now()
			r := s.Deliver(context.Background(), batchOf(1, "x"))
			if took := time.Since(begin); took < testDeadline || took > testDeadline+time.Second {
				t.Errorf("ended after %v", took)
			}
			if r.Outcome != abi.Deadline || !strings.Contains(r.Detail, "raise deadline") {
				t.Errorf("%v %q", r.Outcome, r.Detail)
			}
			if r := s.Deliver(context.Background(), batchOf(2, "x")); r.Outcome != abi.OK {
				t.Errorf("next batch: %v %q", r.Outcome, r.Detail)
			}
		})
	}
}

// Cancelling the context ends a running guest too, and says why.
func TestCancel(t *testing.T) {
	s := openGuest(t, guestModule{deliver: when(1, forever())}.bytes(), Options{})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if r := s.Deliver(ctx, batchOf(1, "x")); r.Outcome != abi.Deadline || !strings.Contains(r.Detail, "the host is stopping") {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	if r := s.Deliver(context.Background(), batchOf(2, "x")); r.Outcome != abi.OK {
		t.Fatalf("%v %q", r.Outcome, r.Detail)
	}
	// With a context that has ended the guest is not touched.
	before := s.inst
	if r := s.Deliver(ctx, batchOf(2, "x")); r.Outcome != abi.Deadline || s.inst != before {
		t.Errorf("%v %q, instance kept: %t", r.Outcome, r.Detail, s.inst == before)
	}
}

// The collector of the host runs beside a guest that spins. Without metering
// it would wait until the guest ends.
func TestCollectorRunsBesideASpinningGuest(t *testing.T) {
	s := openGuest(t, guestModule{deliver: when(1, forever())}.bytes(), Options{Deadline: 2 * time.Second})
	collect := func() (median, longest time.Duration) {
		var took []time.Duration
		for len(took) < 15 {
			begin := time.Now()
			runtime.GC()
			took = append(took, time.Since(begin))
		}
		slices.Sort(took)
		return took[7], took[14]
	}
	// What a collection takes on a machine that has other work as well.
	alone, _ := collect()
	ended := make(chan abi.Result)
	go func() { ended <- s.Deliver(context.Background(), batchOf(1, "x")) }()
	beside, longest := collect()
	if r := <-ended; r.Outcome != abi.Deadline {
		t.Fatalf("%v %q", r.Outcome, r.Detail)
	}
	t.Logf("15 collections: median %v alone, %v beside a spinning guest, the longest %v", alone, beside, longest)
	if beside > 50*time.Millisecond+4*alone {
		t.Errorf("a collection took %v, and %v alone", beside, alone)
	}
}

// The budget for the native stack says so in compiled code; the interpreter
// has a ceiling of its own below it.
func TestStackBudgetIsNamed(t *testing.T) {
	g := guestModule{deliver: callf(4), more: []wasmtest.Func{{Type: typVoid, Code: callf(4)}}}
	s := openGuest(t, g.bytes(), Options{Stack: 100_000})
	r := s.Deliver(context.Background(), batchOf(1, "x"))
	if r.Outcome != abi.Trap || !strings.Contains(r.Detail, "100000 bytes of native stack; raise stack in [sink.limits]") {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
}
