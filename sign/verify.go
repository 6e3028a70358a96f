package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/ledger/chain"
)

// Signatures counts rows by what became of their signature.
type Signatures struct {
	Valid      uint64 `json:"valid"`
	Unsigned   uint64 `json:"unsigned"`
	UnknownKey uint64 `json:"unknown_key"`
	Invalid    uint64 `json:"invalid"`
}

// Add adds the counts of o.
func (s *Signatures) Add(o Signatures) {
	s.Valid += o.Valid
	s.Unsigned += o.Unsigned
	s.UnknownKey += o.UnknownKey
	s.Invalid += o.Invalid
}

// Break is the first row that does not verify.
type Break struct {
	Sequence uint64
	Reason   string
}

// Error names the row and what is wrong with it.
func (b *Break) Error() string { return fmt.Sprintf("row %d: %s", b.Sequence, b.Reason) }

// Link is what a row is chained to: the sequence and row hash of the row before
// it; zeros before the first.
type Link struct {
	Sequence uint64
	RowHash  [chain.HashSize]byte
}

// Checked is what was found out about rows that follow each other.
type Checked struct {
	Rows       int        // that are sound, up to the break
	Head       Link       // the last of them, or what they were chained to
	Signatures Signatures // of these and, if it is at fault for its signature, of the broken row
	Break      *Break     // nil if all are sound
}

// Verifier checks rows. It may be used concurrently, for several parts of one
// ledger say: a part of which the Link is the last row of the sound part before
// it is as sound as if both had been checked together.
type Verifier struct {
	keys  map[string]*publicKey
	works sync.Pool // of *verifyWork
}

// verifyWork is the memory of one call of Check.
type verifyWork struct {
	checker checker
	list    []signed
	rows    []int // of list
	digests [][abi.HashSize]byte
	kinds   []kind
	buf     []byte
}

// kind is what a row's signature is, before it was checked.
type kind uint8

const (
	toCheck kind = iota
	unsigned
	unknownKey
)

// NewVerifier returns a verifier that knows the given public keys.
func NewVerifier(keys ...ed25519.PublicKey) *Verifier {
	v := &Verifier{keys: make(map[string]*publicKey, len(keys))}
	for _, k := range keys {
		v.keys[KeyID(k)] = newPublicKey(k)
	}
	return v
}

// Check checks rows that are chained to prev, up to the first that is not what
// the chain, its own hashes or its signature demand. A signature by an unknown
// key is counted and is no break: the row hash still covers it. The signatures
// are checked together, and one by one if that fails, to name the row.
func (v *Verifier) Check(prev Link, rows []chain.Row) Checked {
	w, _ := v.works.Get().(*verifyWork)
	if w == nil {
		w = &verifyWork{}
	}
	defer v.works.Put(w)
	w.list, w.rows, w.kinds = w.list[:0], w.rows[:0], w.kinds[:0]
	if cap(w.digests) < len(rows) {
		w.digests = make([][abi.HashSize]byte, len(rows))
	}
	c, at := Checked{Head: prev}, prev
	for i := range rows {
		r, digest := &rows[i], &w.digests[:len(rows)][i]
		k, fault := v.row(w, at, r, digest)
		if fault != nil {
			c.Break = fault
			if k == toCheck {
				c.Signatures.Invalid = 1
			}
			break
		}
		if k == toCheck {
			w.list = append(w.list, signed{digest, r.Signature, v.keys[r.KeyID]})
			w.rows = append(w.rows, i)
		}
		w.kinds = append(w.kinds, k)
		at = Link{r.Sequence, [chain.HashSize]byte(r.RowHash)}
		c.Rows++
	}
	if bad := w.checker.bad(w.list); bad >= 0 {
		// It stands before whatever else was found.
		i := w.rows[bad]
		c.Rows, c.Signatures = i, Signatures{Invalid: 1}
		c.Break = &Break{rows[i].Sequence, fmt.Sprintf("the signature is not that of key %s over this event", rows[i].KeyID)}
	}
	for _, k := range w.kinds[:c.Rows] {
		switch k {
		case unsigned:
			c.Signatures.Unsigned++
		case unknownKey:
			c.Signatures.UnknownKey++
		default:
			c.Signatures.Valid++
		}
	}
	if c.Rows > 0 {
		last := &rows[c.Rows-1]
		c.Head = Link{last.Sequence, [chain.HashSize]byte(last.RowHash)}
	}
	return c
}

// row checks all of a row but its signature, and sets digest to its event
// digest. With a break the kind is toCheck if the signature is at fault.
func (v *Verifier) row(w *verifyWork, prev Link, r *chain.Row, digest *[abi.HashSize]byte) (kind, *Break) {
	broken := func(k kind, format string, a ...any) (kind, *Break) {
		return k, &Break{Sequence: r.Sequence, Reason: fmt.Sprintf(format, a...)}
	}
	if want := prev.Sequence + 1; r.Sequence != want {
		return unsigned, &Break{Sequence: want, Reason: fmt.Sprintf("missing, the next row has sequence %d", r.Sequence)}
	}
	if !bytes.Equal(r.PrevHash, prev.RowHash[:]) {
		return broken(unsigned, "prev_hash is %s, the row before has row_hash %s", hex.EncodeToString(r.PrevHash), hex.EncodeToString(prev.RowHash[:]))
	}
	payloadHash := sha256.Sum256(r.Payload)
	if !bytes.Equal(r.PayloadHash, payloadHash[:]) {
		return broken(unsigned, "payload_hash is %s, the payload's is %s", hex.EncodeToString(r.PayloadHash), hex.EncodeToString(payloadHash[:]))
	}
	w.buf = chain.AppendEventPreimage(w.buf[:0], r.ID, r.AgentID, r.EventType, payloadHash[:], r.Timestamp)
	*digest = sha256.Sum256(w.buf)
	w.buf = chain.AppendRowPreimage(w.buf[:0], r.PrevHash, r.Sequence, digest[:], r.Signature, []byte(r.AttestLevel), []byte(r.KeyID))
	if rowHash := sha256.Sum256(w.buf); !bytes.Equal(r.RowHash, rowHash[:]) {
		return broken(unsigned, "row_hash is %s, its columns give %s", hex.EncodeToString(r.RowHash), hex.EncodeToString(rowHash[:]))
	}
	switch key, known := v.keys[r.KeyID]; {
	case r.Signature == nil:
		// NULL and an empty blob or key id have one preimage; only one of
		// them is ever written, so anything else was put there later.
		if r.AttestLevel != abi.AttestUnsigned || r.KeyID != "" {
			return broken(unsigned, "no signature, but level %q and key id %q", r.AttestLevel, r.KeyID)
		}
		return unsigned, nil
	case len(r.Signature) != abi.SignatureSize || r.AttestLevel != abi.AttestDaemonSigned:
		return broken(toCheck, "a signature of %d bytes at level %q", len(r.Signature), r.AttestLevel)
	case !known:
		return unknownKey, nil
	case key == nil:
		return broken(toCheck, "the signature is not that of key %s over this event", r.KeyID)
	}
	return toCheck, nil
}
