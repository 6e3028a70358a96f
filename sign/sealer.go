package sign

import (
	"crypto/ed25519"
	"crypto/sha256"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/ledger/chain"
)

// Sealer computes the second part of an event: hashes and signature. It is
// safe for concurrent use.
type Sealer struct {
	private ed25519.PrivateKey // nil: unsigned
	keyID   string
}

// NewSealer returns a sealer that signs with key, or with no key at all if it
// is nil: its events are then unsigned.
func NewSealer(key ed25519.PrivateKey) *Sealer {
	if key == nil {
		return &Sealer{}
	}
	return &Sealer{private: key, keyID: KeyID(key.Public().(ed25519.PublicKey))}
}

// Signs tells whether the sealer has a key.
func (s *Sealer) Signs() bool { return s.private != nil }

// Seal fills in the hashes, signature, level and key id of each event. Ed25519
// is deterministic, so sealing an event again, at a redelivery, changes
// nothing.
func (s *Sealer) Seal(events ...*abi.Event) {
	for _, e := range events {
		e.PayloadHash = sha256.Sum256(e.Payload)
		e.Digest = Digest(e.ID, e.AgentID, e.EventType, e.PayloadHash, e.Timestamp)
		if s.private == nil {
			e.Signature, e.AttestLevel, e.KeyID = nil, abi.AttestUnsigned, ""
			continue
		}
		e.Signature = ed25519.Sign(s.private, e.Digest[:])
		e.AttestLevel, e.KeyID = abi.AttestDaemonSigned, s.keyID
	}
}

// Digest is the event digest of package ledger/chain.
func Digest(id, agentID, eventType string, payloadHash [abi.HashSize]byte, timestamp string) [abi.HashSize]byte {
	var buf [512]byte
	return sha256.Sum256(chain.AppendEventPreimage(buf[:0], id, agentID, eventType, payloadHash[:], timestamp))
}
