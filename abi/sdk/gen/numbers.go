package main

import (
	"strings"
	"unicode"

	"github.com/audit-host/audit-host/abi"
)

// group is a number of constants under a heading.
type group struct {
	title  string
	prefix string // comes before the name in Go, for those that Go names without
	list   []constant
}

// constant is one number. name is that of the Go constant.
type constant struct {
	name  string
	value uint32
	doc   string
}

// groups lists what an SDK needs, in the order in which it is written.
func groups() []group {
	var layout []constant
	for _, p := range abi.Layout() {
		layout = append(layout, constant{p.Name, p.Value, p.Doc})
	}
	return []group{
		{title: "The major version of the ABI.", prefix: "ABI", list: []constant{{"Version", abi.Version, ""}}},
		{title: "Outcomes: bits 32 to 47 of what audit_open, audit_deliver, audit_flush and audit_close answer.", prefix: "Outcome", list: []constant{
			{"OK", uint32(abi.OK), "argument: events stored, all of the batch"},
			{"Partial", uint32(abi.Partial), "argument: events stored, the others got a verdict"},
			{"Retry", uint32(abi.Retry), "argument: pause in ms; nothing was stored"},
			{"Reject", uint32(abi.Reject), "nothing was stored, and never will be"},
			{"Busy", uint32(abi.Busy), "argument: pause in ms; what the sink writes to is not to be had"},
			{"BadConfig", uint32(abi.BadConfig), "from audit_open only"},
		}},
		{title: "Reasons: bits 48 to 63 of the same answers, with RETRY, REJECT, BUSY and BAD_CONFIG.", list: reasons()},
		{title: "Values from here on are the host's.", list: []constant{{"FirstHostOutcome", uint32(abi.FirstHostOutcome), ""}}},
		{title: "The index that stands for the batch in a verdict.", list: []constant{{"WholeBatch", abi.WholeBatch, ""}}},
		{title: "A place of places: its size and where its parts lie, in bytes, and its flag.", list: []constant{
			{"PlaceSize", abi.PlaceSize, ""}, {"PlaceSequence", abi.PlaceSequence, "u64, from 1; 0: it was not stored"},
			{"PlaceFlags", abi.PlaceFlags, "u32"}, {"PlaceRowHash", abi.PlaceRowHash, "32 bytes"},
			{"PlaceStoredNow", abi.PlaceStoredNow, "this delivery has stored it"},
		}},
		{title: "Levels of log.", list: []constant{
			{"LogDebug", abi.LogDebug, ""}, {"LogInfo", abi.LogInfo, ""}, {"LogWarn", abi.LogWarn, ""}, {"LogError", abi.LogError, ""},
		}},
		{title: "Ids of metric.", list: []constant{{"MetricRaces", abi.MetricRaces, "lost races for the next sequence number"}}},
		{title: "Statuses of append, http and kv: the upper half of their answer.", list: []constant{
			{"StatusDone", uint32(abi.StatusDone), ""},
			{"StatusRefused", uint32(abi.StatusRefused), "the grant does not allow it"},
			{"StatusInvalid", uint32(abi.StatusInvalid), "malformed: no line feed, no method, an empty key"},
			{"StatusTooLarge", uint32(abi.StatusTooLarge), "beyond a limit or the buffer; nothing was done"},
			{"StatusTimeout", uint32(abi.StatusTimeout), "not done in time; what a server did is unknown"},
			{"StatusUnavailable", uint32(abi.StatusUnavailable), "not to be had now"},
			{"StatusAbsent", uint32(abi.StatusAbsent), "no such key"},
		}},
		{title: "Modes of sql.", list: []constant{
			{"SQLRead", abi.SQLRead, ""}, {"SQLWrite", abi.SQLWrite, "an IMMEDIATE transaction"},
		}},
		{title: "Kinds of steps of sql.", list: []constant{
			{"SQLExec", abi.SQLExec, "one statement, its rows are ignored"},
			{"SQLQuery", abi.SQLQuery, "one statement, its rows are returned"},
			{"SQLGuard", abi.SQLGuard, "one query, its first row must equal the cells"},
			{"SQLMany", abi.SQLMany, "an INSERT whose text ends in VALUES, for all rows"},
		}},
		{title: "Types of a cell of sql.", list: []constant{
			{"SQLNull", abi.SQLNull, ""}, {"SQLInt", abi.SQLInt, ""}, {"SQLFloat", abi.SQLFloat, ""}, {"SQLText", abi.SQLText, ""}, {"SQLBlob", abi.SQLBlob, ""},
		}},
		{title: "Statuses of sql: the upper half of its answer; 1 to 0xffff are SQLite's extended result codes.", list: []constant{
			{"SQLDone", uint32(abi.SQLDone), ""},
			{"SQLGuardFailed", uint32(abi.SQLGuardFailed), "the answer holds the row that was found"},
			{"SQLTooLarge", uint32(abi.SQLTooLarge), "rolled back"},
			{"SQLTimeout", uint32(abi.SQLTimeout), ""},
			{"SQLRefused", uint32(abi.SQLRefused), "the grant does not allow it"},
			{"SQLBroken", uint32(abi.SQLBroken), "it is unknown whether it was committed"},
			{"SQLReplaced", uint32(abi.SQLReplaced), "the file was replaced; nothing was committed"},
			{"SQLDiskFailed", uint32(abi.SQLDiskFailed), "the disk failed at the commit; it is unknown whether it was committed"},
		}},
		{title: "Sizes in bytes of a step and a cell of sql.", list: []constant{{"SQLStepSize", abi.SQLStepSize, ""}, {"SQLCellSize", abi.SQLCellSize, ""}}},
		{title: "The answer of http: size in bytes of its fixed part, and its flags.", list: []constant{
			{"HTTPAnswerSize", abi.HTTPAnswerSize, ""}, {"HTTPCut", abi.HTTPCut, "it did not fit"}, {"HTTPWithheld", abi.HTTPWithheld, "the body is left out"},
		}},
		{title: "Limits in bytes.", list: []constant{
			{"MaxFrame", abi.MaxFrame, ""}, {"MaxVerdictText", abi.MaxVerdictText, "the rest is cut off"}, {"MaxLogText", abi.MaxLogText, "the rest is cut off"},
			{"MaxHTTPHead", abi.MaxHTTPHead, ""}, {"MaxKVKey", abi.MaxKVKey, ""}, {"MaxKVValue", abi.MaxKVValue, ""},
			{"MaxIDLen", abi.MaxIDLen, ""}, {"MaxAgentIDLen", abi.MaxAgentIDLen, ""}, {"MaxEventTypeLen", abi.MaxEventTypeLen, ""},
			{"HashSize", abi.HashSize, ""}, {"SignatureSize", abi.SignatureSize, ""},
		}},
		{title: "The batch frame. Offsets in it count from its first byte and are unsigned.", list: layout},
	}
}

func reasons() []constant {
	return []constant{
		{"ReasonOther", uint32(abi.ReasonOther), "none of the others"},
		{"ReasonLocked", uint32(abi.ReasonLocked), "another process holds the lock, or was faster"},
		{"ReasonFull", uint32(abi.ReasonFull), "no space, a quota, a limit"},
		{"ReasonIO", uint32(abi.ReasonIO), "the disk fails"},
		{"ReasonReadOnly", uint32(abi.ReasonReadOnly), "file, folder or file system"},
		{"ReasonNoAccess", uint32(abi.ReasonNoAccess), "it can't be opened"},
		{"ReasonCorrupt", uint32(abi.ReasonCorrupt), "what was read is damaged"},
		{"ReasonFormat", uint32(abi.ReasonFormat), "it is something else, or of another version"},
		{"ReasonReplaced", uint32(abi.ReasonReplaced), "another file has its name"},
		{"ReasonWentBack", uint32(abi.ReasonWentBack), "it lacks what it had"},
		{"ReasonSchema", uint32(abi.ReasonSchema), "it does not take events as they are given"},
	}
}

// snake turns SQLGuardFailed into SQL_GUARD_FAILED.
func snake(name string) string {
	var b strings.Builder
	rs := []rune(name)
	for i, r := range rs {
		if i > 0 && unicode.IsUpper(r) && (unicode.IsLower(rs[i-1]) || i+1 < len(rs) && unicode.IsLower(rs[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}
