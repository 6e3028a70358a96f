package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/audit-host/audit-host/ledger"
)

// link gives r the hashes that its columns and the row before demand, as a
// forger without the key would.
func link(r *ledger.Row, prev []byte) {
	h := sha256.Sum256(r.Payload)
	r.PayloadHash, r.PrevHash = h[:], prev
	d := Digest(r.ID, r.AgentID, r.EventType, h, r.Timestamp)
	row := sha256.Sum256(ledger.AppendRowPreimage(nil, prev, r.Sequence, d[:], r.Signature, []byte(r.AttestLevel), []byte(r.KeyID)))
	r.RowHash = row[:]
}

func chain(n int, key ed25519.PrivateKey) []ledger.Row {
	s, prev, rows := NewSealer(key), make([]byte, ledger.HashSize), []ledger.Row(nil)
	for i := range n {
		e := event()
		e.ID = fmt.Sprint("id-", i)
		s.Seal(&e)
		r := ledger.Row{ID: e.ID, AgentID: e.AgentID, EventType: e.EventType, Timestamp: e.Timestamp, AttestLevel: e.AttestLevel,
			KeyID: e.KeyID, Signature: e.Signature, Payload: e.Payload, Sequence: uint64(i + 1)}
		link(&r, prev)
		rows, prev = append(rows, r), r.RowHash
	}
	return rows
}

// verify checks rows together and, besides, in two parts cut at each place and
// one by one: that must make no difference.
func verify(t *testing.T, rows []ledger.Row, keys ...ed25519.PublicKey) Checked {
	t.Helper()
	v := NewVerifier(keys...)
	whole := v.Check(Link{}, rows)
	parts := func(size func(left int) int) {
		t.Helper()
		sum := Checked{}
		for rest := rows; len(rest) > 0 && sum.Break == nil; {
			n := size(len(rest))
			c := v.Check(sum.Head, rest[:n])
			c.Signatures.Add(sum.Signatures)
			c.Rows += sum.Rows
			sum, rest = c, rest[n:]
		}
		if fmt.Sprint(sum.Break) != fmt.Sprint(whole.Break) || sum.Rows != whole.Rows || sum.Head != whole.Head || sum.Signatures != whole.Signatures {
			t.Errorf("in parts %+v, %v; as a whole %+v, %v", sum, sum.Break, whole, whole.Break)
		}
	}
	for cut := 1; cut < len(rows); cut++ {
		parts(func(left int) int {
			if left == len(rows) {
				return cut
			}
			return left
		})
	}
	parts(func(int) int { return 1 })
	return whole
}

// breaksAt tells whether the rows before this one are sound and it is not.
func breaksAt(c Checked, row int) bool {
	return c.Break != nil && c.Break.Sequence == uint64(row) && c.Rows == row-1
}

func TestVerifierNamesEveryChangedRow(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := verify(t, chain(5, key), public); c.Break != nil || c.Rows != 5 || c.Head.Sequence != 5 || c.Head.RowHash == [32]byte{} || c.Signatures.Valid != 5 {
		t.Fatalf("an intact chain: %+v", c)
	}
	text := func(s *string) func() { return func() { *s += "x" } }
	blob := func(p *[]byte) func() {
		return func() { c := append([]byte(nil), *p...); c[len(c)-1] ^= 1; *p = c }
	}
	for i := range 5 {
		for column := range 11 {
			rows := chain(5, key)
			r := &rows[i]
			[]func(){text(&r.ID), text(&r.AgentID), text(&r.EventType), text(&r.Timestamp), text(&r.AttestLevel), text(&r.KeyID),
				blob(&r.PayloadHash), blob(&r.Signature), blob(&r.PrevHash), blob(&r.RowHash), blob(&r.Payload)}[column]()
			if c := verify(t, rows, public); !breaksAt(c, i+1) {
				t.Errorf("row %d, column %d: %v", i+1, column, c.Break)
			}
		}
		if i == 4 {
			break
		}
		rows := chain(5, key)
		if c := verify(t, append(rows[:i:i], rows[i+1:]...), public); !breaksAt(c, i+1) {
			t.Errorf("row %d deleted: %v", i+1, c.Break)
		}
		rows = chain(5, key)
		rows[i], rows[i+1] = rows[i+1], rows[i]
		rows[i].Sequence, rows[i+1].Sequence = uint64(i+1), uint64(i+2)
		if c := verify(t, rows, public); !breaksAt(c, i+1) {
			t.Errorf("rows %d and %d swapped: %v", i+1, i+2, c.Break)
		}
		// One row rewritten with hashes of its own, and the next link mended:
		// the source system's chain let that pass.
		rows = chain(5, nil)
		rows[i].AgentID = "mallory"
		link(&rows[i], rows[i].PrevHash)
		rows[i+1].PrevHash = rows[i].RowHash
		if c := verify(t, rows); !breaksAt(c, i+2) {
			t.Errorf("row %d rewritten and the next link mended: %v", i+1, c.Break)
		}
		// Signed, and everything after relinked: the signature tells.
		rows = chain(5, key)
		rows[i].AgentID = "mallory"
		for j := i; j < 5; j++ {
			prev := make([]byte, ledger.HashSize)
			if j > 0 {
				prev = rows[j-1].RowHash
			}
			link(&rows[j], prev)
		}
		if c := verify(t, rows, public); !breaksAt(c, i+1) || c.Signatures.Invalid != 1 {
			t.Errorf("row %d forged and the chain relinked: %v", i+1, c.Break)
		}
	}
}

func TestVerifierCountsWhatItCannotVouchFor(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := verify(t, chain(3, key)); c.Break != nil || c.Signatures != (Signatures{UnknownKey: 3}) {
		t.Errorf("unknown key: %v, %+v", c.Break, c.Signatures)
	}
	if c := verify(t, chain(3, nil)); c.Break != nil || c.Signatures != (Signatures{Unsigned: 3}) {
		t.Errorf("unsigned: %v, %+v", c.Break, c.Signatures)
	}
}
