package main

import (
	"strconv"
	"strings"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

// class is what a status of the sql capability means for a batch.
type class uint8

const (
	// done: committed.
	done class = iota
	// lostRace: another writer has taken the next sequence number.
	lostRace
	// sameID: the ledger, or the batch itself before, has an event's id.
	sameID
	// wait: the database is not to be had; it is unknown only after
	// SQLBroken and SQLDiskFailed whether something was committed.
	wait
	// never: no repetition will change it.
	never
)

// SQLite's result codes; the lower byte of an extended code is the primary
// one.
const (
	sqliteInternal   = 2
	sqlitePerm       = 3
	sqliteBusy       = 5
	sqliteLocked     = 6
	sqliteNoMem      = 7
	sqliteReadOnly   = 8
	sqliteInterrupt  = 9
	sqliteIOErr      = 10
	sqliteCorrupt    = 11
	sqliteFull       = 13
	sqliteCantOpen   = 14
	sqliteProtocol   = 15
	sqliteSchema     = 17
	sqliteConstraint = 19
	sqliteAuth       = 23
	sqliteNotADB     = 26

	sqliteUnique     = sqliteConstraint | 8<<8
	sqlitePrimaryKey = sqliteConstraint | 6<<8
	sqliteRowID      = sqliteConstraint | 10<<8
)

// classify sorts a status with its text. Which index a UNIQUE violation is on
// stands in SQLite's text only, as the columns behind the last colon; names of
// columns, so that no event can forge it.
func classify(status abi.SQLStatus, text string) class {
	switch status {
	case abi.SQLDone:
		return done
	case abi.SQLGuardFailed:
		return lostRace
	case sqliteUnique, sqlitePrimaryKey, sqliteRowID:
		switch {
		case strings.HasSuffix(text, "UNIQUE constraint failed: signed_events.sequence"):
			return lostRace
		case strings.HasSuffix(text, "UNIQUE constraint failed: signed_events.id"):
			return sameID
		}
		return never
	case abi.SQLTooLarge:
		return never
	}
	if status > 0xffff { // also one of a later host
		return wait
	}
	switch status & 0xff {
	case sqliteInternal, sqlitePerm, sqliteBusy, sqliteLocked, sqliteNoMem, sqliteReadOnly, sqliteInterrupt, sqliteIOErr,
		sqliteCorrupt, sqliteFull, sqliteCantOpen, sqliteProtocol, sqliteSchema, sqliteAuth, sqliteNotADB:
		return wait
	}
	return never
}

// hints say what to do about a status, where the text does not.
var hints = map[abi.SQLStatus]string{
	sqliteBusy:      "another process holds the ledger's lock",
	sqliteLocked:    "the ledger is locked",
	sqliteReadOnly:  "make the ledger and its folder writable",
	sqlitePerm:      "make the ledger and its folder writable",
	sqliteFull:      "free some space on its disk",
	sqliteCorrupt:   "the file is damaged: check it with audit-host verify, restore a backup",
	sqliteNotADB:    "the file is no SQLite database: name another in sink.grant.sql.database",
	sqliteCantOpen:  "make it with audit-host init, or set create = true in sink.grant.sql once",
	sqliteAuth:      "the grant does not allow it",
	abi.SQLRefused:  "the grant does not allow it",
	abi.SQLReplaced: "the file is not the one that was opened",
}

// reasons are what the host is told of a status, by which it counts and tells; the
// others are ReasonOther.
var reasons = map[abi.SQLStatus]abi.Reason{
	sqliteBusy:        abi.ReasonLocked,
	sqliteLocked:      abi.ReasonLocked,
	sqliteFull:        abi.ReasonFull,
	sqliteIOErr:       abi.ReasonIO,
	abi.SQLDiskFailed: abi.ReasonIO,
	sqliteReadOnly:    abi.ReasonReadOnly,
	sqlitePerm:        abi.ReasonNoAccess,
	sqliteCantOpen:    abi.ReasonNoAccess,
	sqliteCorrupt:     abi.ReasonCorrupt,
	sqliteNotADB:      abi.ReasonFormat,
	abi.SQLReplaced:   abi.ReasonReplaced,
}

// answerTo is what to answer when what could not be done.
func answerTo(c class, status abi.SQLStatus, what, text string) guest.Answer {
	code := status
	if code <= 0xffff {
		code &= 0xff
	}
	message := what + ": " + text + " (status " + strconv.FormatUint(uint64(status), 10) + ")"
	if hint := hints[code]; hint != "" {
		message += "; " + hint
	}
	why := reasons[code]
	switch {
	case c != wait:
		return guest.Reject(message).Because(abi.ReasonSchema)
	case why == abi.ReasonLocked:
		return guest.Busy(pauseLocked, message).Because(why)
	}
	return guest.Busy(pauseBroken, message).Because(why)
}
