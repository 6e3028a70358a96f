package ledger

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

// Several readers say the same as one, whatever is wrong and wherever.
func TestManyReadersSayWhatOneSays(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	const rows = 3*partRows + 7
	whole, signed := chained(t, rows, nil, nil), chained(t, rows, key, nil)
	edited := func(l *fake, i int, edit func(r *chain.Row)) *fake {
		f := &fake{rows: slices.Clone(l.rows), high: rows}
		edit(&f.rows[i])
		return f
	}
	change := func(i int, edit func(r *chain.Row)) *fake { return edited(whole, i, edit) }
	other := func(b []byte) []byte {
		b = slices.Clone(b)
		b[3] ^= 1
		return b
	}
	type trial struct {
		name string
		l    *fake
		head *Head
	}
	trials := []trial{
		{"sound", whole, nil},
		{"sound, signed", signed, nil},
		{"remembered", whole, &Head{partRows, hex.EncodeToString(whole.rows[partRows-1].RowHash)}},
		{"remembered otherwise", whole, &Head{partRows, hex.EncodeToString(whole.rows[0].RowHash)}},
		{"failing", &fake{rows: whole.rows, high: rows, err: errors.New("gone")}, nil},
		{"damaged", &fake{rows: whole.rows[:partRows], high: rows, err: &RowError{Sequence: partRows + 1, Reason: "a damaged page"}}, nil},
	}
	for _, i := range []int{0, 1, partRows - 2, partRows - 1, partRows, partRows + 1, 2*partRows - 1, 2 * partRows, rows - 1} {
		trials = append(trials,
			trial{fmt.Sprintf("row hash %d", i), change(i, func(r *chain.Row) { r.RowHash = other(r.RowHash) }), nil},
			trial{fmt.Sprintf("previous hash %d", i), change(i, func(r *chain.Row) { r.PrevHash = other(r.PrevHash) }), nil},
			trial{fmt.Sprintf("short previous hash %d", i), change(i, func(r *chain.Row) { r.PrevHash = r.PrevHash[:31] }), nil},
			trial{fmt.Sprintf("payload %d", i), change(i, func(r *chain.Row) { r.Payload = other(r.Payload) }), nil},
			trial{fmt.Sprintf("gap %d", i), &fake{rows: slices.Delete(slices.Clone(whole.rows), i, i+1), high: rows}, nil},
			trial{fmt.Sprintf("part gone %d", i), &fake{rows: slices.Delete(slices.Clone(whole.rows), i, min(rows, i+partRows+3)), high: rows}, nil},
		)
		// The link alone: this row and all behind it have hashes that are right.
		trials = append(trials, trial{fmt.Sprintf("relinked %d", i), change(i, func(r *chain.Row) { r.PrevHash = other(r.PrevHash) }).relinked(i), nil})
		far := change(i, func(r *chain.Row) { r.Sequence = 1 << 62 })
		far.rows = append(slices.Delete(far.rows, i, i+1), far.rows[i])
		trials = append(trials, trial{fmt.Sprintf("far away %d", i), far, nil})
	}
	for _, i := range []int{0, partRows - 1, partRows, partRows + 1, rows - 1} {
		trials = append(trials, trial{fmt.Sprintf("signature %d", i), edited(signed, i, func(r *chain.Row) { r.Signature = other(r.Signature) }).relinked(i), nil})
	}
	for _, c := range trials {
		o := VerifyOptions{Head: c.head}
		if c.l.rows[0].Signature != nil {
			o.Keys = []ed25519.PublicKey{public}
		}
		want, wantErr := verifyAll(t.Context(), c.l, o)
		if sound := slices.Contains([]string{"sound", "sound, signed", "remembered"}, c.name); want.Verified != sound || sound != (wantErr == nil && want.BrokenAt == nil) {
			t.Fatalf("%s: one reader says %+v, %v", c.name, want, wantErr)
		}
		var row uint64
		switch name, number, _ := strings.Cut(c.name, " "); name {
		case "relinked", "signature":
			if _, err := fmt.Sscan(number, &row); err != nil || want.BrokenAt == nil || *want.BrokenAt != row+1 || want.Rows != row {
				t.Errorf("%s: %+v, %v", c.name, want, err)
			}
			if name == "signature" && want.Signatures != (sign.Signatures{Valid: row, Invalid: 1}) {
				t.Errorf("%s: %+v", c.name, want.Signatures)
			}
		}
		for range 2 {
			o.readers = append(o.readers, c.l)
			got, err := verifyAll(t.Context(), c.l, o)
			if !reflect.DeepEqual(got, want) || (err == nil) != (wantErr == nil) {
				t.Errorf("%s: %d readers say %+v, %v; one %+v, %v", c.name, 1+len(o.readers), got, err, want, wantErr)
			}
		}
	}
}

// relinked makes the hash of row i, as it is chained, and links and hashes of all
// behind it.
func (f *fake) relinked(i int) *fake {
	for ; i < len(f.rows); i++ {
		r := &f.rows[i]
		digest := sign.Digest(r.ID, r.AgentID, r.EventType, [chain.HashSize]byte(r.PayloadHash), r.Timestamp)
		hash := sha256.Sum256(chain.AppendRowPreimage(nil, r.PrevHash, r.Sequence, digest[:], r.Signature, []byte(r.AttestLevel), []byte(r.KeyID)))
		if r.RowHash = hash[:]; i+1 < len(f.rows) {
			f.rows[i+1].PrevHash = r.RowHash
		}
	}
	return f
}

// The file is checked once, by the first reader, however many there are.
func TestTheFileIsCheckedOnce(t *testing.T) {
	l, other := chained(t, 3*partRows, nil, nil), chained(t, 3*partRows, nil, nil)
	other.rows = l.rows
	if r := verify(t, l, VerifyOptions{readers: []source{other, other}}); !r.Verified || l.checks != 1 || other.checks != 0 {
		t.Errorf("%+v, checked %d and %d times", r, l.checks, other.checks)
	}
}

// What other readers see is believed only where it fits what the first one sees.
func TestTheFirstReaderIsTheOneThatCounts(t *testing.T) {
	const rows = 4*partRows + 7
	mine, theirs := chained(t, rows, nil, nil), chained(t, rows, nil, nil)
	want := verify(t, mine, VerifyOptions{})
	for name, other := range map[string]source{
		"another chain": theirs,
		"empty":         &fake{},
		"behind":        &fake{rows: mine.rows[:partRows+1]},
		"ahead":         &fake{rows: append(slices.Clone(mine.rows), theirs.rows[rows-1])},
		"failing":       &failing{},
	} {
		for _, first := range []source{mine, &late{fake: mine}} {
			if got := verify(t, first, VerifyOptions{readers: []source{other, other, other}}); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, want %+v", name, got, want)
			}
		}
	}
}

// late lets the others take every part that they can take without it.
type late struct {
	*fake
	yielded bool
}

func (l *late) readPage(ctx context.Context, after, last uint64, p *rowPage) error {
	for range 10_000 {
		if !l.yielded {
			runtime.Gosched()
		}
	}
	l.yielded = true
	return l.fake.readPage(ctx, after, last, p)
}

type failing struct{ fake }

func (*failing) readPage(context.Context, uint64, uint64, *rowPage) error {
	return errors.New("the disk is gone")
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	l := chained(t, 4*partRows, nil, nil)
	for at := uint64(1); at <= 4; at++ {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := verifyAll(ctx, l, VerifyOptions{readers: []source{l, l}, Progress: func(rows, _ uint64) {
			if rows == at*partRows {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d parts: %v", at, err)
		}
	}
}
