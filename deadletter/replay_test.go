package deadletter

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

func numbersOf(letters []Letter) string {
	var out []string
	for i := range letters {
		out = append(out, fmt.Sprint(letters[i].DLQID))
	}
	return strings.Join(out, " ")
}

func TestDeadLettersFilter(t *testing.T) {
	ctx := context.Background()
	d := openLetters(t, filepath.Join(t.TempDir(), "dlq.db"))
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var letters []abi.DeadLetter
	for i := range 8 {
		l := letter([]string{"a", "b"}[i%2], i)
		// 05, 05.5, 06, 06.5: a text that ends earlier is not an earlier time.
		l.FailedAt = begin.Add(time.Duration(i) * 500 * time.Millisecond)
		l.Outcome = []abi.Outcome{abi.Reject, abi.Trap}[i/4]
		letters = append(letters, l)
	}
	if err := d.Put(ctx, letters); err != nil {
		t.Fatal(err)
	}
	if err := d.RecordReplays(ctx, []Replay{{DLQID: 2, At: begin, Resolution: "stored"}, {DLQID: 7, At: begin, Resolution: "stored"}}); err != nil {
		t.Fatal(err)
	}
	trap := abi.Trap
	for _, c := range []struct {
		name string
		f    Filter
		want string
	}{
		{"nothing", Filter{}, "1 2 3 4 5 6 7 8"},
		{"sink", Filter{Sink: "b"}, "2 4 6 8"},
		{"event", Filter{EventID: "id-3"}, "4"},
		{"outcome", Filter{Outcome: &trap}, "5 6 7 8"},
		{"since", Filter{Since: begin.Add(1900 * time.Millisecond)}, "3 4 5 6 7 8"}, // to the second
		{"until", Filter{Until: begin.Add(2 * time.Second)}, "1 2 3 4"},
		{"elsewhere's time", Filter{Since: begin.Add(3 * time.Second).In(time.FixedZone("", 3600))}, "7 8"},
		{"open", Filter{State: StateOpen}, "1 3 4 5 6 8"},
		{"resolved", Filter{State: StateResolved}, "2 7"},
		{"numbers", Filter{IDs: []int64{8, 3, 99}}, "3 8"},
		{"window", Filter{After: 2, UpTo: 6, Limit: 3}, "3 4 5"},
		{"all at once", Filter{IDs: []int64{5, 6, 7}, Sink: "a", Outcome: &trap, Since: begin, Until: begin.Add(time.Hour), State: StateOpen}, "5"},
		{"none", Filter{Sink: "' OR 1"}, ""},
	} {
		got, err := d.List(ctx, c.f)
		if err != nil || numbersOf(got) != c.want {
			t.Errorf("%s: %s, %v; want %s", c.name, numbersOf(got), err, c.want)
		}
		tally, err := d.Tally(ctx, c.f)
		if n := uint64(len(strings.Fields(c.want))); err != nil || tally.Open+tally.Resolved != n && c.f.Limit == 0 {
			t.Errorf("%s: %+v, %v", c.name, tally, err)
		}
	}
	tally, err := d.Tally(ctx, Filter{Sink: "b"})
	if want := (Tally{Open: 3, Resolved: 1, Oldest: begin.Add(1500 * time.Millisecond), Last: 8}); err != nil || tally != want {
		t.Errorf("%+v, %v, want %+v", tally, err, want)
	}
}

// Large letters come in smaller pages, and all of them do.
func TestDeadLettersPagesAreBounded(t *testing.T) {
	ctx := context.Background()
	d := openLetters(t, filepath.Join(t.TempDir(), "dlq.db"))
	for i := range 7 {
		l := letter("a", i)
		l.Event.Payload = []byte(strings.Repeat("x", 6<<20))
		l.Event.PayloadHash = sha256.Sum256(fmt.Append(nil, i))
		if i == 6 {
			l.Raw = l.Event.Payload
		}
		if err := d.Put(ctx, []abi.DeadLetter{l}); err != nil {
			t.Fatal(err)
		}
	}
	var pages []string
	for after := int64(0); ; {
		page, err := d.List(ctx, Filter{After: after})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		pages = append(pages, numbersOf(page))
		after = page[len(page)-1].DLQID
	}
	if got := strings.Join(pages, ", "); got != "1 2 3, 4 5 6, 7" {
		t.Errorf("%s", got)
	}
}

func TestDeadLettersReplays(t *testing.T) {
	ctx := context.Background()
	d := openLetters(t, filepath.Join(t.TempDir(), "dlq.db"))
	first := letter("a", 1)
	if err := d.Put(ctx, []abi.DeadLetter{first}); err != nil {
		t.Fatal(err)
	}
	get := func() Letter {
		t.Helper()
		l, err := d.Get(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	note := func(r Replay) {
		t.Helper()
		r.DLQID = 1
		if err := d.RecordReplays(ctx, []Replay{r}); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	// Not now: only that it was tried is noted.
	note(Replay{At: at, Attempts: 1, Reason: "busy"})
	want := Letter{DLQID: 1, DeadLetter: first, ReplayedAt: at, Replays: 1}
	want.Attempts = 4
	if got := get(); !reflect.DeepEqual(got, want) {
		t.Errorf("not now:\n got %+v\nwant %+v", got, want)
	}
	note(Replay{At: at.Add(1), Attempts: 2, Refused: true, Outcome: abi.Reject, Reason: "still not", Stderr: "s", Plugin: "p2"})
	want.Attempts, want.Replays, want.ReplayedAt = 6, 2, at.Add(1)
	want.Outcome, want.Reason, want.Stderr, want.Plugin = abi.Reject, "still not", "s", "p2"
	if got := get(); !reflect.DeepEqual(got, want) {
		t.Errorf("refused:\n got %+v\nwant %+v", got, want)
	}
	note(Replay{At: at.Add(2), Attempts: 1, Resolution: "stored"})
	want.Attempts, want.Replays, want.ReplayedAt, want.ResolvedAt, want.Resolution = 7, 3, at.Add(2), at.Add(2), "stored"
	if got := get(); !reflect.DeepEqual(got, want) {
		t.Errorf("resolved:\n got %+v\nwant %+v", got, want)
	}
	// What is resolved stays as it is, and is not found any more.
	note(Replay{At: at.Add(3), Refused: true, Reason: "late"})
	if got := get(); !reflect.DeepEqual(got, want) {
		t.Errorf("resolved, and noted again: %+v", got)
	}
	if _, err := d.Find(ctx, "a", "id-1"); !errors.Is(err, ErrNoLetter) {
		t.Errorf("find: %v", err)
	}
	// The same event refused again is an open letter again, under its number.
	again := first
	again.Reason, again.Attempts, again.FailedAt, again.Plugin = "again", 2, at.Add(4), "p3"
	if err := d.Put(ctx, []abi.DeadLetter{again, again}); err != nil {
		t.Fatal(err)
	}
	want.DeadLetter = again
	want.Attempts, want.ResolvedAt, want.Resolution = 9, time.Time{}, ""
	if got := get(); !reflect.DeepEqual(got, want) {
		t.Errorf("refused again:\n got %+v\nwant %+v", got, want)
	}
	cut, cancel := context.WithCancel(ctx)
	cancel()
	if err := d.RecordReplays(cut, []Replay{{DLQID: 1, At: at, Resolution: "x"}}); err == nil {
		t.Error("no error")
	}
	if got := get(); !reflect.DeepEqual(got, want) {
		t.Errorf("given up: %+v", got)
	}
	if err := d.RecordReplays(ctx, nil); err != nil {
		t.Error(err)
	}
}

// The letter of one content is told from that of another under the same id.
func TestDeadLettersFindContent(t *testing.T) {
	ctx := context.Background()
	d := openLetters(t, filepath.Join(t.TempDir(), "dlq.db"))
	one, two := letter("a", 1), letter("a", 2)
	two.Event.ID, two.Reason = one.Event.ID, "the second"
	if err := d.Put(ctx, []abi.DeadLetter{one, two}); err != nil {
		t.Fatal(err)
	}
	got, err := d.FindContent(ctx, "a", "id-1", two.Event.PayloadHash)
	if err != nil || got.Reason != "the second" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, c := range []struct {
		sink, id string
		hash     [32]byte
	}{{"b", "id-1", one.Event.PayloadHash}, {"a", "id-2", one.Event.PayloadHash}, {"a", "id-1", sha256.Sum256(nil)}} {
		if _, err := d.FindContent(ctx, c.sink, c.id, c.hash); !errors.Is(err, ErrNoLetter) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestDeadLettersPurge(t *testing.T) {
	ctx := context.Background()
	d := openLetters(t, filepath.Join(t.TempDir(), "dlq.db"))
	for i := range 5 {
		if err := d.Put(ctx, []abi.DeadLetter{letter("a", i)}); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := d.RecordReplays(ctx, []Replay{{DLQID: int64(i + 1), At: time.Now(), Resolution: "stored"}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, want := range [][]int64{{1, 3}, {5}, nil} {
		ids, err := d.Purge(ctx, Filter{State: StateResolved, Limit: 2})
		if slices.Sort(ids); err != nil || !slices.Equal(ids, want) {
			t.Errorf("%v, %v, want %v", ids, err, want)
		}
	}
	if left, err := d.List(ctx, Filter{}); err != nil || numbersOf(left) != "2 4" {
		t.Errorf("%s, %v", numbersOf(left), err)
	}
}

// A file of the first version is read as it is and upgraded when it is written.
func TestDeadLettersOfTheFirstVersion(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "dlq.db")
	old := sqlite.File{Path: path, Create: true, Opened: func(c *sqlite.Conn) error {
		return upgradeDeadLetters(c, fmt.Sprintf("%s; PRAGMA application_id = %d; PRAGMA user_version = 1", deadLetterSchema, deadLetterID))
	}}
	err := old.Transact(ctx, true, func(c *sqlite.Conn) error {
		s, err := c.PrepareOwn("INSERT INTO signed_events_dlq (" + deadLetterColumns + ") VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")
		if err != nil {
			return err
		}
		l := letter("a", 1)
		return errors.Join(putLetter(s, &l), s.Close())
	})
	if err := errors.Join(err, old.Close()); err != nil {
		t.Fatal(err)
	}
	want := []Letter{{DLQID: 1, DeadLetter: letter("a", 1)}}
	r, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.List(ctx, Filter{State: StateOpen}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read: %+v, %v", got, err)
	}
	if tally, err := r.Tally(ctx, Filter{}); err != nil || tally.Open != 1 || tally.Resolved != 0 {
		t.Errorf("read: %+v, %v", tally, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to upgrade
		d := openLetters(t, path)
		if got, err := d.List(ctx, Filter{}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("upgraded: %+v, %v", got, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d := openLetters(t, path)
	if err := d.write(ctx, func(c *sqlite.Conn) error { return c.Exec("PRAGMA user_version = 3") }); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, open := range []func(string) (*Store, error){Open, OpenReadOnly} {
		if _, err := open(path); err == nil || !strings.Contains(err.Error(), "has the format 3, this audit-host knows 1 to 2") {
			t.Errorf("a later version: %v", err)
		}
	}
}
