package abi

// Number is a named number of the frame's layout, for SDKs in other languages.
type Number struct {
	Name string
	// Value is an offset in bytes from the start of the header or entry, but for
	// the frame's magic, its sizes and its flags.
	Value uint32
	Doc   string
}

// Layout lists the numbers by which [Batch.Encode] writes a frame and [Parse]
// reads one.
func Layout() []Number {
	return []Number{
		{"FrameMagic", frameMagic, `"AHB1"`},
		{"HeaderSize", headerSize, "least bytes of the header"},
		{"EntrySize", entrySize, "least bytes of the index for each event"},
		{"HeaderMagic", headerMagic, "u32"},
		{"HeaderHeaderSize", headerHeaderSize, "u16: how many bytes it has, at least HEADER_SIZE"},
		{"HeaderEntrySize", headerEntrySize, "u16: from one entry to the next, at least ENTRY_SIZE"},
		{"HeaderCount", headerCount, "number of events, u32"},
		{"HeaderAttempt", headerAttempt, "u32, from 1"},
		{"HeaderBatchID", headerBatchID, "u64, the same for every attempt"},
		{"HeaderFirstSeq", headerFirstSeq, "u64"},
		{"HeaderPayload", headerPayload, "payload region: offset u32, length u32"},
		{"HeaderTotal", headerTotal, "length of the frame, u32"},
		{"HeaderQueue", headerQueue, "id of the queue, 16 bytes"},
		{"EntrySeq", entrySeq, "position in the queue, u64"},
		{"EntryID", entryID, "offset u32, length u32, as the next six"},
		{"EntryAgent", entryAgent, ""},
		{"EntryType", entryType, ""},
		{"EntryTimestamp", entryTimestamp, ""},
		{"EntryKeyID", entryKeyID, ""},
		{"EntryLevel", entryLevel, "attestation level"},
		{"EntryPayload", entryPayload, "canonical JSON, without its line feed"},
		{"EntryFlags", entryFlags, "u32"},
		{"EntryPayloadHash", entryPayHash, "SHA-256 of the payload"},
		{"EntryDigest", entryDigest, "event digest"},
		{"EntrySignature", entrySignature, "Ed25519, or zeros"},
		{"FlagSigned", flagSigned, "the event has a signature"},
		{"FlagMinted", flagMinted, "the timestamp was stamped by the host"},
	}
}
