package abi

// The sql capability: one call runs one script of steps in one transaction
// and answers with the rows of its queries. README.md has the layout.

// Modes of a script.
const (
	// SQLRead runs the steps in a deferred transaction that may not write.
	SQLRead uint32 = 0
	// SQLWrite runs the steps in an IMMEDIATE transaction.
	SQLWrite uint32 = 1
)

// Kinds of steps.
const (
	// SQLExec runs one statement and ignores its rows.
	SQLExec uint32 = 0
	// SQLQuery runs one statement and returns its rows.
	SQLQuery uint32 = 1
	// SQLGuard runs one query and compares its first row with the cells of
	// the step; if they differ the transaction is rolled back, the status is
	// SQLGuardFailed, and the answer holds the row that was found.
	SQLGuard uint32 = 2
	// SQLMany runs one INSERT for all rows of the step. Its text ends in
	// VALUES and the host writes the placeholders, 16 rows to a statement.
	SQLMany uint32 = 3
)

// SQLStepSize and SQLCellSize are the sizes in bytes of the fixed-size
// structures that a script is made of.
const (
	SQLStepSize = 24 // kind, text pointer, text length, columns, rows, cells pointer: u32 each
	SQLCellSize = 16 // type u32, length u32, then a u64: integer, float bits, or pointer
)

// Types of a cell.
const (
	SQLNull uint32 = iota
	SQLInt
	SQLFloat
	SQLText
	SQLBlob
)

// SQLStatus is the upper half of the sql import's answer; the lower half is
// the number of bytes written to the answer buffer. Values from 1 to 0xffff
// are SQLite's own extended result codes, and the answer then holds the text
// of the error.
type SQLStatus uint32

// Statuses that are not SQLite's.
const (
	SQLDone SQLStatus = 0
	// SQLGuardFailed: see [SQLGuard].
	SQLGuardFailed SQLStatus = 0x10000 + iota - 1
	// SQLTooLarge: the rows did not fit into the answer buffer, or the script
	// breaks a limit of the grant; the transaction was rolled back.
	SQLTooLarge
	// SQLTimeout: the script ran longer than the grant allows.
	SQLTimeout
	// SQLRefused: the script does what the grant does not allow.
	SQLRefused
	// SQLBroken: the database engine itself failed; its instance was thrown
	// away, and whether the transaction was committed is unknown.
	SQLBroken
	// SQLReplaced: the database file was unlinked or replaced while it was
	// open; the transaction was not committed.
	SQLReplaced
	// SQLDiskFailed: the disk failed at the commit; whether the transaction was
	// committed is unknown.
	SQLDiskFailed
)
