package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/ledger/chain"
)

// link gives r the hashes that its columns and the row before demand, as a
// forger without the key would.
func link(r *chain.Row, prev []byte) {
	h := sha256.Sum256(r.Payload)
	r.PayloadHash, r.PrevHash = h[:], prev
	d := Digest(r.ID, r.AgentID, r.EventType, h, r.Timestamp)
	row := sha256.Sum256(chain.AppendRowPreimage(nil, prev, r.Sequence, d[:], r.Signature, []byte(r.AttestLevel), []byte(r.KeyID)))
	r.RowHash = row[:]
}

func chained(n int, key ed25519.PrivateKey) []chain.Row {
	s, prev, rows := NewSealer(key), make([]byte, chain.HashSize), []chain.Row(nil)
	for i := range n {
		e := event()
		e.ID = fmt.Sprint("id-", i)
		s.Seal(&e)
		r := chain.Row{ID: e.ID, AgentID: e.AgentID, EventType: e.EventType, Timestamp: e.Timestamp, AttestLevel: e.AttestLevel,
			KeyID: e.KeyID, Signature: e.Signature, Payload: e.Payload, Sequence: uint64(i + 1)}
		link(&r, prev)
		rows, prev = append(rows, r), r.RowHash
	}
	return rows
}

// verify checks rows together and, besides, in two parts cut at each place and
// one by one: that must make no difference.
func verify(t *testing.T, rows []chain.Row, keys ...ed25519.PublicKey) Checked {
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
	if c := verify(t, chained(5, key), public); c.Break != nil || c.Rows != 5 || c.Head.Sequence != 5 || c.Head.RowHash == [32]byte{} || c.Signatures.Valid != 5 {
		t.Fatalf("an intact chain: %+v", c)
	}
	text := func(s *string) func() { return func() { *s += "x" } }
	blob := func(p *[]byte) func() {
		return func() { c := append([]byte(nil), *p...); c[len(c)-1] ^= 1; *p = c }
	}
	for i := range 5 {
		for column := range 11 {
			rows := chained(5, key)
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
		rows := chained(5, key)
		if c := verify(t, append(rows[:i:i], rows[i+1:]...), public); !breaksAt(c, i+1) {
			t.Errorf("row %d deleted: %v", i+1, c.Break)
		}
		rows = chained(5, key)
		rows[i], rows[i+1] = rows[i+1], rows[i]
		rows[i].Sequence, rows[i+1].Sequence = uint64(i+1), uint64(i+2)
		if c := verify(t, rows, public); !breaksAt(c, i+1) {
			t.Errorf("rows %d and %d swapped: %v", i+1, i+2, c.Break)
		}
		// One row rewritten with hashes of its own, and the next link mended:
		// the source system's chain let that pass.
		rows = chained(5, nil)
		rows[i].AgentID = "mallory"
		link(&rows[i], rows[i].PrevHash)
		rows[i+1].PrevHash = rows[i].RowHash
		if c := verify(t, rows); !breaksAt(c, i+2) {
			t.Errorf("row %d rewritten and the next link mended: %v", i+1, c.Break)
		}
		// Signed, and everything after relinked: the signature tells.
		rows = chained(5, key)
		rows[i].AgentID = "mallory"
		for j := i; j < 5; j++ {
			prev := make([]byte, chain.HashSize)
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
	if c := verify(t, chained(3, key)); c.Break != nil || c.Signatures != (Signatures{UnknownKey: 3}) {
		t.Errorf("unknown key: %v, %+v", c.Break, c.Signatures)
	}
	if c := verify(t, chained(3, nil)); c.Break != nil || c.Signatures != (Signatures{Unsigned: 3}) {
		t.Errorf("unsigned: %v, %+v", c.Break, c.Signatures)
	}
}

// Each comparison notices alone what the others can't see: every row but the one
// that was changed, and that one too, has hashes of its own that are right.
func TestEachComparisonCounts(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	const row = 3
	// relink makes links and row hashes from the changed row on.
	relink := func(rows []chain.Row) {
		for i := row - 1; i < len(rows); i++ {
			link(&rows[i], rows[i-1].RowHash)
		}
	}
	for name, c := range map[string]struct {
		signed  bool
		edit    func(rows []chain.Row, r *chain.Row)
		says    string
		invalid uint64
	}{
		"sequence": {false, func(rows []chain.Row, _ *chain.Row) {
			for i := row - 1; i < len(rows); i++ {
				rows[i].Sequence++
			}
			relink(rows)
		}, "missing, the next row has sequence 4", 0},
		"sequence again": {false, func(rows []chain.Row, r *chain.Row) { r.Sequence--; relink(rows) }, "missing, the next row has sequence 2", 0},
		"link": {false, func(rows []chain.Row, r *chain.Row) {
			link(r, bytes.Repeat([]byte{7}, chain.HashSize))
			for i := row; i < len(rows); i++ {
				link(&rows[i], rows[i-1].RowHash)
			}
		}, "prev_hash is 0707", 0},
		"link, signed": {true, func(rows []chain.Row, r *chain.Row) {
			link(r, bytes.Repeat([]byte{7}, chain.HashSize))
			for i := row; i < len(rows); i++ {
				link(&rows[i], rows[i-1].RowHash)
			}
		}, "prev_hash is 0707", 0},
		"short link": {false, func(rows []chain.Row, r *chain.Row) { link(r, rows[row-2].RowHash[:31]) }, "prev_hash is ", 0},
		"payload hash": {false, func(_ []chain.Row, r *chain.Row) { r.PayloadHash = bytes.Repeat([]byte{7}, chain.HashSize) },
			"payload_hash is 0707", 0},
		"row hash": {false, func(rows []chain.Row, r *chain.Row) {
			r.RowHash = bytes.Repeat([]byte{7}, chain.HashSize)
			for i := row; i < len(rows); i++ {
				link(&rows[i], rows[i-1].RowHash)
			}
		}, "row_hash is 0707", 0},
		"level of an unsigned row":  {false, func(rows []chain.Row, r *chain.Row) { r.AttestLevel = abi.AttestDaemonSigned; relink(rows) }, `no signature, but level "daemon_signed" and key id ""`, 0},
		"key id of an unsigned row": {false, func(rows []chain.Row, r *chain.Row) { r.KeyID = KeyID(public); relink(rows) }, `no signature, but level "unsigned" and key id "`, 0},
		"empty signature":           {false, func(rows []chain.Row, r *chain.Row) { r.Signature = []byte{}; relink(rows) }, `a signature of 0 bytes at level "unsigned"`, 1},
		"short signature":           {true, func(rows []chain.Row, r *chain.Row) { r.Signature = r.Signature[:63]; relink(rows) }, "a signature of 63 bytes", 1},
		"long signature": {true, func(rows []chain.Row, r *chain.Row) {
			r.Signature = append(bytes.Clone(r.Signature), 0)
			relink(rows)
		}, "a signature of 65 bytes", 1},
		"level of a signed row":  {true, func(rows []chain.Row, r *chain.Row) { r.AttestLevel = abi.AttestUnsigned; relink(rows) }, `a signature of 64 bytes at level "unsigned"`, 1},
		"text under a signature": {true, func(rows []chain.Row, r *chain.Row) { r.EventType += "x"; relink(rows) }, "the signature is not that of key " + KeyID(public), 1},
		"signature of another":   {true, func(rows []chain.Row, r *chain.Row) { r.Signature = rows[0].Signature; relink(rows) }, "the signature is not that of key " + KeyID(public), 1},
		"key that is no point": {true, func(rows []chain.Row, r *chain.Row) {
			r.KeyID = KeyID(noPoint)
			relink(rows)
		}, "the signature is not that of key " + KeyID(noPoint), 1},
	} {
		t.Run(name, func(t *testing.T) {
			var rows []chain.Row
			if c.signed {
				rows = chained(5, key)
			} else {
				rows = chained(5, nil)
			}
			c.edit(rows, &rows[row-1])
			v := verify(t, rows, public, stranger.Public().(ed25519.PublicKey), noPoint)
			if !breaksAt(v, row) || !strings.HasPrefix(v.Break.Reason, c.says) || v.Signatures.Invalid != c.invalid ||
				v.Signatures.Valid+v.Signatures.Unsigned != row-1 || v.Head != (Link{row - 1, [32]byte(rows[row-2].RowHash)}) {
				t.Errorf("%+v, %v, want row %d: %s", v, v.Break, row, c.says)
			}
		})
	}
}

func TestSignaturesAdd(t *testing.T) {
	s := Signatures{1, 2, 3, 4}
	s.Add(Signatures{10, 20, 30, 40})
	if s != (Signatures{11, 22, 33, 44}) {
		t.Errorf("%+v", s)
	}
}

// noPoint is the encoding of no point of the curve: its y is not below the field's
// order.
var noPoint = ed25519.PublicKey(bytes.Repeat([]byte{0xff}, ed25519.PublicKeySize))
