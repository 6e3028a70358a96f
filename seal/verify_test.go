package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
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

func verify(rows []ledger.Row, keys ...ed25519.PublicKey) (*Verifier, *Break) {
	v := NewVerifier(keys...)
	for i := range rows {
		var b *Break
		if errors.As(v.Add(&rows[i]), &b) {
			return v, b
		}
	}
	return v, nil
}

func TestVerifierNamesEveryChangedRow(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	v, b := verify(chain(5, key), public)
	if n, head := v.Head(); b != nil || n != 5 || head == [32]byte{} || v.Signatures().Valid != 5 {
		t.Fatalf("an intact chain: %v, %d rows, %+v", b, n, v.Signatures())
	}
	text := func(s *string) func() { return func() { *s += "x" } }
	blob := func(p *[]byte) func() {
		return func() { c := append([]byte(nil), *p...); c[len(c)-1] ^= 1; *p = c }
	}
	for i := range 5 {
		for c := range 11 {
			rows := chain(5, key)
			r := &rows[i]
			[]func(){text(&r.ID), text(&r.AgentID), text(&r.EventType), text(&r.Timestamp), text(&r.AttestLevel), text(&r.KeyID),
				blob(&r.PayloadHash), blob(&r.Signature), blob(&r.PrevHash), blob(&r.RowHash), blob(&r.Payload)}[c]()
			if _, b := verify(rows, public); b == nil || b.Sequence != uint64(i+1) {
				t.Errorf("row %d, column %d: %v", i+1, c, b)
			}
		}
		if i == 4 {
			break
		}
		rows := chain(5, key)
		if _, b := verify(append(rows[:i:i], rows[i+1:]...), public); b == nil || b.Sequence != uint64(i+1) {
			t.Errorf("row %d deleted: %v", i+1, b)
		}
		rows = chain(5, key)
		rows[i], rows[i+1] = rows[i+1], rows[i]
		rows[i].Sequence, rows[i+1].Sequence = uint64(i+1), uint64(i+2)
		if _, b := verify(rows, public); b == nil || b.Sequence != uint64(i+1) {
			t.Errorf("rows %d and %d swapped: %v", i+1, i+2, b)
		}
		// One row rewritten with hashes of its own, and the next link mended:
		// the source system's chain let that pass.
		rows = chain(5, nil)
		rows[i].AgentID = "mallory"
		link(&rows[i], rows[i].PrevHash)
		rows[i+1].PrevHash = rows[i].RowHash
		if _, b := verify(rows); b == nil || b.Sequence != uint64(i+2) {
			t.Errorf("row %d rewritten and the next link mended: %v", i+1, b)
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
		if v, b := verify(rows, public); b == nil || b.Sequence != uint64(i+1) || v.Signatures().Invalid != 1 {
			t.Errorf("row %d forged and the chain relinked: %v", i+1, b)
		}
	}
}

func TestVerifierCountsWhatItCannotVouchFor(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, b := verify(chain(3, key)); b != nil || v.Signatures() != (Signatures{UnknownKey: 3}) {
		t.Errorf("unknown key: %v, %+v", b, v.Signatures())
	}
	if v, b := verify(chain(3, nil)); b != nil || v.Signatures() != (Signatures{Unsigned: 3}) {
		t.Errorf("unsigned: %v, %+v", b, v.Signatures())
	}
}
