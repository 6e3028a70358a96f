package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/ledger"
)

// Signatures counts rows by what became of their signature.
type Signatures struct {
	Valid      uint64 `json:"valid"`
	Unsigned   uint64 `json:"unsigned"`
	UnknownKey uint64 `json:"unknown_key"`
	Invalid    uint64 `json:"invalid"`
}

// Break is the first row that does not verify.
type Break struct {
	Sequence uint64
	Reason   string
}

// Error names the row and what is wrong with it.
func (b *Break) Error() string { return fmt.Sprintf("row %d: %s", b.Sequence, b.Reason) }

// Verifier checks rows one after the other, in constant memory. It is used by
// one goroutine.
type Verifier struct {
	keys       map[string]ed25519.PublicKey
	head       [ledger.HashSize]byte
	rows       uint64
	signatures Signatures
	buf        []byte
}

// NewVerifier returns a verifier at the start of the chain that knows the
// given public keys.
func NewVerifier(keys ...ed25519.PublicKey) *Verifier {
	v := &Verifier{keys: make(map[string]ed25519.PublicKey, len(keys))}
	for _, k := range keys {
		v.keys[KeyID(k)] = k
	}
	return v
}

// Head returns the number of rows verified, which is the last one's sequence,
// and its row hash; zeros before the first row.
func (v *Verifier) Head() (sequence uint64, rowHash [ledger.HashSize]byte) { return v.rows, v.head }

// Signatures returns the counts so far.
func (v *Verifier) Signatures() Signatures { return v.signatures }

// Add checks the next row. It returns a *[Break] if the row is not what the
// chain, its own hashes or its signature demand; after that the verifier must
// not be used again. A signature by an unknown key is counted and is no
// break: the row hash still covers it.
func (v *Verifier) Add(r *ledger.Row) error {
	broken := func(format string, a ...any) error {
		return &Break{Sequence: r.Sequence, Reason: fmt.Sprintf(format, a...)}
	}
	if want := v.rows + 1; r.Sequence != want {
		return &Break{Sequence: want, Reason: fmt.Sprintf("missing, the next row has sequence %d", r.Sequence)}
	}
	if !bytes.Equal(r.PrevHash, v.head[:]) {
		return broken("prev_hash is %s, the row before has row_hash %s", hex.EncodeToString(r.PrevHash), hex.EncodeToString(v.head[:]))
	}
	payloadHash := sha256.Sum256(r.Payload)
	if !bytes.Equal(r.PayloadHash, payloadHash[:]) {
		return broken("payload_hash is %s, the payload's is %s", hex.EncodeToString(r.PayloadHash), hex.EncodeToString(payloadHash[:]))
	}
	digest := Digest(r.ID, r.AgentID, r.EventType, payloadHash, r.Timestamp)
	v.buf = ledger.AppendRowPreimage(v.buf[:0], r.PrevHash, r.Sequence, digest[:], r.Signature, []byte(r.AttestLevel), []byte(r.KeyID))
	rowHash := sha256.Sum256(v.buf)
	if !bytes.Equal(r.RowHash, rowHash[:]) {
		return broken("row_hash is %s, its columns give %s", hex.EncodeToString(r.RowHash), hex.EncodeToString(rowHash[:]))
	}
	switch key, known := v.keys[r.KeyID]; {
	case r.Signature == nil:
		// NULL and an empty blob or key id have one preimage; only one of
		// them is ever written, so anything else was put there later.
		if r.AttestLevel != abi.AttestUnsigned || r.KeyID != "" {
			return broken("no signature, but level %q and key id %q", r.AttestLevel, r.KeyID)
		}
		v.signatures.Unsigned++
	case len(r.Signature) != abi.SignatureSize || r.AttestLevel != abi.AttestDaemonSigned:
		v.signatures.Invalid++
		return broken("a signature of %d bytes at level %q", len(r.Signature), r.AttestLevel)
	case !known:
		v.signatures.UnknownKey++
	case !ed25519.Verify(key, digest[:], r.Signature):
		v.signatures.Invalid++
		return broken("the signature is not that of key %s over this event", r.KeyID)
	default:
		v.signatures.Valid++
	}
	v.rows, v.head = r.Sequence, rowHash
	return nil
}
