package host

import (
	"context"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// heapProbe notes how much memory is held whenever the guest asks for the key "?".
type heapProbe struct{ held []int64 }

func (p *heapProbe) Asked(a *Ask) Fault {
	if a.Function == abi.ImportKVGet && string(a.Data[0]) == "?" {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		p.held = append(p.held, int64(m.HeapAlloc))
	}
	return Fault{}
}

func (p *heapProbe) Answered(*Ask, uint32) {}

// TestWhatACallMakesTheHostHold: whichever host function a guest calls how often in
// one batch, what the host holds for it in memory is bounded, as the table in
// abi/README.md says. Every import has a case, and asks for more than that.
func TestWhatACallMakesTheHostHold(t *testing.T) {
	const (
		most = 6 << 20    // of a trace 1 MiB, of texts 1 MiB, and the rest for what the runtime rounds up
		mark = textAt - 8 // of the key "?"
		data = 40_000     // never written
		size = 60_000     // of memory from data on
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) }))
	defer server.Close()
	head := "POST " + server.URL + "/\n"
	// A script of one statement of 50,000 bytes.
	step := make([]byte, abi.SQLStepSize)
	for i, v := range []uint32{abi.SQLQuery, textAt + 24, 20_000} {
		binary.LittleEndian.PutUint32(step[4*i:], v)
	}
	statement := "SELECT 1" + strings.Repeat(" ", 19_992)

	turn := op(0x20, 1) // local 1 counts the turns
	number := cat(i32c(textAt), turn, op(0x37, 0, 0))
	// The turn as eight letters, twelve bytes into the statement.
	letters := cat(i32c(textAt+24+12), turn, i64c(0x0f0f0f0f), op(0x83), turn, i64c(28), op(0x86), i64c(0x0f0f0f0f<<32), op(0x83), op(0x84),
		i64c(0x4141414141414141), op(0x84), op(0x37, 0, 0))
	iovec := cat(i32c(textAt), i32c(data), op(0x36, 0, 0), i32c(textAt+4), i32c(size), op(0x36, 0, 0))
	asked := map[string]bool{}
	for _, c := range []struct {
		what    string
		imports []string // functions 1 and on
		turns   int64
		code    []byte // of one turn
		text    string // at textAt
		events  int    // of the batch, beside one
	}{
		{"other keys", []string{abi.ImportKVSet, abi.ImportKVDel}, 100_000,
			cat(number, i32c(textAt), i32c(256), i32c(data), i32c(0), callf(1), opDrop, i32c(textAt), i32c(256), callf(2), opDrop), "", 0},
		{"as many keys as the grant allows", []string{abi.ImportKVSet}, 100_000, cat(number, i32c(textAt), i32c(256), i32c(data), i32c(0), callf(1), opDrop), "", 0},
		{"large values", []string{abi.ImportKVSet}, 1_000, cat(i32c(textAt), i32c(5), i32c(data), i32c(50_000), callf(1), opDrop), "", 0},
		{"absent keys", []string{abi.ImportKVGet}, 100_000, cat(number, i32c(textAt), i32c(256), i32c(data), i32c(size), callf(1), opDrop), "", 0},
		{"reasons", []string{abi.ImportVerdict}, 20_000, cat(turn, op(0xa7), i32c(3), i32c(data), i32c(1024), callf(1)), "", 20_000},
		{"places", []string{abi.ImportPlaces}, 10_000, cat(i32c(data), i32c(20_001), callf(1)), "", 20_000},
		{"messages", []string{abi.ImportVerdict}, 10_000, cat(i32c(-1), i32c(3), i32c(data), i32c(1024), callf(1)), "", 0},
		{"lines", []string{abi.ImportLog}, 10_000, cat(i32c(1), i32c(data), i32c(4096), callf(1)), "", 0},
		{"races", []string{abi.ImportMetric}, 100_000, cat(i32c(1), i64c(-1), callf(1)), "", 0},
		{"hashes", []string{abi.ImportSHA256}, 500, cat(i32c(data), i32c(size), i32c(answerAt), callf(1)), "", 0},
		{"times", []string{abi.ImportNow}, 100_000, cat(callf(1), opDrop), "", 0},
		{"random bytes", []string{abi.ImportRandom}, 500, cat(i32c(data), i32c(size), callf(1)), "", 0},
		{"records", []string{abi.ImportAppend}, 500, cat(i32c(data-1), i32c(size), callf(1), opDrop), "", 0},
		{"requests", []string{abi.ImportHTTP}, 150, cat(i32c(textAt), i32c(int32(len(head))), i32c(data), i32c(size), i32c(data), i32c(size), callf(1), opDrop), head, 0},
		{"statements", []string{abi.ImportSQL}, 2_000, cat(letters, i32c(0), i32c(textAt), i32c(1), i32c(data), i32c(size), callf(1), opDrop), string(step) + statement, 0},
		{"output", []string{"fd_write"}, 5_000, cat(iovec, i32c(2), i32c(textAt), i32c(1), i32c(textAt+8), callf(1), opDrop), "", 0},
		{"pseudo-random bytes", []string{"random_get"}, 500, cat(i32c(data), i32c(size), callf(1), opDrop), "", 0},
		{"clock", []string{"clock_time_get"}, 100_000, cat(i32c(0), i64c(0), i32c(textAt), callf(1), opDrop), "", 0},
	} {
		t.Run(strings.Join(c.imports, " ")+", "+c.what, func(t *testing.T) {
			look := cat(i32c(mark), i32c('?'), op(0x3a, 0, 0), i32c(mark), i32c(1), i32c(answerAt), i32c(0), callf(0), opDrop)
			g := grantGuest(`"sql","append","http","kv","now","random"`, c.text, [][]byte{imported(abi.ImportModule, abi.ImportKVGet, typKV)},
				look, op(0x03, 0x40), c.code, turn, i64c(1), op(0x7c), op(0x22, 1), i64c(c.turns), op(0x54), op(0x0d, 0, 0x0b), look)
			g.memory = cat(op(0), leb(128))
			change := g.change
			g.change = func(m *wasmtest.Module) {
				change(m)
				m.Data = append(m.Data, cat(op(0), i32c(data-1+size-1), op(0x0b), str("\n")))
				for _, name := range c.imports {
					asked[name] = true
					module, sig := signature(t, name)
					m.Imports = append(m.Imports, imported(module, name, byte(len(m.Types))))
					m.Types = append(m.Types, sig)
				}
			}
			dir := t.TempDir()
			p := &heapProbe{}
			s := openGuest(t, g.bytes(), Options{
				SQL:    &SQLGrant{Database: filepath.Join(dir, "x.db"), Create: true},
				Append: &appendfile.Options{Path: filepath.Join(dir, "x.jsonl"), MaxSize: 1 << 20, Keep: 2},
				HTTP:   &egress.Policy{Hosts: []egress.HostRule{ruleFor(t, server)}},
				KV:     &KVGrant{Path: filepath.Join(dir, "kv.db"), MaxKeys: 1024, MaxBytes: 64 << 10},
				Now:    true, Random: true, Deadline: 5 * time.Minute, Crashes: openCrashes(t, CrashOptions{}), Probe: p,
			})
			// The second time nothing is left to be made for the first time.
			for range 2 {
				if r := s.Deliver(context.Background(), batchOf(c.events+1, "x")); r.Outcome.HostMade() && r.Outcome != abi.BadABI {
					t.Fatalf("%v %q", r.Outcome, r.Detail)
				}
			}
			if held := p.held[len(p.held)-1] - p.held[len(p.held)-2]; len(p.held) != 4 || held > most {
				t.Errorf("%d bytes more are held after %d turns than before, looked %d times", held, c.turns, len(p.held))
			}
			// That the guest did what it was to do.
			files, _ := filepath.Glob(filepath.Join(dir, "x.jsonl.0*"))
			requests, _ := s.Egress()
			switch c.imports[0] {
			case abi.ImportSQL:
				if len(s.sql.stmts) < maxStatements/2 {
					t.Errorf("%d statements are kept", len(s.sql.stmts))
				}
			case abi.ImportAppend:
				if len(files) != 2 {
					t.Errorf("rotated files: %v", files)
				}
			case abi.ImportHTTP:
				if int64(requests.Requests) != 2*c.turns {
					t.Errorf("%d requests", requests.Requests)
				}
			}
		})
	}
	for _, f := range abi.Imports() {
		if !asked[f.Name] {
			t.Errorf("no case for %s", f.Name)
		}
	}
}

// signature returns the module of a host function and its encoded type.
func signature(t *testing.T, name string) (string, []byte) {
	t.Helper()
	module, list := abi.ImportModule, abi.Imports()
	i := slices.IndexFunc(list, func(s abi.Signature) bool { return s.Name == name })
	if i < 0 {
		module, list = wasiModule, wasiFunctions
		i = slices.IndexFunc(list, func(s abi.Signature) bool { return s.Name == name })
	}
	enc := func(types []abi.ValueType) (out string) {
		for _, v := range types {
			if v == abi.I64 {
				out += "l"
			} else {
				out += "i"
			}
		}
		return out
	}
	return module, sig(enc(list[i].Params), enc(list[i].Results))
}
