// Package event turns what a client sends into an abi.Event whose payload is
// the canonical JSON of one decision, byte for byte as the source system
// wrote it, so that hashes made by either can be compared.
//
// # The payload
//
// An object with exactly the members action, agent_id, decision and
// timestamp, on one line, in canonical form:
//
//   - no white space; the members of every object sorted by the bytes of
//     their names in UTF-8 (not by UTF-16 units: U+FF61 stands before U+10000);
//   - strings are raw UTF-8; only ", \ and the characters below U+0020 are
//     escaped: \b \f \n \r \t, every other one as \u00xx in lower case. DEL,
//     U+2028, <, > and & stand raw;
//   - an integer of 64 bits, signed or unsigned, stands verbatim. Every other
//     number is the nearest float64, written with the fewest digits that read
//     back as the same float64. It is written out, with at least one fraction
//     digit, while its integer part has at most 16 digits or its fraction
//     begins with at most four zeros (1.0, 0.00001, 1000000000000000.0), else
//     with an exponent (1e16, 1e-6, 1.5e-7). "-0" is the float -0.0;
//   - the timestamp is RFC 3339 in UTC, its offset written +00:00, with 0, 3,
//     6 or 9 fraction digits, the fewest that lose nothing.
//
// Refused, with an *Error that names the place: anything that is not exactly
// one JSON value, invalid UTF-8, lone surrogates, a member given twice (after
// its escapes are read), more than MaxDepth levels, numbers beyond float64,
// numbers longer than MaxNumberLen bytes.
//
// # What is kept and what is not
//
// Nothing a client said about its action vanishes: members that a known kind
// does not know are kept, and a kind that is not known is kept as it stands.
// Two things are normalised as the source system does: an optional member
// that is null is left out, and a custom action without a payload has the
// payload null.
//
// A leap second is kept (23:59:60) where UTC can have one, at the end of a
// day, and refused elsewhere. A timestamp finer than a nanosecond is refused
// rather than cut.
//
// # What is not guaranteed
//
// agent_id is what the client claims; nothing here proves it. A float is read
// correctly rounded; a source system built without serde_json's
// float_roundtrip can be off in the last place for numbers of more than 15
// digits. AppendCanonical allocates up to about 60 times the size of a hostile
// text ([0,0,0,…]): bound the text before. The other functions bound it by the
// limit of the payload.
package event
