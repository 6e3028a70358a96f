package abi

// Place is where a sink that keeps events in an order, as a ledger does, has one. It
// lies in memory as it crosses the boundary, little-endian. The zero value is that of
// an event that was not stored.
type Place struct {
	// Sequence is from 1 to 2^63-1.
	Sequence uint64
	// Flags is PlaceStoredNow or 0.
	Flags uint32
	_     uint32
	// RowHash covers the row and those before it.
	RowHash [HashSize]byte
}

// PlaceSize is the size of a place in bytes.
const PlaceSize = 48

// PlaceStoredNow tells that this delivery has stored the event; without it the event
// was there before, or earlier in the same batch.
const PlaceStoredNow = 1

// Where the parts of a place lie.
const (
	PlaceSequence = 0  // u64
	PlaceFlags    = 8  // u32, and 0 u32
	PlaceRowHash  = 16 // HashSize bytes
)

// StoredNow tells that this delivery has stored the event.
func (p *Place) StoredNow() bool { return p.Flags&PlaceStoredNow != 0 }
