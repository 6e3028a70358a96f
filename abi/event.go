package abi

// HashSize is the size in bytes of every hash that crosses the boundary
// (SHA-256).
const HashSize = 32

// SignatureSize is the size in bytes of an Ed25519 signature.
const SignatureSize = 64

// Limits of the texts of an event, in bytes.
const (
	MaxIDLen        = 128
	MaxAgentIDLen   = 256
	MaxEventTypeLen = 64
)

// Attestation levels of a row.
const (
	AttestUnsigned     = "unsigned"
	AttestDaemonSigned = "daemon_signed"
)

// Event is one decision on its way into the ledger. The first part is fixed
// when the event is accepted; the second part (the seal) is computed on the
// host before delivery.
type Event struct {
	// ID is the idempotency key: a UUIDv7 minted at acceptance, or the
	// caller's own, 1 to MaxIDLen bytes.
	ID string
	// AgentID names who was refused, 1 to MaxAgentIDLen bytes.
	AgentID string
	// EventType is "governance.refusal" for a refusal, 1 to MaxEventTypeLen bytes.
	EventType string
	// Timestamp is RFC 3339 in UTC with the offset written as +00:00.
	Timestamp string
	// Minted tells that Timestamp was stamped at acceptance because the
	// caller gave none: a repetition of the same ID may carry another one.
	Minted bool
	// Payload is the canonical JSON of the event: one line without its line
	// feed.
	Payload []byte

	// Seq is the event's position in the queue.
	Seq uint64
	// PayloadHash is the SHA-256 of Payload.
	PayloadHash [HashSize]byte
	// Digest is the event digest (package ledger/chain), the text that is signed.
	Digest [HashSize]byte
	// Signature is nil for an unsigned event, else SignatureSize bytes.
	Signature []byte
	// AttestLevel is AttestUnsigned or AttestDaemonSigned.
	AttestLevel string
	// KeyID names the key of Signature; empty for an unsigned event.
	KeyID string
}
