package chain

// Row is one row of the ledger as it was read. Signature is nil where the
// column is NULL, and not nil where it is an empty blob; KeyID does not tell
// the two apart.
type Row struct {
	ID, AgentID, EventType, Timestamp string
	AttestLevel, KeyID                string
	PayloadHash, Signature            []byte
	PrevHash, RowHash, Payload        []byte
	Sequence                          uint64
}
