package deadletter

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/internal/sqlite/sqlitetest"
	"github.com/audit-host/audit-host/ledger"
)

func openLetters(t testing.TB, path string) *Store {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		soundStore(t, path)
	})
	return d
}

func letter(sink string, i int) abi.DeadLetter {
	payload := fmt.Appendf(nil, `{"n":%d}`, i)
	return abi.DeadLetter{
		Event: abi.Event{ID: fmt.Sprintf("id-%d", i), AgentID: "agent:ä", EventType: "governance.refusal", Timestamp: "2026-01-01T00:00:00+00:00",
			Minted: i%2 == 0, Payload: payload, Seq: uint64(i), PayloadHash: sha256.Sum256(payload), Signature: make([]byte, 64),
			AttestLevel: abi.AttestDaemonSigned, KeyID: "key"},
		Sink: sink, Plugin: "digest", Outcome: abi.Trap, Reason: "unreachable", Stderr: "panic: x\n", Attempts: 3,
		FailedAt: time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC),
	}
}

func TestDeadLettersComeBackAsTheyWerePut(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "dlq.db")
	d := openLetters(t, path)
	unsigned := letter("b", 2)
	unsigned.Event.Signature, unsigned.Event.KeyID, unsigned.Event.AttestLevel = nil, "", abi.AttestUnsigned
	raw := abi.DeadLetter{Event: abi.Event{ID: "raw", Seq: 9, AttestLevel: abi.AttestUnsigned}, Raw: []byte("\x00{not json\xff"), Sink: "opa", Outcome: abi.Reject,
		Reason: "it is no event", FailedAt: time.Unix(0, 0).UTC()}
	letters := []abi.DeadLetter{letter("a", 1), unsigned, raw}
	if err := d.Put(ctx, letters); err != nil {
		t.Fatal(err)
	}
	// With the digest of an event computed from its fields, not kept.
	got, err := d.List(ctx, Filter{})
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range got {
		if got[i].DLQID != int64(i+1) || !reflect.DeepEqual(got[i].DeadLetter, letters[i]) {
			t.Errorf("letter %d:\n got %+v\nwant %+v", i, got[i].DeadLetter, letters[i])
		}
	}
	one, err := d.Get(ctx, 2)
	if err != nil || !reflect.DeepEqual(one.DeadLetter, unsigned) {
		t.Errorf("%+v, %v", one, err)
	}
	if _, err := d.Get(ctx, 99); !errors.Is(err, ErrNoLetter) {
		t.Errorf("%v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestB16_DeadLettersKeepTheSourceSystemsColumns: name and columns are those
// of the source system, in its order.
func TestB16_DeadLettersKeepTheSourceSystemsColumns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dlq.db")
	d := openLetters(t, path)
	var columns []string
	if err := d.reading(context.Background(), func(c *sqlite.Conn) error {
		return c.Each("SELECT name FROM pragma_table_info('signed_events_dlq')", nil, func(s *sqlite.Stmt) error {
			columns = append(columns, s.Text(0))
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	want := "dlq_id id agent_id event_type payload_hash signature attest_level timestamp failure_reason failed_at payload"
	if got := strings.Join(columns, " "); !strings.HasPrefix(got, want) {
		t.Errorf("columns %s", got)
	}
}

// TestDeadLettersPutIsIdempotent: the same letter again changes nothing;
// another event under the same id is another letter.
func TestDeadLettersPutIsIdempotent(t *testing.T) {
	ctx := context.Background()
	d := openLetters(t, filepath.Join(t.TempDir(), "dlq.db"))
	first := letter("a", 1)
	again := first
	again.Reason, again.Attempts, again.FailedAt = "another time", 9, first.FailedAt.Add(time.Hour)
	for _, l := range []abi.DeadLetter{first, again, again} {
		if err := d.Put(ctx, []abi.DeadLetter{l, l}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.List(ctx, Filter{})
	if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0].DeadLetter, first) {
		t.Errorf("%+v, %v", got, err)
	}
	conflict := letter("a", 2)
	conflict.Event.ID = first.Event.ID
	elsewhere := letter("b", 1)
	// What has no id is told apart by its content.
	rawOne, rawTwo := abi.DeadLetter{Raw: []byte("one"), Sink: "opa"}, abi.DeadLetter{Raw: []byte("two"), Sink: "opa"}
	if err := d.Put(ctx, []abi.DeadLetter{conflict, elsewhere, rawOne, rawTwo, rawOne}); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Count(ctx, ""); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := d.Put(ctx, nil); err != nil {
		t.Error(err)
	}
}

func TestDeadLettersListPages(t *testing.T) {
	ctx := context.Background()
	d := openLetters(t, filepath.Join(t.TempDir(), "dlq.db"))
	var letters []abi.DeadLetter
	for i := range 25 {
		letters = append(letters, letter([]string{"a", "b"}[i%2], i))
	}
	if err := d.Put(ctx, letters); err != nil {
		t.Fatal(err)
	}
	for sink, want := range map[string]int{"": 25, "a": 13, "b": 12, "c": 0} {
		var ids []int64
		for after := int64(0); ; {
			page, err := d.List(ctx, Filter{Sink: sink, After: after, Limit: 4})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, l := range page {
				if l.DLQID <= after || sink != "" && l.Sink != sink {
					t.Errorf("sink %q: letter %d of %s after %d", sink, l.DLQID, l.Sink, after)
				}
				after = l.DLQID
				ids = append(ids, after)
			}
		}
		if n, err := d.Count(ctx, sink); len(ids) != want || n != uint64(want) || err != nil {
			t.Errorf("sink %q: %d listed, %d counted, %v; wanted %d", sink, len(ids), n, err, want)
		}
	}
	if ids, err := d.Purge(ctx, Filter{IDs: []int64{1, 2, 2, 77}}); len(ids) != 2 || err != nil {
		t.Errorf("removed %v, %v", ids, err)
	}
	if n, err := d.Count(ctx, ""); n != 23 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	// A number is never used again, so a cursor never skips a letter.
	if ids, err := d.Purge(ctx, Filter{IDs: []int64{25}}); len(ids) != 1 || err != nil {
		t.Errorf("%v, %v", ids, err)
	}
	if err := d.Put(ctx, []abi.DeadLetter{letter("a", 99)}); err != nil {
		t.Fatal(err)
	}
	if page, err := d.List(ctx, Filter{After: 24}); len(page) != 1 || page[0].DLQID != 26 || err != nil {
		t.Errorf("%+v, %v", page, err)
	}
}

// TestT27_DeadLettersOfAFreshDatabase is the source system's
// dlq_size_returns_zero_on_fresh_db; weakness 29: an error is never 0.
func TestT27_DeadLettersOfAFreshDatabase(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "dlq.db")
	d := openLetters(t, path)
	if n, err := d.Count(ctx, ""); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Count(ctx, ""); err == nil {
		t.Errorf("counted %d in a file that is not there", n)
	}
	// The log of the file that is away would be mixed into a new one.
	if err := d.Put(ctx, []abi.DeadLetter{letter("a", 1)}); err == nil || !strings.Contains(err.Error(), "dlq.db-wal") {
		t.Errorf("beside the log of another file: %v", err)
	}
	for _, name := range []string{path + "-wal", path + "-shm"} {
		if err := os.Rename(name, name+".away"); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Put(ctx, []abi.DeadLetter{letter("a", 1)}); err != nil {
		t.Errorf("the next use makes a new file: %v", err)
	}
	if n, err := d.Count(ctx, ""); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if n, err := d.Count(cancelled, ""); err == nil {
		t.Errorf("counted %d after the end", n)
	}
}

func TestDeadLettersConcurrently(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "dlq.db")
	// Two handles stand for two processes.
	handles := []*Store{openLetters(t, path), openLetters(t, path)}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				// Every letter is put by two of the workers.
				if err := handles[w%2].Put(ctx, []abi.DeadLetter{letter("a", w/2*1000+i)}); err != nil {
					t.Error(err)
					return
				}
				if _, err := handles[w%2].List(ctx, Filter{Limit: 3}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n, err := handles[0].Count(ctx, "a"); n != 80 || err != nil {
		t.Errorf("%d letters, %v", n, err)
	}
}

func TestDeadLettersReadOnly(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "dlq.db")
	if d, err := OpenReadOnly(path); err == nil {
		t.Errorf("opened what is not there: %v", d.Close())
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a reader made the file: %v", err)
	}
	d := openLetters(t, path)
	if err := d.Put(ctx, []abi.DeadLetter{letter("a", 1)}); err != nil {
		t.Fatal(err)
	}
	for _, closed := range []bool{false, true} {
		if closed {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		r, err := OpenReadOnly(path)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := r.Count(ctx, ""); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if l, err := r.List(ctx, Filter{}); len(l) != 1 || err != nil {
			t.Errorf("%v, %v", l, err)
		}
		if err := r.Put(ctx, []abi.DeadLetter{letter("a", 2)}); err == nil {
			t.Error("put through a reader")
		}
		if _, err := r.Purge(ctx, Filter{}); err == nil {
			t.Error("deleted through a reader")
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDeadLettersRefuseAnotherDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := ledger.Create(path); err != nil {
		t.Fatal(err)
	}
	before := contents(t, filepath.Dir(path))
	if d, err := Open(path); err == nil || !strings.Contains(err.Error(), "another database") {
		t.Errorf("%v, %v", d, err)
	}
	if d, err := OpenReadOnly(path); err == nil {
		t.Errorf("opened: %v", d.Close())
	}
	if after := contents(t, filepath.Dir(path)); !reflect.DeepEqual(after, before) {
		t.Error("the ledger was changed")
	}
}

// TestDeadLettersSurviveTheirFaults: after a fault the same handle works on.
func TestDeadLettersSurviveTheirFaults(t *testing.T) {
	ctx := context.Background()
	layer, name := sqlitetest.NewFaultFS(t)
	d := openLetters(t, filepath.Join(t.TempDir(), "dlq.db"))
	d.file.Drop(true)
	d.file.Options.VFS = name
	for i := range 10 {
		layer.Write = func(string) error { panic("the engine traps") }
		if err := d.Put(ctx, []abi.DeadLetter{letter("a", i)}); err == nil || !strings.Contains(err.Error(), "the engine traps") {
			t.Errorf("%v", err)
		}
		layer.Write = nil
		if err := d.Put(ctx, []abi.DeadLetter{letter("a", i)}); err != nil {
			t.Error(err)
		}
		if n, err := d.Count(ctx, ""); n != uint64(i+1) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
}

// contents returns every file of a folder.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

// soundStore has a file checked by a connection of its own.
func soundStore(t testing.TB, path string) {
	t.Helper()
	f := sqlite.File{Path: path}
	err := f.Transact(context.Background(), false, func(c *sqlite.Conn) error {
		if v, err := c.Value("PRAGMA integrity_check"); err != nil || v != "ok" {
			return fmt.Errorf("%q, %w", v, err)
		}
		return nil
	})
	if err = errors.Join(err, f.Close()); err != nil {
		t.Errorf("integrity check of %s: %v", path, err)
	}
}
