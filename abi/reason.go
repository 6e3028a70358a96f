package abi

// Reason is why a guest answered RETRY, REJECT, BUSY or BAD_CONFIG, as a number:
// metrics and readiness go by it, and by no text that a guest wrote. A number that
// the host does not know is [ReasonOther] to it.
type Reason uint16

// Reasons. New ones are added at the end.
const (
	// ReasonOther: none of those below, or the guest does not say.
	ReasonOther Reason = iota
	// ReasonLocked: another process holds the lock, or was faster.
	ReasonLocked
	// ReasonFull: no space, a quota, or a limit of the grant.
	ReasonFull
	// ReasonIO: the disk fails.
	ReasonIO
	// ReasonReadOnly: file, folder or file system.
	ReasonReadOnly
	// ReasonNoAccess: it can't be opened: it is missing, or permission is.
	ReasonNoAccess
	// ReasonCorrupt: what was read is damaged.
	ReasonCorrupt
	// ReasonFormat: it is something else, or of another version.
	ReasonFormat
	// ReasonReplaced: another file has its name.
	ReasonReplaced
	// ReasonWentBack: it lacks what it had.
	ReasonWentBack
	// ReasonSchema: it does not take events as they are given.
	ReasonSchema
)

var reasonNames = [...]string{
	"OTHER", "LOCKED", "FULL", "IO", "READ_ONLY", "NO_ACCESS", "CORRUPT", "FORMAT", "REPLACED", "WENT_BACK", "SCHEMA",
}

// Reasons lists them all.
func Reasons() []Reason {
	list := make([]Reason, len(reasonNames))
	for i := range list {
		list[i] = Reason(i)
	}
	return list
}

// Known is the reason itself, or ReasonOther if it is of a later version.
func (r Reason) Known() Reason {
	if int(r) < len(reasonNames) {
		return r
	}
	return ReasonOther
}

// String returns the reason's name as the ABI text spells it.
func (r Reason) String() string { return reasonNames[r.Known()] }
