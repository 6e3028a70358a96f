package host

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// counter is a guest that keeps, under the key k, how many events it has seen:
// it reads the number, adds the batch's, writes it, and runs tail.
func counter(more string, tail ...[]byte) guestModule {
	const at = 128
	load, store := op(0x28, 2, 0), op(0x36, 2, 0)
	third := verdictImport
	if more != "" {
		third = imported("audit", "append", typAppend)
	}
	return grantGuest(`"kv"`+more, "k", [][]byte{imported("audit", "kv_get", typKV), imported("audit", "kv_set", typKV), third},
		i32c(at), i32c(0), store,
		i32c(textAt), i32c(1), i32c(at), i32c(8), callf(0), opDrop,
		i32c(at), i32c(at), load, count, op(0x6a), store,
		i32c(textAt), i32c(1), i32c(at), i32c(4), callf(1), opDrop, cat(tail...))
}

// appends is a line in the file for each call.
var appends = cat(i32c(textAt+1), i32c(5), callf(2), opDrop)

// seen is what the counter has counted.
func seen(s *Sink) uint32 {
	v, _ := s.grants.kv.get("k")
	return binary.LittleEndian.Uint32(append(v, 0, 0, 0, 0))
}

// positions makes a batch of events with these positions, in a queue.
func positions(queue byte, list ...uint64) *abi.Batch {
	b := batchOf(len(list), "x")
	b.Queue[0] = queue
	for i, n := range list {
		b.Events[i].Seq = n
	}
	return b
}

func kvOptions(path string) Options { return Options{Name: "siem", KV: &KVGrant{Path: path}} }

// Changes are kept with OK and PARTIAL and dropped with everything else.
func TestKVIsKeptWithTheOutcome(t *testing.T) {
	verdict := cat(i32c(1), i32c(3), i32c(0), i32c(0), callf(2))
	g := counter("", when(2, says(uint32(abi.Retry), 0)), when(3, says(uint32(abi.Busy), 0)), when(4, says(uint32(abi.Reject), 0)),
		when(5, opUnreachable), when(6, says(uint32(abi.OK), 7)), when(7, cat(verdict, says(uint32(abi.Partial), 6))))
	s := openGuest(t, g.bytes(), kvOptions(filepath.Join(t.TempDir(), "kv.db")))
	want, next := uint32(0), uint64(1)
	for _, c := range []struct {
		n    int
		want abi.Outcome
	}{{1, abi.OK}, {2, abi.Retry}, {3, abi.Busy}, {4, abi.Reject}, {5, abi.Trap}, {6, abi.BadABI}, {7, abi.Partial}, {1, abi.OK}} {
		var list []uint64
		for range c.n {
			list = append(list, next)
			next++
		}
		r := s.Deliver(context.Background(), positions(1, list...))
		if r.Outcome != c.want {
			t.Fatalf("%d events: %v %q", c.n, r.Outcome, r.Detail)
		}
		if r.Outcome == abi.OK || r.Outcome == abi.Partial {
			want += uint32(c.n)
		}
		if got := seen(s); got != want || len(s.grants.kv.staged) != 0 {
			t.Errorf("after %v: %d counted, wanted %d; %d staged", r.Outcome, got, want, len(s.grants.kv.staged))
		}
	}
	// The rejected event may come again: it is the only one of its batch.
	rejected := next - 1 - 7 + 1
	for _, n := range []uint64{rejected - 1, rejected, rejected + 1} {
		if got := s.grants.kv.covered.has(n); got != (n != rejected) {
			t.Errorf("position %d is covered: %v", n, got)
		}
	}
}

// TestKVAndTheCursor: whatever of the acknowledgements is lost, each event is
// counted once, also by a new process.
func TestKVAndTheCursor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	wasm := counter("", when(4, says(uint32(abi.Reject), 0))).bytes()
	for i, c := range []struct {
		batch *abi.Batch
		want  uint32
		says  abi.Outcome
	}{
		{positions(1, 1, 2, 3), 3, abi.OK},
		{positions(1, 1, 2, 3), 3, abi.OK},               // the whole batch again
		{positions(1, 1, 2, 3, 4, 5), 5, abi.OK},         // cut otherwise
		{positions(1, 4, 5, 8), 6, abi.OK},               // with a gap
		{positions(1, 6, 7), 8, abi.OK},                  // which is closed
		{positions(1, 1, 9, 10, 11, 12), 8, abi.Partial}, // refused: not what is stored already
		{positions(1, 9, 10), 10, abi.OK},
		{positions(2, 1, 2), 12, abi.OK}, // another queue has positions of its own
		{positions(2, 0, 0), 14, abi.OK}, // without a place in a queue
		{positions(2, 0, 0), 16, abi.OK},
		{positions(2, 1, 2), 16, abi.OK},
		{positions(0, 0, 0), 18, abi.OK}, // a replay of dead letters is in no queue
		{positions(0, 0), 19, abi.OK},
		{positions(2, 1, 2), 19, abi.OK}, // and takes nothing from what is known of one
	} {
		// Each time another process, as far as the store is concerned.
		s, err := Open(context.Background(), wasm, kvOptions(path))
		if err != nil {
			t.Fatal(err)
		}
		r := s.Deliver(context.Background(), c.batch)
		if r.Outcome != c.says || seen(s) != c.want {
			t.Errorf("batch %d: %v %q, %d counted, wanted %d", i, r.Outcome, r.Detail, seen(s), c.want)
		}
		if r.Outcome == abi.Partial {
			for i, v := range r.Verdicts {
				if want := []abi.Outcome{abi.OK, abi.Retry}[min(i, 1)]; v.Code != want {
					t.Errorf("verdict %d is %v, wanted %v", i, v.Code, want)
				}
			}
		}
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	checkSound(t, path)
}

// A batch that changed nothing costs no transaction, and its positions go
// into the next one.
func TestKVWithoutChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	idle := grantGuest(`"kv"`, "k", nil).bytes()
	s := openGuest(t, idle, kvOptions(path))
	if r := s.Deliver(context.Background(), positions(1, 1, 2)); r.Outcome != abi.OK || s.grants.kv.file.Committed {
		t.Errorf("%v, committed %v", r.Outcome, s.grants.kv.file.Committed)
	}
	if status := s.grants.kv.set("k", []byte{1}); status != abi.StatusDone {
		t.Fatal(status)
	}
	if r := s.Deliver(context.Background(), positions(1, 3)); r.Outcome != abi.OK || !s.grants.kv.file.Committed {
		t.Errorf("%v, committed %v", r.Outcome, s.grants.kv.file.Committed)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s = openGuest(t, idle, kvOptions(path))
	for n := uint64(1); n < 5; n++ {
		if got := s.grants.kv.covered.has(n); got != (n < 4) {
			t.Errorf("position %d is covered: %v", n, got)
		}
	}
}

// What can't be committed is not accepted, and the guest that believes it is
// not asked again.
func TestKVThatCannotBeCommitted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kv.db")
	s := openGuest(t, counter("").bytes(), kvOptions(path))
	if r := s.Deliver(context.Background(), positions(1, 1)); r.Outcome != abi.OK {
		t.Fatalf("%v %q", r.Outcome, r.Detail)
	}
	if err := errors.Join(os.Rename(path, path+".away"), os.Rename(path+"-wal", path+".away-wal"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		r := s.Deliver(context.Background(), positions(1, 2))
		if r.Outcome != abi.Busy || !strings.Contains(r.Detail, "kv store") || s.inst != nil && i == 0 {
			t.Errorf("delivery %d: %v %q, instance %v", i, r.Outcome, r.Detail, s.inst)
		}
	}
	if err := errors.Join(os.Remove(path), os.Rename(path+".away", path), os.Rename(path+".away-wal", path+"-wal")); err != nil {
		t.Fatal(err)
	}
	if r := s.Deliver(context.Background(), positions(1, 2)); r.Outcome != abi.OK || seen(s) != 2 {
		t.Errorf("mended: %v %q, %d counted", r.Outcome, r.Detail, seen(s))
	}
}

// A damaged store stops the start, with the way out; it is not begun anew by
// itself.
func TestKVThatIsDamaged(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"no database": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("not a database ", 1000)), 0o600)
		},
		"spans": func(path string) error {
			c, err := sqlite.Open(context.Background(), path, sqlite.Options{})
			if err != nil {
				return err
			}
			err = c.Protect(func() error { return c.Exec("UPDATE covered SET spans = x'0102'") })
			return errors.Join(err, c.Close())
		},
	} {
		path := filepath.Join(t.TempDir(), "kv.db")
		s := openGuest(t, counter("").bytes(), kvOptions(path))
		if r := s.Deliver(context.Background(), positions(1, 1)); r.Outcome != abi.OK {
			t.Fatalf("%v %q", r.Outcome, r.Detail)
		}
		if err := errors.Join(s.Close(context.Background()), damage(path)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err := Open(context.Background(), counter("").bytes(), kvOptions(path))
			if err == nil || !strings.Contains(err.Error(), "sink siem: grant kv: read "+path) || !strings.Contains(err.Error(), "move it away to begin with an empty store") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestKVLimits(t *testing.T) {
	k := newKVStore(KVGrant{Path: filepath.Join(t.TempDir(), "kv.db"), MaxKeys: 2, MaxBytes: 20}, nil)
	defer func() {
		if err := k.file.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := k.load(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		key   string
		value string
		want  abi.Status
	}{
		{"a", "1234567", abi.StatusDone}, // 8 bytes
		{"b", "12345678901", abi.StatusDone},
		{"b", "123456789012", abi.StatusTooLarge},
		{"c", "", abi.StatusTooLarge}, // a third key
		{"b", "", abi.StatusDone},
		{"a", "", abi.StatusDone},
		{"b", "123456789012345678", abi.StatusDone},
	} {
		if got := k.set(c.key, []byte(c.value)); got != c.want {
			t.Errorf("%d: %v, wanted %v", i, got, c.want)
		}
	}
	if k.set("c", nil) != abi.StatusAbsent || k.set("a", nil) != abi.StatusDone || k.set("a", nil) != abi.StatusAbsent {
		t.Error("delete")
	}
	if k.keys != 1 || k.size != 19 {
		t.Errorf("%d keys, %d bytes", k.keys, k.size)
	}
	if err := k.commit(context.Background(), nil, nil); err != nil || k.keys != 1 || k.size != 19 {
		t.Errorf("%v: %d keys, %d bytes", err, k.keys, k.size)
	}
	// A smaller grant: what is there stays, and may shrink but not grow.
	k.grant.MaxBytes = 5
	if k.set("b", []byte("1234567")) != abi.StatusDone || k.set("b", []byte("12345678")) != abi.StatusTooLarge {
		t.Error("a store beyond its limit")
	}
	k.drop()
	if k.keys != 1 || k.size != 19 {
		t.Errorf("dropped: %d keys, %d bytes", k.keys, k.size)
	}
}

// Whatever one call sets and deletes, what the store holds for it is bounded by
// what is in the store and what the grant allows, and what is committed is what a
// plain map says.
func TestKVChangesOfOneCallAreBounded(t *testing.T) {
	const maxKeys, maxBytes = 8, 400
	path := filepath.Join(t.TempDir(), "kv.db")
	k := newKVStore(KVGrant{Path: path, MaxKeys: maxKeys, MaxBytes: maxBytes}, nil)
	if err := k.load(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	x := uint64(7)
	random := func(n int) int {
		x = x*6364136223846793005 + 1442695040888963407
		return int(x >> 33 % uint64(n))
	}
	for range 20 {
		held := 0
		for key, v := range k.values {
			held += len(key) + len(v)
		}
		for range 500 {
			// Some keys come again and most never do.
			key := fmt.Sprint("key-", random(12))
			if random(3) > 0 {
				key = fmt.Sprint("new-", x)
			}
			if v := strings.Repeat("v", random(60)); k.set(key, []byte(v)) == abi.StatusDone {
				want[key] = v
			}
			if random(8) > 0 {
				_, there := want[key]
				if status := k.set(key, nil); (status == abi.StatusDone) != there {
					t.Fatalf("delete %s: %v, there: %v", key, status, there)
				}
				delete(want, key)
			}
			staged := 0
			for key, v := range k.staged {
				staged += len(key) + len(v)
			}
			if len(k.staged) > len(k.values)+maxKeys || staged > held+maxBytes {
				t.Fatalf("%d changes of %d bytes are held, beside a store of %d keys and %d bytes", len(k.staged), staged, len(k.values), held)
			}
		}
		if err := k.commit(context.Background(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := k.file.Close(); err != nil {
			t.Fatal(err)
		}
		k.loaded = false
		if err := k.load(context.Background()); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for key, v := range k.values {
			got[key] = string(v)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("the store holds %v, wanted %v", got, want)
		}
	}
	if err := k.file.Close(); err != nil {
		t.Error(err)
	}
}

// Statuses of the imports, by a guest's call.
func TestKVImports(t *testing.T) {
	call := func(name string, typ byte, args ...int32) (abi.Status, uint32) {
		t.Helper()
		var code []byte
		for _, a := range args {
			code = cat(code, i32c(a))
		}
		g := grantGuest(`"kv"`, "kv", [][]byte{verdictImport, imported("audit", name, typ)}, code, callf(1), op(0x21, 1),
			// RETRY with status << 20 | n.
			op(0x20, 1), i64c(32), op(0x88), i64c(20), op(0x86), op(0x20, 1), i64c(1<<20-1), op(0x83), op(0x84),
			i64c(int64(abi.Retry)<<32), op(0x84), opReturn)
		s := openGuest(t, g.bytes(), kvOptions(filepath.Join(t.TempDir(), "kv.db")))
		if status := s.grants.kv.set("v", []byte("four")); status != abi.StatusDone {
			t.Fatal(status)
		}
		if err := s.grants.kv.commit(context.Background(), nil, nil); err != nil {
			t.Fatal(err)
		}
		a := s.Deliver(context.Background(), positions(1, 1)).RetryAfter.Milliseconds()
		return abi.Status(a >> 20), uint32(a & (1<<20 - 1))
	}
	for _, c := range []struct {
		name string
		typ  byte
		args []int32
		want abi.Status
		n    uint32
	}{
		{"kv_get", typKV, []int32{textAt, 1, answerAt, 100}, abi.StatusAbsent, 0},
		{"kv_get", typKV, []int32{textAt + 1, 1, answerAt, 4}, abi.StatusDone, 4},
		{"kv_get", typKV, []int32{textAt + 1, 1, answerAt, 3}, abi.StatusTooLarge, 4},
		{"kv_get", typKV, []int32{textAt, 0, answerAt, 3}, abi.StatusInvalid, 0},
		{"kv_get", typKV, []int32{textAt, 257, answerAt, 3}, abi.StatusTooLarge, 0},
		{"kv_set", typKV, []int32{textAt, 256, answerAt, 64 << 10}, abi.StatusDone, 0},
		{"kv_set", typKV, []int32{textAt, 1, answerAt, 64<<10 + 1}, abi.StatusTooLarge, 0},
		{"kv_set", typKV, []int32{textAt, 0, answerAt, 1}, abi.StatusInvalid, 0},
		{"kv_delete", typAppend, []int32{textAt, 1}, abi.StatusAbsent, 0},
		{"kv_delete", typAppend, []int32{textAt + 1, 1}, abi.StatusDone, 0},
	} {
		if status, n := call(c.name, c.typ, c.args...); status != c.want || n != c.n {
			t.Errorf("%s%v: %v, %d; wanted %v, %d", c.name, c.args, status, n, c.want, c.n)
		}
	}
}

// killChild is the folder in which a child of TestKilledWithGrants works.
const killChild = "AUDIT_HOST_TEST_KILL_GRANTS"

// TestKilledWithGrants kills a process with SIGKILL while its sink appends and
// counts, and has what it may not have acknowledged delivered again, as the
// queue would: every event is in the file at least once, and counted exactly
// once.
func TestKilledWithGrants(t *testing.T) {
	open := func(dir string) (*Sink, error) {
		g := counter(`,"append"`, appends)
		change := g.change
		g.change = func(m *wasmtest.Module) {
			change(m)
			m.Data = [][]byte{cat(op(0), i32c(textAt), op(0x0b), str("kline\n"))}
		}
		o := kvOptions(filepath.Join(dir, "kv.db"))
		o.Append = &appendfile.Options{Path: filepath.Join(dir, "out.jsonl"), MaxSize: 300}
		return Open(context.Background(), g.bytes(), o)
	}
	if dir := os.Getenv(killChild); dir != "" {
		cache, err := OpenCache(os.Getenv(startChild))
		if err == nil {
			err = StartSQLite(cache)
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := open(dir)
		if err != nil {
			t.Fatal(err)
		}
		from, err := strconv.ParseUint(os.Getenv(killChild+"_FROM"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for n := from; ; n++ {
			if r := s.Deliver(context.Background(), positions(1, n)); r.Outcome != abi.OK {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
			fmt.Printf("stored %d\n", n)
		}
	}
	dir, code := t.TempDir(), filepath.Join(t.TempDir(), "cache")
	var told, next uint64 = 0, 1
	for round := range 5 {
		cmd := osexec.Command(os.Args[0], "-test.run=^TestKilledWithGrants$", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), killChild+"="+dir, killChild+"_FROM="+strconv.FormatUint(next, 10), startChild+"="+code)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		scan := bufio.NewScanner(out)
		for n := 0; scan.Scan(); {
			if s, ok := strings.CutPrefix(scan.Text(), "stored "); ok {
				if told, err = strconv.ParseUint(s, 10, 64); err != nil {
					t.Fatal(err)
				}
				if n++; n == 5+9*round {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the child ended by itself: %v", err)
		}
		// The cursor lags behind: the last three come again, and so does what
		// was stored and not told.
		next = max(1, told-2)
	}
	s, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	last := told + 3
	for n := next; n <= last; n++ {
		if r := s.Deliver(context.Background(), positions(1, n)); r.Outcome != abi.OK {
			t.Fatalf("%v %q", r.Outcome, r.Detail)
		}
	}
	if got := seen(s); uint64(got) != last {
		t.Errorf("%d events counted, there were %d", got, last)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "out.jsonl*"))
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for _, f := range files {
		if strings.HasSuffix(f, ".lock") {
			continue
		}
		for _, l := range lines(t, f) {
			if l == "line" {
				whole++
			}
		}
	}
	if uint64(whole) < last || uint64(whole) > last+5 {
		t.Errorf("%d lines for %d events and 5 kills", whole, last)
	}
	checkSound(t, filepath.Join(dir, "kv.db"))
}

// TestSpans compares the set with one that is simply a map.
func TestSpans(t *testing.T) {
	var s spans
	want := map[uint64]bool{}
	x := uint64(1)
	for i := range 4000 {
		x = x*6364136223846793005 + 1442695040888963407
		n := x >> 33 % 700
		s.add(n)
		if n != 0 {
			want[n] = true
		}
		if i%97 != 0 {
			continue
		}
		for n := range uint64(702) {
			if s.has(n) != want[n] {
				t.Fatalf("after %d: %d is in the set: %v", i, n, s.has(n))
			}
		}
		back, err := decodeSpans(s.encode())
		if err != nil || fmt.Sprint(back) != fmt.Sprint(s) {
			t.Fatalf("%v read back as %v, %v", s, back, err)
		}
	}
	s = nil
	for n := range uint64(maxSpans + 10) {
		s.add(1000 - 1 + 2*n)
	}
	if len(s) != maxSpans || s.has(999+18) || !s.has(999+20) {
		t.Errorf("%d spans, the first is %v", len(s), s[0])
	}
	s = nil
	s.add(^uint64(0))
	s.add(^uint64(0) - 1)
	s.add(1)
	if len(s) != 2 || !s.has(^uint64(0)) || s.has(0) {
		t.Errorf("%v", s)
	}
	for name, b := range map[string][]byte{"cut": s.encode()[:17], "backwards": spans{{3, 2}}.encode(), "zero": spans{{0, 2}}.encode(), "order": spans{{5, 6}, {6, 7}}.encode()} {
		if _, err := decodeSpans(b); !errors.Is(err, errSpans) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
