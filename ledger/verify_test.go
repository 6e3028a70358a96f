package ledger

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

// fake is a ledger in memory.
type fake struct {
	rows       []chain.Row
	high       uint64
	highErr    error
	problems   []string // of Integrity
	unreadable error
	checks     int   // how often Integrity was called
	err        error // after the rows
}

func (f *fake) readPage(ctx context.Context, after, last uint64, p *rowPage) error {
	p.Rows = p.Rows[:0]
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range f.rows {
		if s := f.rows[i].Sequence; s > after && s <= last && len(p.Rows) < pageRows {
			p.Rows = append(p.Rows, f.rows[i])
		}
	}
	if len(p.Rows) < pageRows && last > f.last() {
		return f.err
	}
	return nil
}

func (f *fake) last() (last uint64) {
	for i := range f.rows {
		last = max(last, f.rows[i].Sequence)
	}
	return last
}

func (f *fake) lastSequence(context.Context) (uint64, error) { return f.last(), nil }

func (f *fake) integrity(context.Context) ([]string, error) {
	f.checks++
	return f.problems, f.unreadable
}

func (f *fake) highWater(context.Context) (uint64, error) { return f.high, f.highErr }

// chained makes rows that are signed by key, or unsigned without one. edit may
// change what the host says of an event before it is sealed.
func chained(t *testing.T, n int, key ed25519.PrivateKey, edit func(i int, r *chain.Row)) *fake {
	t.Helper()
	f := &fake{high: uint64(n)}
	sealer, prev := sign.NewSealer(key), make([]byte, chain.HashSize)
	for i := range n {
		e, _, err := event.FromRefusal("agent:alice", event.Bash{Command: fmt.Sprint("rm ", i)}, event.Decision{Kind: event.KindRefuse, RuleID: "R1", Reason: "no"})
		if err != nil {
			t.Fatal(err)
		}
		r := chain.Row{ID: e.ID, AgentID: e.AgentID, EventType: e.EventType, Timestamp: e.Timestamp, Payload: e.Payload}
		if edit != nil {
			edit(i, &r)
		}
		e.ID, e.AgentID, e.EventType, e.Timestamp, e.Payload = r.ID, r.AgentID, r.EventType, r.Timestamp, r.Payload
		sealer.Seal(&e)
		r.PayloadHash, r.Signature, r.AttestLevel, r.KeyID = e.PayloadHash[:], e.Signature, e.AttestLevel, e.KeyID
		r.Sequence, r.PrevHash = uint64(i+1), prev
		hash := sha256.Sum256(chain.AppendRowPreimage(nil, prev, r.Sequence, e.Digest[:], r.Signature, []byte(r.AttestLevel), []byte(r.KeyID)))
		r.RowHash, prev = hash[:], hash[:]
		f.rows = append(f.rows, r)
	}
	return f
}

func verify(t *testing.T, l source, o VerifyOptions) Report {
	t.Helper()
	r, err := verifyAll(t.Context(), l, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhatCouldNotBeChecked(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, unsigned, empty := chained(t, 3, key, nil), chained(t, 3, nil, nil), &fake{}
	headOf := func(f *fake) *Head { return &Head{3, hex.EncodeToString(f.rows[2].RowHash)} }
	headAt := func(f *fake, n int) *Head { return &Head{uint64(n), hex.EncodeToString(f.rows[n-1].RowHash)} }
	const (
		noHead = "whether rows were removed, moved or cut off the end and the chain made anew, for which no key is needed: no remembered head was given"
		after3 = "whether rows after 3, the remembered head, were removed, moved or cut off"
		after1 = "whether rows after 1, the remembered head, were removed, moved or cut off"
	)
	keys := []ed25519.PublicKey{public}
	for _, c := range []struct {
		name     string
		l        *fake
		o        VerifyOptions
		verified bool
		reason   string
		missing  []string // parts of NotChecked, in order
	}{
		{"signed, key and head", signed, VerifyOptions{Keys: keys, Head: headOf(signed)}, true, "", []string{after3}},
		{"signed, key and early head", signed, VerifyOptions{Keys: keys, Head: headAt(signed, 1)}, true, "", []string{after1}},
		{"signed, key", signed, VerifyOptions{Keys: keys}, true, "", []string{noHead}},
		{"signed, key and own head", signed, VerifyOptions{Keys: keys, Own: headOf(signed)}, true, "", []string{"whether rows after 3 were removed, moved or cut off the end and the chain made anew, for which no key is needed; nor those from 1 on, if the state directory was set back"}},
		{"signed, key, early head and own head", signed, VerifyOptions{Keys: keys, Head: headAt(signed, 1), Own: headOf(signed)}, true, "", []string{"nor those from 2 on, if the state directory was set back"}},
		{"signed, key, head and early own head", signed, VerifyOptions{Keys: keys, Head: headOf(signed), Own: headAt(signed, 1)}, true, "", []string{after3}},
		{"signed, two keys", signed, VerifyOptions{Keys: []ed25519.PublicKey{stranger, public}}, true, "", []string{noHead}},
		{"signed, no key", signed, VerifyOptions{Head: headOf(signed)}, false, "the signatures of 3 rows: no public key was given", []string{"the signatures of 3 rows", after3}},
		{"signed, another key", signed, VerifyOptions{Keys: []ed25519.PublicKey{stranger}}, false, "none of those given", []string{"none of those given", noHead}},
		{"unsigned, no key", unsigned, VerifyOptions{}, true, "", []string{"who wrote 3 rows, and whether their text was changed and the chain made anew: they are unsigned", noHead}},
		{"unsigned, key", unsigned, VerifyOptions{Keys: keys}, false, "although a public key was given", []string{"although a public key was given", noHead}},
		{"damaged log", signed, VerifyOptions{Keys: keys, unread: "a damaged frame"}, false, "may be missing at the end: a damaged frame", []string{"a damaged frame", noHead}},
		{"tables of others", signed, VerifyOptions{Keys: keys, foreign: []string{"table t: DROP TABLE t", "view v: DROP VIEW v"}}, false,
			"does not belong into the file: table t: DROP TABLE t; view v: DROP VIEW v", []string{"DROP TABLE t", noHead}},
		{"what may be there", signed, VerifyOptions{Keys: keys, allowed: []string{"index idx_user_a"}}, true, "", []string{noHead}},
		{"whole, no log", signed, VerifyOptions{Keys: keys, noLog: "x-wal"}, true, "", []string{noHead}},
		{"empty", empty, VerifyOptions{}, false, "any rows: it has none", []string{"it has none", noHead}},
		{"empty, key", empty, VerifyOptions{Keys: keys}, false, "any rows: it has none", []string{"it has none", noHead}},
		{"empty, no log", empty, VerifyOptions{noLog: "x-wal"}, false, "they stand in its log x-wal, which is not beside it: copy both", []string{"x-wal", noHead}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := verify(t, c.l, c.o)
			if r.Verified != c.verified || r.BrokenAt != nil || !strings.Contains(r.Reason, c.reason) || (r.Reason == "") != c.verified {
				t.Errorf("%+v", r)
			}
			if r.Rows != uint64(len(c.l.rows)) || r.Head.Sequence != r.Rows {
				t.Errorf("%d rows, head %+v", r.Rows, r.Head)
			}
			if !slices.Equal(r.Allowed, append([]string{}, c.o.allowed...)) {
				t.Errorf("allowed: %q", r.Allowed)
			}
			if len(r.NotChecked) != len(c.missing) {
				t.Fatalf("not checked: %q, want %q", r.NotChecked, c.missing)
			}
			for i, want := range c.missing {
				if !strings.Contains(r.NotChecked[i], want) {
					t.Errorf("not checked %q, want %q", r.NotChecked[i], want)
				}
			}
		})
	}
}

// The chain of these is right, whoever made them had the key: the contents are
// not those of an event.
func TestContents(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		edit func(r *chain.Row)
		want string
	}{
		"agent":       {func(r *chain.Row) { r.AgentID = "agent:bob" }, "agent_id"},
		"time":        {func(r *chain.Row) { r.Timestamp = "2026-01-01T00:00:00+00:00" }, "timestamp"},
		"type":        {func(r *chain.Row) { r.EventType = event.TypeAllow }, "event_type"},
		"id":          {func(r *chain.Row) { r.ID = "a\nb" }, "id"},
		"not JSON":    {func(r *chain.Row) { r.Payload = []byte("hello") }, "where a value must begin"},
		"no event":    {func(r *chain.Row) { r.Payload = []byte(`{"x":1}`) }, "unknown member"},
		"white space": {func(r *chain.Row) { r.Payload = append([]byte(" "), r.Payload...) }, "canonical form"},
		"an allowed action as a refusal": {func(r *chain.Row) {
			r.Payload = []byte(strings.Replace(string(r.Payload), `{"decision":"refuse","reason":"no","rule_id":"R1"}`, `{"decision":"allow"}`, 1))
		}, "event_type"},
	} {
		t.Run(name, func(t *testing.T) {
			l := chained(t, 4, key, func(i int, r *chain.Row) {
				if i == 2 {
					c.edit(r)
				}
			})
			r := verify(t, l, VerifyOptions{Keys: []ed25519.PublicKey{public}})
			if r.BrokenAt == nil || *r.BrokenAt != 3 || !strings.Contains(r.Reason, c.want) || r.Verified || r.Rows != 2 || r.Head.RowHash != hex.EncodeToString(l.rows[1].RowHash) {
				t.Errorf("%+v, want row 3 with %q", r, c.want)
			}
		})
	}
	// Types of a client's own, and other decisions, are fine.
	l := chained(t, 1, key, func(_ int, r *chain.Row) { r.EventType = "acme.refusal" })
	if r := verify(t, l, VerifyOptions{Keys: []ed25519.PublicKey{public}}); !r.Verified {
		t.Errorf("%+v", r)
	}
}

func TestTheEnd(t *testing.T) {
	whole := chained(t, 3, nil, nil)
	last := hex.EncodeToString(whole.rows[2].RowHash)
	for name, c := range map[string]struct {
		l    *fake
		head *Head
		at   uint64
		want string
	}{
		"counter beyond":        {&fake{rows: whole.rows, high: 5}, nil, 4, "missing at the end, with all up to 5"},
		"counter behind":        {&fake{rows: whole.rows, high: 2}, nil, 4, "set back"},
		"counter gone":          {&fake{rows: whole.rows}, nil, 4, "set back"},
		"head beyond":           {whole, &Head{7, last}, 4, "remembered head 7"},
		"head of another chain": {whole, &Head{2, last}, 2, "the remembered head has " + last},
		"damaged file":          {&fake{rows: whole.rows, high: 3, problems: []string{"row 2 missing from index i", "and more"}}, nil, 0, "row 2 missing from index i; and more"},
		"damaged counter":       {&fake{rows: whole.rows, high: 3, highErr: fmt.Errorf("x: %w", &RowError{Reason: "a damaged page"})}, nil, 0, "counter can't be read: a damaged page"},
		"damaged and cut":       {&fake{rows: whole.rows, high: 4, problems: []string{"row 2 missing from index i"}}, nil, 4, "missing at the end"},
		"all rows gone":         {&fake{high: 3}, nil, 1, "missing at the end"},
		"damaged":               {&fake{rows: whole.rows[:2], high: 3, err: fmt.Errorf("x: %w", &RowError{Sequence: 3, Reason: "a damaged page"})}, nil, 3, "a damaged page"},
	} {
		for _, o := range []VerifyOptions{{Head: c.head}, {Own: c.head}, {Head: &Head{1, hex.EncodeToString(whole.rows[0].RowHash)}, Own: c.head}} {
			r := verify(t, c.l, o)
			if r.BrokenAt == nil || *r.BrokenAt != c.at || !strings.Contains(r.Reason, c.want) || r.Verified {
				t.Errorf("%s: %+v, want row %d with %q", name, r, c.at, c.want)
			}
			if named := slices.Contains(r.NotChecked, fmt.Sprintf("the rows from %d on", c.at)); named != (c.at > 0) || c.at == 0 && r.Rows != 3 {
				t.Errorf("%s: not checked: %q", name, r.NotChecked)
			}
		}
	}
	// A head in the middle is enough to know the rows up to it.
	if r := verify(t, whole, VerifyOptions{Head: &Head{2, hex.EncodeToString(whole.rows[1].RowHash)}}); !r.Verified {
		t.Errorf("%+v", r)
	}
}

func TestFailuresAreNoBreaks(t *testing.T) {
	mine := errors.New("the disk is gone")
	for name, fail := range map[string]func(f *fake){
		"rows":       func(f *fake) { f.err = mine },
		"high water": func(f *fake) { f.highErr = mine },
		"integrity":  func(f *fake) { f.unreadable = mine },
	} {
		l := chained(t, 3, nil, nil)
		fail(l)
		if r, err := verifyAll(t.Context(), l, VerifyOptions{}); !errors.Is(err, mine) || r.Verified {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verifyAll(ctx, chained(t, 3, nil, nil), VerifyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestProgress(t *testing.T) {
	var told []uint64
	verify(t, chained(t, 2*partRows+1, nil, nil), VerifyOptions{Progress: func(n, _ uint64) { told = append(told, n) }})
	if !slices.Equal(told, []uint64{partRows, 2 * partRows, 2*partRows + 1}) {
		t.Errorf("told %v", told)
	}
}

func TestParseHead(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	if h, err := ParseHead("12:" + strings.ToUpper(hash)); err != nil || h != (Head{12, hash}) {
		t.Errorf("%+v, %v", h, err)
	}
	for _, bad := range []string{"", "12", "12:", ":" + hash, "0:" + hash, "-1:" + hash, "1:" + hash[2:], "1:" + hash + "00", "1:" + strings.Repeat("zz", 32), "18446744073709551615:" + hash} {
		if h, err := ParseHead(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, h)
		}
	}
}
