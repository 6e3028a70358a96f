package host

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// Modules that are not loaded, and what the operator reads.
func TestModulesThatDoNotFit(t *testing.T) {
	changed := func(f func(m *wasmtest.Module)) []byte { return guestModule{change: f}.bytes() }
	importing := func(imports ...[]byte) []byte { return guestModule{imports: imports}.bytes() }
	without := func(name string) []byte {
		return changed(func(m *wasmtest.Module) {
			for i := range m.Funcs {
				if m.Funcs[i].Name == name {
					m.Funcs[i].Name = "other"
				}
			}
		})
	}
	rename := func(name string) func(m *wasmtest.Module) {
		return func(m *wasmtest.Module) { m.Funcs[0].Name = name }
	}
	good := guestModule{}.bytes()
	inBody := func(code ...[]byte) []byte {
		return changed(func(m *wasmtest.Module) {
			m.Funcs = append(m.Funcs, wasmtest.Func{Type: typInt, Code: cat(code...)})
		})
	}
	many := func(n int, b ...byte) []byte { return bytes.Repeat(b, n) }

	for _, c := range []struct {
		name string
		wasm []byte
		want []string // in the error
	}{
		{"nothing", nil, []string{"4 bytes wanted, 0 left"}},
		{"text", []byte("#!/bin/sh\n"), []string{"not a WebAssembly binary"}},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), []string{"component"}},
		{"cut short", good[:len(good)/2], []string{"bytes wanted"}},
		{"no manifest", changed(func(m *wasmtest.Module) { m.Custom = nil }), []string{"no audit.manifest section", "plugin manifest"}},
		{"two manifests", cat(good, sec(0, cat(str("audit.manifest"), []byte(plainManifest)))), []string{"two audit.manifest sections"}},
		{"manifest of 10 MB", guestModule{manifest: `{"name":"x","version":"1","config_schema":"` + strings.Repeat("x", 10<<20) + `"}`}.bytes(),
			[]string{"manifest has 10485", "at most 65536"}},
		{"manifest that is no JSON", guestModule{manifest: `{`}.bytes(), []string{"read manifest"}},
		{"manifest without a version", guestModule{manifest: `{"name":"x"}`}.bytes(), []string{"version"}},

		{"no version marker", without("audit_abi_1"), []string{"wanted the version marker audit_abi_1, found none"}},
		{"unknown major", changed(rename("audit_abi_2")), []string{"wanted the version marker audit_abi_1, found audit_abi_2"}},
		{"no audit_deliver", without("audit_deliver"), []string{"export audit_deliver: wanted (i32) -> (i64), found none"}},
		{"no audit_reserve", without("audit_reserve"), []string{"export audit_reserve: wanted (i32) -> (i32), found none"}},
		{"wrong signature", changed(func(m *wasmtest.Module) { m.Funcs[3].Type = typI32; m.Funcs[3].Code = arg0 }),
			[]string{"export audit_deliver: wanted (i32) -> (i64), found (i32) -> (i32)"}},
		{"wrong signature of an optional export", changed(func(m *wasmtest.Module) {
			m.Funcs = append(m.Funcs, wasmtest.Func{Type: typVoid, Name: "audit_flush"})
		}), []string{"export audit_flush: wanted () -> (i64), found () -> ()"}},
		{"no memory", changed(func(m *wasmtest.Module) { m.Memory = nil; m.Funcs[3].Code = i64c(0) }), []string{"export memory: wanted a memory, found none"}},
		{"start section", changed(func(m *wasmtest.Module) { m.Start = 1 }), []string{"start section: wanted none, found one"}},
		{"start section that spins", changed(func(m *wasmtest.Module) {
			m.Funcs = append(m.Funcs, wasmtest.Func{Type: typVoid, Code: forever()})
			m.Start = len(m.Funcs)
		}), []string{"start section: wanted none"}},
		{"shared memory", guestModule{memory: []byte{3, 1, 1}}.bytes(), []string{"threads"}},
		{"memory beyond the limit", guestModule{memory: leb(2000), change: func(m *wasmtest.Module) { m.Memory = cat(op(0), leb(2000)) }}.bytes(), []string{"memory_limit 67108864 bytes", "2000 pages"}},
		{"data beyond the memory", changed(func(m *wasmtest.Module) {
			m.Data = [][]byte{cat(op(0), i32c(-10), op(0x0b), vec(op(1), op(2)))}
		}), []string{"instantiate the module", "out of bounds"}},

		{"unknown import", importing(imported("env", "abort", typVoid)), []string{"import env.abort", "unknown"}},
		{"unknown function of ours", importing(imported("audit", "sgl", typVoid)), []string{"import audit.sgl", "unknown"}},
		{"WASI function beyond the shim", importing(imported(wasiModule, "sock_recv", typVoid)), []string{"sock_recv", "unknown"}},
		{"import of a wrong signature", importing(imported("audit", "log", typVoid)), []string{"import audit.log: wanted (i32, i32, i32) -> (), found () -> ()"}},
		{"sql without a grant", importing(imported("audit", "sql", typSQL)), []string{"it wants      sql\n  it is granted nothing\n  missing       sql: it imports audit.sql\n", "audit.toml", "[sink.grant.sql]"}},
		{"now without a grant", importing(imported("audit", "now", typNow)), []string{`needs the capability "now"`, "missing       now: it imports audit.now", "now = true"}},
		{"random without a grant", importing(imported("audit", "random", typTwo)), []string{`needs the capability "random"`, "missing       random: it imports audit.random", "random = true"}},
		{"wish without a grant", guestModule{manifest: `{"name":"x","version":"1","capabilities":["sql"]}`}.bytes(), []string{"missing       sql: its manifest asks for it"}},
		{"unknown wish", guestModule{manifest: `{"name":"x","version":"1","capabilities":["shell"]}`}.bytes(), []string{`capability "shell": wanted by the manifest, unknown`}},
		{"imported memory", importing(cat(str("audit"), str("m"), op(2, 0, 1))), []string{"multi-memory"}},
		{"imported table", importing(cat(str("audit"), str("t"), op(1, 0x70, 0, 1))), []string{"import audit.t: wanted a function, found a table"}},
		{"imported global", importing(cat(str("audit"), str("g"), op(3, 0x7f, 0))), []string{"import audit.g: wanted a function, found a global"}},
		{"exports our names", changed(rename("audit:fuel")), []string{"reserved"}},

		{"10,001 locals", changed(func(m *wasmtest.Module) { m.Funcs[0].Locals = vec(cat(leb(10_001), op(0x7f))) }), []string{"10001 parameters and locals are more than 10000"}},
		{"br_table bomb", inBody(op(0x02, 0x40), bytes.Repeat(cat(arg0, op(0x0e), leb(65_000), many(65_000, 0), op(0)), 15), op(0x0b)), []string{"compiling costs"}},
		{"loops within loops", inBody(many(9_990, 0x03, 0x40), many(9_990, 0x0b), many(3_000, 0x03, 0x40), many(3_000, 0x0b)), []string{"more than 20000 control instructions"}},
		{"body of 3 MiB", inBody(many(3<<20, 0x01)), []string{"body of 3145"}},
		{"module of 65 MiB", cat(good, sec(0, cat(str("ballast"), make([]byte, 65<<20)))), []string{"is larger than 67108864"}},
		{"operand stack is wrong", inBody(op(0x6a)), []string{"compile"}},
		{"malformed section", cat(good, op(1, 5, 0)), []string{"5 bytes wanted"}},
		{"sections out of order", cat(good, sec(1, op(0))), []string{"out of order"}},
		{"count of 4 billion", cat(good[:8], sec(1, op(0xff, 0xff, 0xff, 0xff, 0x0f))), []string{"4294967295 announced"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			s, err := Open(context.Background(), c.wasm, Options{Name: "ledger"})
			if err == nil {
				t.Fatal(errors.Join(errors.New("it was loaded"), s.Close(context.Background())))
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("took %v", took)
			}
			for _, w := range append(c.want, "sink ledger: load plugin") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v\nlacks %q", err, w)
				}
			}
			if n := len(err.Error()); n > 4096 {
				t.Errorf("the error has %d bytes", n)
			}
		})
	}
}

// A plugin uses what its manifest asks for, and no more, granted or not.
func TestGrantsGoByTheManifest(t *testing.T) {
	imports := [][]byte{imported("audit", "now", typNow)}
	_, err := Open(context.Background(), guestModule{imports: imports}.bytes(), Options{Name: "ledger", Now: true})
	if err == nil || !strings.Contains(err.Error(), `import audit.now: needs the capability "now", which the plugin's manifest does not ask for`) {
		t.Errorf("%v", err)
	}
	asks := guestModule{imports: imports, manifest: `{"name":"x","version":"1","capabilities":["now"]}`}
	if r := openGuest(t, asks.bytes(), Options{Now: true, Random: true}).Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
}

func TestNoPanic(t *testing.T) {
	var list []int
	err := noPanic("read the module", func() error { list[7] = 1; return nil })
	if err == nil || !strings.Contains(err.Error(), "read the module: panic: runtime error: index out of range [7]") {
		t.Errorf("%v", err)
	}
	if err := noPanic("", func() error { return errUnfit }); err != errUnfit {
		t.Errorf("%v", err)
	}
}

// Unusual modules that fit.
func TestUnusualModules(t *testing.T) {
	for name, change := range map[string]func(m *wasmtest.Module){
		"10,000 locals": func(m *wasmtest.Module) { m.Funcs[3].Locals = vec(cat(leb(9_999), op(0x7f))) },
		"10,000 exports": func(m *wasmtest.Module) {
			for i := range 10_000 {
				m.Funcs = append(m.Funcs, wasmtest.Func{Type: typVoid, Name: "export" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + strings.Repeat("y", i/26)})
			}
		},
		"br_table of 10,000 targets": func(m *wasmtest.Module) {
			m.Funcs[3].Code = cat(op(0x02, 0x40), arg0, op(0x0e), leb(10_000), make([]byte, 10_000), op(0, 0x0b), storeAll)
		},
		"4 GiB of memory allowed": func(m *wasmtest.Module) { m.Memory = cat(op(1, 2), leb(65_536)) },
		"no maximum":              func(m *wasmtest.Module) { m.Memory = op(0, 2) },
		"_initialize": func(m *wasmtest.Module) {
			m.Funcs = append(m.Funcs, wasmtest.Func{Type: typVoid, Name: "_initialize"})
		},
	} {
		engines(t, func(t *testing.T, o Options) {
			s := openGuest(t, guestModule{change: change}.bytes(), o)
			if r := s.Deliver(context.Background(), batchOf(3, "x")); r.Outcome != abi.OK {
				t.Errorf("%s: %v %q", name, r.Outcome, r.Detail)
			}
		})
	}
}

// Only a refused configuration keeps a plugin that fits from being opened.
func TestOpenIsPatient(t *testing.T) {
	verdict := [][]byte{imported("audit", "verdict", typFour)}
	for _, c := range []struct {
		name   string
		guest  guestModule
		want   abi.Outcome // of the first delivery
		detail string
		warned string
	}{
		{"RETRY", guestModule{open: cat(says(2, 1500), i64c(0))}, abi.Retry, "", "RETRY"},
		{"BUSY", guestModule{imports: verdict, open: cat(i32c(-1), i32c(4), i32c(64), i32c(6), callf(0), says(4, 1500), i64c(0)),
			change: func(m *wasmtest.Module) {
				m.Data = [][]byte{cat(op(0), i32c(64), op(0x0b), str("locked"))}
			}}, abi.Busy, "locked", "BUSY"},
		{"trap", guestModule{open: opUnreachable}, abi.Busy, "no instance: TRAP in audit_open", "unreachable"},
		{"spin", guestModule{open: cat(forever(), i64c(0))}, abi.Busy, "no instance: FUEL in audit_open", "raise fuel"},
		{"OK of the host's", guestModule{open: cat(says(0x103, 0), i64c(0))}, abi.Busy, "no instance: BAD_ABI in audit_open", "an outcome of the host"},
		{"PARTIAL", guestModule{open: cat(says(1, 0), i64c(0))}, abi.Busy, "audit_open answered PARTIAL", "it may answer OK"},
		{"verdict", guestModule{imports: verdict, open: cat(i32c(0), i32c(3), i32c(0), i32c(0), callf(0), i64c(0))}, abi.Busy, "BAD_ABI in audit_open", "of a batch of 0"},
		{"trap in _initialize", guestModule{more: []wasmtest.Func{{Type: typVoid, Name: "_initialize", Code: opUnreachable}}}, abi.Busy, "no instance: TRAP", "unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			engines(t, func(t *testing.T, o Options) {
				var lines countingHandler
				o.Log, o.Fuel = lines.logger(), 1_000_000
				s := openGuest(t, c.guest.bytes(), o)
				if s.inst != nil {
					t.Error("there is an instance")
				}
				if !lines.has("WARN", "plugin is not ready", c.warned) {
					t.Errorf("no warning with %q: %q", c.warned, lines.lines)
				}
				for range 2 {
					r := s.Deliver(context.Background(), batchOf(1, "x"))
					if r.Outcome != c.want || !strings.Contains(r.Detail, c.detail) || s.inst != nil {
						t.Errorf("%v %q, want %v with %q", r.Outcome, r.Detail, c.want, c.detail)
					}
					if (c.name == "RETRY" || c.name == "BUSY") && r.RetryAfter != 1500*time.Millisecond {
						t.Errorf("pause of %v", r.RetryAfter)
					}
				}
			})
		})
	}
	refuses := guestModule{imports: verdict, open: cat(i32c(-1), i32c(5), i32c(64), i32c(9), callf(0), says(5, 0), i64c(0)),
		change: func(m *wasmtest.Module) { m.Data = [][]byte{cat(op(0), i32c(64), op(0x0b), str("no table!"))} }}
	_, err := Open(context.Background(), refuses.bytes(), Options{Name: "ledger"})
	var config *ConfigError
	if !errors.As(err, &config) || config.Sink != "ledger" || config.Detail != "no table!" {
		t.Errorf("%v", err)
	}
}

// A plugin whose world is not ready when it is opened works once it is: here
// the log, whose failing is a panic of the host and never of the process.
func TestOpensAfresh(t *testing.T) {
	refusals := 0
	ready := func() bool { refusals++; return refusals > 3 }
	var lines countingHandler
	s := openGuest(t, guestModule{imports: [][]byte{imported("audit", "log", typThree)},
		open: cat(i32c(0), i32c(0), i32c(0), callf(0), i64c(0))}.bytes(), Options{Log: hookLogger(&lines, func() {
		if !ready() {
			panic("the log of this test is not ready")
		}
	})})
	for i := range 2 {
		if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Busy || !strings.Contains(r.Detail, "HOST_PANIC") || !strings.Contains(r.Detail, "not ready") {
			t.Fatalf("delivery %d: %v %q", i, r.Outcome, r.Detail)
		}
	}
	for range 3 {
		if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK {
			t.Fatalf("%v %q", r.Outcome, r.Detail)
		}
	}
}

// The configuration reaches the guest as it is.
func TestConfigIsHandedOver(t *testing.T) {
	for config, want := range map[string]uint32{"": 2, `{"a":1}`: 7} {
		// audit_open answers RETRY with the length, and the first byte in the
		// upper half of the pause.
		s := openGuest(t, guestModule{open: cat(arg0, op(0xad), i32c(inbox), op(0x2d, 0, 0), op(0xad), i64c(16), op(0x86, 0x84),
			i64c(int64(uint64(abi.Retry)<<32)), op(0x84))}.bytes(), Options{Config: []byte(config)})
		r := s.Deliver(context.Background(), batchOf(1, "x"))
		if got := uint32(r.RetryAfter / time.Millisecond); r.Outcome != abi.Retry || got != want|'{'<<16 {
			t.Errorf("config %q: %v, %#x", config, r.Outcome, got)
		}
	}
}

func TestCloseTellsTheGuest(t *testing.T) {
	var lines countingHandler
	log := func(at int32, name string) wasmtest.Func {
		return wasmtest.Func{Type: typDone, Name: name, Code: cat(i32c(1), i32c(at), i32c(5), callf(0), i64c(0))}
	}
	g := guestModule{imports: [][]byte{imported("audit", "log", typThree)}, more: []wasmtest.Func{log(64, "audit_flush"), log(69, "audit_close")},
		change: func(m *wasmtest.Module) {
			m.Data = [][]byte{cat(op(0), i32c(64), op(0x0b), str("flushclose"))}
		}}
	s, err := Open(context.Background(), g.bytes(), Options{Log: lines.logger()})
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Flush(context.Background()); r.Outcome != abi.OK || !lines.has("flush") {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	lines.reset()
	if err := s.Close(context.Background()); err != nil || !lines.has("flush") || !lines.has("close") {
		t.Errorf("%v, log %q", err, lines.lines)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Errorf("second close: %v", err)
	}
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.HostPanic || !strings.Contains(r.Detail, "after Close") {
		t.Errorf("delivery after close: %v %q", r.Outcome, r.Detail)
	}
	// A guest that fails to close is reported, and gone.
	g.more = []wasmtest.Func{{Type: typDone, Name: "audit_close", Code: opUnreachable}}
	if s, err = Open(context.Background(), g.bytes(), Options{Name: "ledger"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(context.Background()); err == nil || !strings.Contains(err.Error(), "sink ledger: close plugin: audit_close answered TRAP") || s.inst != nil {
		t.Errorf("%v", err)
	}
}
