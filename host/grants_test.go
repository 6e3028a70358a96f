package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// Types of the imports of grants, behind those of guestModule.
const (
	typAppend = typTwo + 1 + iota // (i32, i32) -> (i64), also kv_delete
	typKV                         // (i32, i32, i32, i32) -> (i64)
	typHTTP                       // six i32 -> (i64)
)

// Where the guests of these tests keep things.
const (
	textAt   = 4096  // what the test puts into the memory
	answerAt = 16384 // answers of the host
)

// grantGuest is a guest with a text in its memory whose audit_deliver has an
// i64 to spare, local 1, and runs code.
func grantGuest(capabilities, text string, imports [][]byte, code ...[]byte) guestModule {
	return guestModule{
		imports:  imports,
		deliver:  cat(code...),
		manifest: fmt.Sprintf(`{"name":"granted","version":"1","capabilities":[%s]}`, capabilities),
		change: func(m *wasmtest.Module) {
			m.Types = append(m.Types, sig("ii", "l"), sig("iiii", "l"), sig("iiiiii", "l"))
			m.Data = [][]byte{cat(op(0), i32c(textAt), op(0x0b), str(text))}
			m.Funcs[3].Locals = vec(cat(leb(1), op(0x7e)))
		},
	}
}

// tell answers BUSY with the status of local 1 as the pause, and with the text
// at answerAt, as long as local 1 says, as the message. Import 0 is verdict.
var tell = cat(op(0x21, 1),
	i32c(-1), i32c(4), i32c(answerAt), op(0x20, 1, 0xa7), callf(0),
	op(0x20, 1), i64c(32), op(0x88), i64c(int64(abi.Busy)<<32), op(0x84), opReturn)

var verdictImport = imported("audit", "verdict", typFour)

// statusOf is the status that tell answered.
func statusOf(r abi.Result) abi.Status { return abi.Status(r.RetryAfter / time.Millisecond) }

// lines are the lines of a file.
func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// Each capability's refusal shows what is wanted, what is granted, and the
// lines that would grant it.
func TestGrantErrorShowsTheDifference(t *testing.T) {
	imports := map[string][]byte{
		"sql": imported("audit", "sql", typSQL), "append": imported("audit", "append", typAppend), "http": imported("audit", "http", typHTTP),
		"kv": imported("audit", "kv_set", typKV), "now": imported("audit", "now", typNow), "random": imported("audit", "random", typTwo),
	}
	for _, c := range abi.Capabilities() {
		g := grantGuest(`"`+c+`"`, "", [][]byte{imports[c]})
		_, err := Open(context.Background(), g.bytes(), Options{Name: "siem"})
		var e *GrantError
		if !errors.As(err, &e) || len(e.Missing) != 1 || e.Missing[0].Capability != c || !e.Missing[0].Manifest || len(e.Missing[0].Imports) != 1 {
			t.Errorf("%s: %v", c, err)
			continue
		}
		for _, want := range []string{
			"sink siem: load plugin granted 1: the plugin asks for more than it is granted:",
			"it wants      " + c + "\n  it is granted nothing\n",
			"missing       " + c + ": its manifest asks for it, it imports audit." + e.Missing[0].Imports[0] + "\n",
			"audit.toml needs, under this [[sink]]:\n    [sink.grant",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v\nlacks %q", c, err, want)
			}
		}
	}
	// What is there is not listed as missing.
	g := grantGuest(`"kv","append","now"`, "", [][]byte{imports["kv"], imported("audit", "kv_delete", typAppend), imports["append"]})
	_, err := Open(context.Background(), g.bytes(), Options{Name: "siem", Now: true, KV: &KVGrant{Path: filepath.Join(t.TempDir(), "kv.db")}})
	if err == nil || !strings.Contains(err.Error(), "it wants      append, kv, now\n  it is granted kv, now\n  missing       append: ") ||
		strings.Contains(err.Error(), "missing       kv") {
		t.Errorf("%v", err)
	}
}

func TestGrantThatNobodyAskedFor(t *testing.T) {
	var log countingHandler
	openGuest(t, guestModule{}.bytes(), Options{Name: "siem", Random: true, Log: log.logger()})
	if !log.has("WARN", "grant that the plugin does not ask for", "sink=siem", "grant=random") {
		t.Errorf("log %q", log.lines)
	}
}

// A grant that can't work stops the start, and says what to mend.
func TestGrantsThatCannotBeOpened(t *testing.T) {
	g := grantGuest(`"append","http","kv"`, "", nil).bytes()
	missing := filepath.Join(t.TempDir(), "missing", "file")
	for want, o := range map[string]Options{
		"sink siem: grant append: ": {Append: &appendfile.Options{Path: missing}},
		"sink siem: grant http: ":   {HTTP: &egress.Policy{Hosts: []egress.HostRule{{Host: "*.example", Methods: []string{"POST"}}}}},
		"sink siem: grant kv: ":     {KV: &KVGrant{Path: missing}},
	} {
		o.Name = "siem"
		all := o
		if all.Append == nil {
			all.Append = &appendfile.Options{Path: filepath.Join(t.TempDir(), "a")}
		}
		if all.HTTP == nil {
			all.HTTP = &egress.Policy{}
		}
		if all.KV == nil {
			all.KV = &KVGrant{Path: filepath.Join(t.TempDir(), "kv")}
		}
		if _, err := Open(context.Background(), g, all); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, wanted %q", err, want)
		}
	}
}

// A bad pointer traps in each import, in each of its parameters, and nothing
// was done by then.
func TestBadPointersInGrants(t *testing.T) {
	const bad, far = 0x7fffffff, -8 // beyond the memory; wraps around 4 GiB
	log := filepath.Join(t.TempDir(), "out.jsonl")
	for _, c := range []struct {
		name string
		typ  byte
		args [][2]int32 // pointers and lengths that are good
	}{
		{"append", typAppend, [][2]int32{{textAt, 2}}},
		{"http", typHTTP, [][2]int32{{textAt, 2}, {textAt, 2}, {answerAt, 100}}},
		{"kv_get", typKV, [][2]int32{{textAt, 1}, {answerAt, 100}}},
		{"kv_set", typKV, [][2]int32{{textAt, 1}, {textAt, 2}}},
		{"kv_delete", typAppend, [][2]int32{{textAt, 1}}},
	} {
		for i := range c.args {
			for _, wrong := range [][2]int32{{bad, 1}, {far, 100}, {textAt, -1}, {0, bad}} {
				args := append([][2]int32{}, c.args...)
				args[i] = wrong
				var code []byte
				for _, a := range args {
					code = cat(code, i32c(a[0]), i32c(a[1]))
				}
				g := grantGuest(`"append","http","kv"`, "x\n", [][]byte{imported("audit", c.name, c.typ)}, code, callf(0), opDrop)
				s := openGuest(t, g.bytes(), Options{Append: &appendfile.Options{Path: log}, HTTP: &egress.Policy{},
					KV: &KVGrant{Path: filepath.Join(t.TempDir(), "kv.db")}})
				r := s.Deliver(context.Background(), batchOf(1, "x"))
				if r.Outcome != abi.Trap || !strings.Contains(r.Detail, "pointer outside the guest's memory") {
					t.Errorf("%s(%v): %v %q", c.name, args, r.Outcome, r.Detail)
				}
				if n := len(s.grants.kv.staged) + len(s.grants.kv.values); n != 0 {
					t.Errorf("%s(%v): %d keys", c.name, args, n)
				}
				// The file's lock is given up here, for the next guest.
				if err := s.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if b, err := os.ReadFile(log); err != nil || len(b) != 0 {
		t.Errorf("the file has %q, %v", b, err)
	}
}

func appendOnce(tail ...[]byte) guestModule {
	return grantGuest(`"append"`, "one line\n", [][]byte{verdictImport, imported("audit", "append", typAppend)},
		i32c(textAt), i32c(9), callf(1), op(0x21, 1), cat(tail...))
}

// What is answered OK is on disk: the host syncs before it believes it.
func TestAppendIsDurableBeforeItIsAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	s := openGuest(t, appendOnce(when(2, says(uint32(abi.Retry), 1)), when(3, opUnreachable)).bytes(), Options{Append: &appendfile.Options{Path: path}})
	for i, want := range []abi.Outcome{abi.OK, abi.Retry, abi.Trap, abi.OK} {
		n := []int{1, 2, 3, 1}[i]
		r := s.Deliver(context.Background(), batchOf(n, "x"))
		if r.Outcome != want {
			t.Errorf("delivery %d: %v %q, wanted %v", i, r.Outcome, r.Detail, want)
		}
		if dirty := s.grants.append.dirty; dirty != (want != abi.OK) {
			t.Errorf("after %v: unsynced is %v", want, dirty)
		}
		// An append can't be taken back, whatever becomes of the batch.
		if got := lines(t, path); len(got) != i+1 {
			t.Errorf("after delivery %d: %q", i, got)
		}
	}
}

// A file that was replaced between append and answer: the guest says OK, and
// the host does not.
func TestAppendThatIsLostIsNotAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	var log countingHandler
	s := openGuest(t, appendOnce().bytes(), Options{Append: &appendfile.Options{Path: path}, Log: log.logger()})
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK {
		t.Fatalf("%v %q", r.Outcome, r.Detail)
	}
	// Appended by the guest in this call, and then somebody removes the file.
	if err := s.grants.append.append([]byte("two\n")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r := s.Deliver(context.Background(), batchOf(1, "x"))
	if r.Outcome != abi.Busy || !strings.Contains(r.Detail, "append again") || s.inst != nil {
		t.Errorf("%v %q, instance %v", r.Outcome, r.Detail, s.inst)
	}
	if !log.has("WARN", "not durable", "sink=test") {
		t.Errorf("log %q", log.lines)
	}
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK || len(lines(t, path)) != 1 {
		t.Errorf("again: %v %q, file %q", r.Outcome, r.Detail, lines(t, path))
	}
}

func TestAppendStatuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	held, err := appendfile.Open(appendfile.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var log countingHandler
	code := func(n int32) guestModule {
		return grantGuest(`"append"`, "a line\nno line", [][]byte{verdictImport, imported("audit", "append", typAppend)},
			i32c(textAt), i32c(n), callf(1), tell)
	}
	// Another process has it: no reason not to start, and none to lose a batch.
	s := openGuest(t, code(7).bytes(), Options{Append: &appendfile.Options{Path: path}, Log: log.logger()})
	if !log.has("WARN", "not to be had, it is tried again", "is open elsewhere") {
		t.Errorf("log %q", log.lines)
	}
	if r := s.Deliver(context.Background(), batchOf(1, "x")); statusOf(r) != abi.StatusUnavailable || !log.has("WARN", "plugin could not append", path) {
		t.Errorf("locked: %v, log %q", statusOf(r), log.lines)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if r := s.Deliver(context.Background(), batchOf(1, "x")); statusOf(r) != abi.StatusDone {
		t.Errorf("free again: %v", statusOf(r))
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int32]abi.Status{0: abi.StatusInvalid, 3: abi.StatusInvalid, 14: abi.StatusInvalid, 7: abi.StatusDone} {
		s := openGuest(t, code(n).bytes(), Options{Append: &appendfile.Options{Path: path}})
		if r := s.Deliver(context.Background(), batchOf(1, "x")); statusOf(r) != want {
			t.Errorf("%d bytes: %v, wanted %v", n, statusOf(r), want)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if got := lines(t, path); len(got) != 2 {
		t.Errorf("the file has %q", got)
	}
}

// A guest that fails again and again fills no log.
func TestComplaintsAreBounded(t *testing.T) {
	var log countingHandler
	g := grantGuest(`"http"`, "GET http://127.0.0.1:1/", [][]byte{imported("audit", "http", typHTTP)},
		forever(i32c(textAt), i32c(23), i32c(0), i32c(0), i32c(answerAt), i32c(100), callf(0), opDrop))
	s := openGuest(t, g.bytes(), Options{HTTP: &egress.Policy{}, Log: log.logger(), Deadline: 200 * time.Millisecond})
	log.reset()
	r := s.Deliver(context.Background(), batchOf(1, "x"))
	c, _ := s.Egress()
	if n, _ := log.count(); r.Outcome != abi.Deadline || n != maxComplaints+1 || // and one of the deadline
		c.Refused < 100 {
		t.Errorf("%v %q: %d lines for %d refusals", r.Outcome, r.Detail, n, c.Refused)
	}
}

// logTo is a log that is read as a person would.
func logTo(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
