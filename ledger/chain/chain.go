// Package chain is the ledger's format: the table, the event digest and the
// hash chain. The sink that writes rows and the verifier that checks them
// both take it from here, and nothing else defines it.
//
// All integers are big-endian. lp(x) is the length of x in bytes as a u32,
// then x. Hashes are SHA-256.
//
//	event digest = H("audit-host event v1" 0x00
//	                 lp(id) lp(agent_id) lp(event_type) lp(payload_hash) lp(timestamp))
//	row_hash     = H("audit-host row v1" 0x00
//	                 prev_hash(32) sequence(u64) event_digest(32)
//	                 lp(signature) lp(attest_level) lp(key_id))
//
// payload_hash is H(payload), signature is Ed25519 over the 32 bytes of the
// event digest, or empty. prev_hash is the row_hash of the row before, 32
// zero bytes for row 1. Sequences start at 1 and have no gaps.
//
// Guarantee: the encodings are injective and the chain is cumulative, so a
// changed byte in any column of any row changes that row's hash or breaks its
// check, and with it every later row. A row hash therefore covers all columns of
// its row and of those before it, and their order: whoever remembers one can tell
// if any of that was changed. Not guaranteed without it: that nobody with write
// access and without the key removed, moved or cut off rows, made all hashes anew
// and set sqlite_sequence. A signature covers its event's text, and nothing of
// where it stands.
//
// The package imports no hash function: inside a plugin hashing is the
// host's work.
package chain

import "encoding/binary"

// HashSize is the size in bytes of every hash of the ledger.
const HashSize = 32

// ApplicationID is SQLite's application_id of a ledger file ("AHL1").
const ApplicationID = 0x41484c31

// SchemaVersion is SQLite's user_version of a ledger file.
const SchemaVersion = 1

// Table is the name of the ledger's table.
const Table = "signed_events"

// Schema makes an empty ledger. The nine columns of the source system keep
// their names; sequence is the integer key because that is worth as much
// speed as the engine, and AUTOINCREMENT because sqlite_sequence then tells
// when rows are missing at the end.
var Schema = []string{
	`CREATE TABLE signed_events (
  id TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  payload_hash BLOB NOT NULL,
  signature BLOB,
  attest_level TEXT NOT NULL DEFAULT 'unsigned',
  timestamp TEXT NOT NULL,
  prev_hash BLOB NOT NULL,
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  payload TEXT NOT NULL,
  key_id TEXT,
  row_hash BLOB NOT NULL
) STRICT`,
	`CREATE UNIQUE INDEX idx_signed_events_id ON signed_events(id)`,
	`CREATE TABLE queue_positions (
  queue BLOB NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT, WITHOUT ROWID`,
	`PRAGMA application_id = 1095257137`,
	`PRAGMA user_version = 1`,
}

// Columns lists the columns in the order in which sinks insert and the
// verifier selects them.
const Columns = "id, agent_id, event_type, payload_hash, signature, attest_level, timestamp, prev_hash, sequence, payload, key_id, row_hash"

// NumColumns is the number of Columns.
const NumColumns = 12

const (
	eventDomain = "audit-host event v1\x00"
	rowDomain   = "audit-host row v1\x00"
)

func appendLP[T string | []byte](dst []byte, x T) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(x)))
	return append(dst, x...)
}

// AppendEventPreimage appends the bytes whose SHA-256 is the event digest.
func AppendEventPreimage[T string | []byte](dst []byte, id, agentID, eventType T, payloadHash []byte, timestamp T) []byte {
	dst = append(dst, eventDomain...)
	dst = appendLP(dst, id)
	dst = appendLP(dst, agentID)
	dst = appendLP(dst, eventType)
	dst = appendLP(dst, payloadHash)
	return appendLP(dst, timestamp)
}

// AppendRowPreimage appends the bytes whose SHA-256 is the row hash. An
// unsigned row has an empty signature and key id.
func AppendRowPreimage(dst, prevHash []byte, sequence uint64, digest, signature, attestLevel, keyID []byte) []byte {
	dst = append(dst, rowDomain...)
	dst = append(dst, prevHash...)
	dst = binary.BigEndian.AppendUint64(dst, sequence)
	dst = append(dst, digest...)
	dst = appendLP(dst, signature)
	dst = appendLP(dst, attestLevel)
	return appendLP(dst, keyID)
}
