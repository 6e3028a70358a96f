// Package ledger reads and verifies a ledger. It needs no daemon, no plugin and no
// private key: [Open] and [Reader] give its rows, [Verify] checks all of it, on all
// processors and in constant memory. What a ledger is made of has the leaf package
// chain, which plugins import too.
//
// # What Verify checks
//
// For every row: its sequence, the link to the row before, the
// hash of its payload, its row hash, its signature; that its payload is the
// canonical JSON of one event; and that agent, time and event type in the
// payload are those of the columns. At the end: that no row is missing after
// the last one, as far as SQLite's own counter and a head that was remembered
// elsewhere tell; and that the file is sound, with an index on the id that agrees
// with the rows.
//
// # What that proves
//
// A valid signature protects the text of its event: id, agent, type, time and
// payload are what the holder of the key signed. Which events there are, and in
// which order, only the chain tells, and a chain needs no key: whoever may write
// the file can remove, move or cut off rows and chain the rest anew. He can't do
// that to rows up to a head which somebody else remembers: its row hash covers
// all columns of these rows, and their order.
//
// # Verified, broken, not checked
//
// A [Report] is verified if nothing is broken and all that was asked could be
// checked. Asked for without a word are: rows; the signatures, if there are any,
// and a key was given or not; signatures on all rows, if a key was given; all of
// the ledger's log; and a file that holds nothing else. So an empty ledger, a
// signed one without a key, rows signed by a key that was not given, unsigned rows
// in spite of a key, a log with a damaged frame, and tables of others make a report
// incomplete. NotChecked names these and, besides, what nobody asked for: who wrote
// unsigned rows, and what no remembered head covers.
package ledger
