package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
)

func openCrashes(t testing.TB, o CrashOptions) *Crashes {
	t.Helper()
	c, err := OpenCrashes(filepath.Join(t.TempDir(), "crashes"), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bundles lists the bundles of a folder, the oldest first.
func bundles(t testing.TB, c *Crashes) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(c.dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// lastBundle reads the newest bundle and the plugin beside it.
func lastBundle(t testing.TB, c *Crashes) (*Bundle, []byte) {
	t.Helper()
	list := bundles(t, c)
	if len(list) == 0 {
		t.Fatal("no crash bundle")
	}
	path := list[len(list)-1]
	b, err := ReadBundle(path)
	if err != nil {
		t.Fatal(err)
	}
	wasm, err := PluginOf(path, b)
	if err != nil {
		t.Fatal(err)
	}
	return b, wasm
}

// replayed runs the newest bundle again, which must crash the same way with the
// same fuel left.
func replayed(t testing.TB, c *Crashes, cache *Cache) Replayed {
	t.Helper()
	b, wasm := lastBundle(t, c)
	r, err := Replay(context.Background(), b, wasm, ReplayOptions{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Same || r.Diverged != "" || r.FuelLeft != b.FuelLeft || b.Unreplayable != "" {
		t.Errorf("replay: %+v\nof %s %q in %s, fuel left %d, %s", r, b.Outcome, b.Detail, b.Export, b.FuelLeft, b.Unreplayable)
	}
	return r
}

// Each hostile guest leaves a bundle, and the bundle leads to the same end.
func TestBundleOfEachHostileGuest(t *testing.T) {
	for _, c := range hostileGuests() {
		t.Run(c.name, func(t *testing.T) {
			crashes := openCrashes(t, CrashOptions{})
			s := openGuest(t, c.guest.bytes(), Options{Fuel: c.fuel, Crashes: crashes, Name: "ledger"})
			r := s.Deliver(context.Background(), batchOf(1, "x"))
			if r.Outcome != c.want || !strings.Contains(r.Detail, "crash bundle "+crashes.dir) {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
			b, _ := lastBundle(t, crashes)
			if b.Outcome != c.want.String() || b.Export != abi.ExportDeliver || b.Sink != "ledger" || len(b.Events) != 1 ||
				b.Plugin.Digest != s.Digest() || !strings.Contains(b.Detail, c.detail) {
				t.Errorf("%+v", b)
			}
			replayed(t, crashes, nil)
			// The second attempt meets a fresh instance, and is as good.
			if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != c.want {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
			replayed(t, crashes, nil)
		})
	}
}

// A crash that depends on the calls before it comes again, since the bundle has
// them.
func TestBundleHoldsTheLifeOfTheInstance(t *testing.T) {
	crashes := openCrashes(t, CrashOptions{})
	// Counts its calls at 64 and traps in the fourth.
	counting := cat(i32c(64), i32c(64), op(0x28, 2, 0), i32c(1), op(0x6a), op(0x36, 2, 0),
		i32c(64), op(0x28, 2, 0), i32c(4), op(0x46, 0x04, 0x40), opUnreachable, op(0x0b))
	s := openGuest(t, guestModule{deliver: counting, memory: cat(op(0), leb(32))}.bytes(), Options{Crashes: crashes})
	for n, want := range []abi.Outcome{abi.OK, abi.OK, abi.OK, abi.Trap} {
		if r := s.Deliver(context.Background(), batchOf(n+1, "x")); r.Outcome != want {
			t.Fatalf("call %d: %v %q", n+1, r.Outcome, r.Detail)
		}
	}
	if r := replayed(t, crashes, nil); r.Call != 5 {
		t.Errorf("it ended in call %d", r.Call)
	}

	// A life that is too long is forgotten, and the bundle says so: a fresh
	// instance does not crash.
	for n, want := range []abi.Outcome{abi.OK, abi.OK, abi.OK, abi.Trap} {
		if r := s.Deliver(context.Background(), batchOf(100, strings.Repeat("x", maxLife/250))); r.Outcome != want {
			t.Fatalf("call %d: %v %q", n+1, r.Outcome, r.Detail)
		}
	}
	b, wasm := lastBundle(t, crashes)
	if !strings.Contains(b.Unreplayable, "longer life") || len(b.Life) != 2 {
		t.Errorf("%q, %d calls", b.Unreplayable, len(b.Life))
	}
	r, err := Replay(context.Background(), b, wasm, ReplayOptions{})
	if err != nil || r.Same || r.Outcome != abi.OK {
		t.Errorf("%+v, %v", r, err)
	}
}

// What came from outside comes from the bundle: the clock, randomness, the
// answers of a database.
func TestReplayNeedsNothingFromOutside(t *testing.T) {
	manifest := `{"name":"x","version":"1","capabilities":["now","random","sql"]}`
	g := guestModule{manifest: manifest, imports: [][]byte{
		imported("audit", "now", typNow), imported("audit", "random", typTwo), imported("audit", "sql", typSQL), imported("audit", "verdict", typFour),
		imported(wasiModule, "random_get", typTwo+1), imported(wasiModule, "clock_time_get", typTwo+2),
	}, deliver: cat(
		// Everything that was told goes into memory, is hashed by the batch's
		// message, and decides where the guest traps.
		i32c(64), callf(0), op(0x37, 3, 0),
		i32c(72), i32c(16), callf(1),
		i32c(128), i32c(8), callf(4), opDrop,
		i32c(0), i64c(0), i32c(136), callf(5), opDrop,
		// Read mode without a step: the answer's status and length at 144.
		i32c(144), i32c(0), i32c(0), i32c(0), i32c(160), i32c(64), callf(2), op(0x37, 3, 0),
		// Traps with an address that only today's answers give.
		i32c(64), op(0x29, 3, 0), i32c(72), op(0x29, 3, 0), op(0x85), i32c(128), op(0x29, 3, 0), op(0x85), i32c(136), op(0x29, 3, 0), op(0x85),
		op(0xa7), i32c(-1<<31), op(0x72, 0x28, 2, 0, 0x1a))}
	types := guestModule{}.module().Types
	module := g.module()
	module.Types = append(types, sig("ii", "i"), sig("ili", "i"))
	wasm := module.Bytes()

	crashes := openCrashes(t, CrashOptions{})
	db := filepath.Join(t.TempDir(), "x.db")
	s := openGuest(t, wasm, Options{Crashes: crashes, Now: true, Random: true, SQL: &SQLGrant{Database: db, Create: true}})
	before := time.Now().UnixNano()
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Trap || !strings.Contains(r.Detail, "out of bounds") {
		t.Fatalf("%v %q", r.Outcome, r.Detail)
	}
	if err := os.RemoveAll(filepath.Dir(db)); err != nil {
		t.Fatal(err)
	}
	b, _ := lastBundle(t, crashes)
	told := b.Life[1].Answers
	if len(told) != 5 || told[0].Function != "audit.now" || int64(told[0].Result) < before || len(told[1].Data) != 16 || len(told[2].Data) != 8 {
		t.Errorf("%+v", told)
	}
	if len(b.HostCalls) != 5 || b.HostCalls[4].Function != "audit.sql" || b.HostCalls[4].Result == nil {
		t.Errorf("%+v", b.HostCalls)
	}
	replayed(t, crashes, nil)
	// Without the answers the guest is not told lies: the replay says what it
	// had to make up, and what it could not.
	bare := *b
	bare.Life = slices.Clone(b.Life)
	bare.Life[1].Answers = nil
	r, err := Replay(context.Background(), &bare, wasm, ReplayOptions{})
	if err != nil || r.Same || r.Outcome != abi.HostPanic || !strings.Contains(r.Diverged, "audit.now was called more often") ||
		!strings.Contains(r.Detail, "no further answer for audit.sql") {
		t.Errorf("%+v, %v", r, err)
	}
}

// A guest that the deadline stopped is stopped in the same place, without
// waiting for it.
func TestReplayOfDeadlines(t *testing.T) {
	subscribe := cat(i32c(64), i64c(0), op(0x37, 3, 24), i32c(64), i64c(3600e9), op(0x37, 3, 24))
	wait := cat(i32c(64), i32c(256), i32c(1), i32c(512), callf(0), opDrop)
	nap := cat(i32c(64), i64c(0), op(0x37, 3, 24), i32c(64), i64c(int64(3*testDeadline)), op(0x37, 3, 24))
	poll := [][]byte{imported(wasiModule, "poll_oneoff", typWASI4)}
	for _, c := range []struct {
		name, kind string
		guest      guestModule
	}{
		{"computing", endMeter, guestModule{deliver: when(1, forever())}},
		{"waiting", endStopped, guestModule{imports: poll, deliver: when(1, cat(subscribe, wait))}},
		{"waiting and computing", endStopped, guestModule{imports: poll, deliver: when(1, forever(nap, wait))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			crashes := openCrashes(t, CrashOptions{})
			s := openGuest(t, c.guest.bytes(), Options{Deadline: testDeadline, Crashes: crashes})
			if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Deadline {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
			b, wasm := lastBundle(t, crashes)
			if b.Ending == nil || b.Ending.Kind != c.kind {
				t.Fatalf("%+v", b.Ending)
			}
			replayed(t, crashes, nil)
			b.Limits.Deadline = time.Hour
			begin := time.Now()
			if r, err := Replay(context.Background(), b, wasm, ReplayOptions{}); err != nil || r.Outcome != abi.Deadline || time.Since(begin) > 10*time.Second {
				t.Errorf("%+v, %v, after %v", r, err, time.Since(begin))
			}
		})
	}
}

// The Go guest: its panic with names, its standard error, memory, and its
// opening.
func TestBundleOfTheGoGuest(t *testing.T) {
	cache := sharedCache(t)
	for _, c := range []struct {
		name, config, do string
		want             abi.Outcome
		memory           int64
	}{
		{"panic", `{}`, "message", abi.Trap, 0},
		{"nil", `{}`, "panic", abi.Trap, 0},
		{"exit", `{}`, "exit", abi.Exit, 0},
		{"memory", `{}`, "eat", abi.Memory, 32 << 20},
		{"spin", `{}`, "spin", abi.Deadline, 0},
		{"sleep", `{}`, "sleep", abi.Deadline, 0},
		{"open", `{"trap":"trap"}`, "", abi.Busy, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			crashes := openCrashes(t, CrashOptions{})
			s := openGuest(t, goGuest(t), Options{Cache: cache, Crashes: crashes, Config: json.RawMessage(c.config),
				Memory: c.memory, Deadline: 300 * time.Millisecond, Now: true, Random: true})
			for range 20 {
				if r := s.Deliver(context.Background(), batchOf(3, "garbage")); r.Outcome != abi.OK && c.want != abi.Busy {
					t.Fatalf("%v %q", r.Outcome, r.Detail)
				}
			}
			if r := s.Deliver(context.Background(), batchOf(1, c.do)); r.Outcome != c.want {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
			b, _ := lastBundle(t, crashes)
			if c.name == "panic" && (!strings.Contains(b.Stderr, "a message of the guest") || !strings.Contains(b.Trace, "wasm stack trace")) {
				t.Errorf("%q\n%s", b.Stderr, b.Trace)
			}
			if b.Memory < 1<<20 || b.FuelLeft <= 0 || b.StackLeft <= 0 {
				t.Errorf("memory %d, fuel left %d, stack left %d", b.Memory, b.FuelLeft, b.StackLeft)
			}
			replayed(t, crashes, cache)
		})
	}
}

// What is kept is bounded in number and bytes, whole, and for its owner only.
func TestCrashesAreBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "crashes")
	c, err := OpenCrashes(dir, CrashOptions{Keep: 3, MaxBytes: 200 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, partPrefix+"left"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := guestModule{deliver: opUnreachable, memory: cat(op(0), leb(32))}.bytes()
	worse := guestModule{deliver: cat(i32c(1), i32c(0), op(0x6d, 0x1a))}.bytes()
	first := openGuest(t, bad, Options{Name: "first", Crashes: c})
	second := openGuest(t, worse, Options{Name: "second one/..", Crashes: c})
	for range 5 {
		first.Deliver(context.Background(), batchOf(1, "x"))
		second.Deliver(context.Background(), batchOf(1, "x"))
	}
	if list := bundles(t, c); len(list) != 6 {
		t.Errorf("%q", list)
	}
	check := func() {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		total := int64(0)
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			if total += info.Size(); runtime.GOOS != "windows" && info.Mode() != 0o600 {
				t.Errorf("%s has mode %v", e.Name(), info.Mode())
			}
		}
		if total > 200<<10 {
			t.Errorf("%d bytes", total)
		}
	}
	check()
	// Large ones push out old ones, whosever they are; too large ones are not
	// kept, and the call goes on all the same.
	for range 3 {
		first.Deliver(context.Background(), batchOf(1, strings.Repeat("x", 60<<10)))
		check()
	}
	if list := bundles(t, c); len(list) != 2 || !strings.Contains(list[1], "-first-") {
		t.Errorf("%q", list)
	}
	if modules, _ := filepath.Glob(filepath.Join(dir, "*.wasm")); len(modules) != 1 {
		t.Errorf("%q", modules)
	}
	r := first.Deliver(context.Background(), batchOf(1, strings.Repeat("x", 300<<10)))
	if r.Outcome != abi.Trap || strings.Contains(r.Detail, "crash bundle") {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	// A start removes what a kill has left.
	if _, err := OpenCrashes(dir, CrashOptions{Keep: 1}); err != nil {
		t.Fatal(err)
	}
	if list := bundles(t, c); len(list) != 1 {
		t.Errorf("%q", list)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, partPrefix+"*")); left != nil {
		t.Errorf("%q", left)
	}
}

// A folder that can't be written to costs the bundle, not the outcome.
func TestCrashWithoutABundle(t *testing.T) {
	c := openCrashes(t, CrashOptions{})
	var lines countingHandler
	s := openGuest(t, guestModule{deliver: opUnreachable}.bytes(), Options{Crashes: c, Log: lines.logger()})
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Trap || !lines.has("crash bundle could not be written") {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
}

// A host that ends is no crash.
func TestStoppingLeavesNoBundle(t *testing.T) {
	c := openCrashes(t, CrashOptions{})
	s := openGuest(t, guestModule{deliver: forever()}.bytes(), Options{Crashes: c})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if r := s.Deliver(ctx, batchOf(1, "x")); r.Outcome != abi.Deadline || len(bundles(t, c)) != 0 {
		t.Errorf("%v %q, %q", r.Outcome, r.Detail, bundles(t, c))
	}
}

// Secrets of the configuration are not in the bundle; a replay can be given
// them.
func TestBundleHasNoSecrets(t *testing.T) {
	config := `{"url":"https://bob:hunter1@example.org/x","region":"eu","api_key":"hunter2","db":{"password":"hunter3","host":"h"},` +
		`"list":[{"auth_token":"hunter4"},"Bearer hunter5"],"pem":"-----BEGIN KEY-----hunter6","monkey":"stays","retries":3,"keys":["hunter7"],"use_token":true}`
	got, places := redact(json.RawMessage(config))
	if bytes.Contains(got, []byte("hunter")) || len(places) != 7 {
		t.Errorf("%s\n%q", got, places)
	}
	for _, stays := range []string{`"region":"eu"`, `"host":"h"`, `"monkey":"stays"`, `"retries":3`, `"use_token":true`, "example.org/x"} {
		if !bytes.Contains(got, []byte(stays)) {
			t.Errorf("%s is not in %s", stays, got)
		}
	}
	if same, places := redact(json.RawMessage(`{"b": 1,  "a": 1e400}`)); string(same) != `{"b": 1,  "a": 1e400}` || places != nil {
		t.Errorf("%s %q", same, places)
	}
	if none, places := redact(json.RawMessage(`"hunter2"`)); string(none) != "{}" || len(places) != 1 {
		t.Errorf("%s %q", none, places)
	}

	// The guest traps if the configuration has its secret.
	var g guestModule
	g.open = cat(i32c(64), i32c(inbox), op(0x2d, 0, 10), op(0x36, 2, 0), i64c(0))
	g.deliver = cat(i32c(64), op(0x28, 2, 0), i32c('h'), op(0x46, 0x04, 0x40), opUnreachable, op(0x0b))
	crashes := openCrashes(t, CrashOptions{})
	s := openGuest(t, g.bytes(), Options{Crashes: crashes, Config: json.RawMessage(`{"token":"hunter2"}`)})
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Trap {
		t.Fatalf("%v %q", r.Outcome, r.Detail)
	}
	raw, err := os.ReadFile(bundles(t, crashes)[0])
	if err != nil || bytes.Contains(raw, []byte("hunter")) || bytes.Contains(raw, []byte("aHVudGVy")) {
		t.Errorf("%v: %s", err, raw)
	}
	b, wasm := lastBundle(t, crashes)
	if r, err := Replay(context.Background(), b, wasm, ReplayOptions{}); err != nil || r.Same || r.Outcome != abi.OK {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := Replay(context.Background(), b, wasm, ReplayOptions{Config: json.RawMessage(`{"token":"hunter2"}`)}); err != nil || !r.Same {
		t.Errorf("%+v, %v", r, err)
	}
}

// A bundle may come from anywhere.
func TestMadeUpBundles(t *testing.T) {
	crashes := openCrashes(t, CrashOptions{})
	s := openGuest(t, guestModule{deliver: opUnreachable}.bytes(), Options{Crashes: crashes})
	s.Deliver(context.Background(), batchOf(1, "x"))
	path := bundles(t, crashes)[0]
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, wasm := lastBundle(t, crashes)
	for _, c := range []struct{ name, from, to, want string }{
		{"no JSON", "{", "[", "read crash bundle"},
		{"another format", `"version":1,"time"`, `"version":2,"time"`, "format 2, this program reads 1"},
		{"another call", `"export":"audit_deliver","trace"`, `"export":"_start","trace"`, "do not begin with audit_open"},
		{"no life", `"life":[`, `"life":[],"x":[`, "do not begin with audit_open"},
	} {
		bad := filepath.Join(t.TempDir(), "bundle.json")
		text := strings.Replace(string(good), c.from, c.to, 1)
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadBundle(bad); text == string(good) || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Replay(context.Background(), b, append(slices.Clone(wasm), 0), ReplayOptions{}); err == nil || !strings.Contains(err.Error(), "this one has") {
		t.Errorf("another plugin: %v", err)
	}
	b.Life[1].Input = []byte("no frame")
	if r, err := Replay(context.Background(), b, wasm, ReplayOptions{}); err != nil || r.Same || r.Outcome != abi.Reject {
		t.Errorf("no frame: %+v, %v", r, err)
	}
	b.Plugin.Digest = fmt.Sprintf("%064d", 0)
	if _, err := PluginOf(path, b); err == nil || !strings.Contains(err.Error(), "find the plugin") {
		t.Errorf("no plugin: %v", err)
	}
}
