package host

import (
	"fmt"
	"strings"

	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/ncruces/go-sqlite3"
)

// authorize answers "" to what the sql capability permits, and why not to the
// rest. Whatever is not named here is refused: an action that a later SQLite
// invents too.
func authorize(a sqlite.Action) string {
	switch a.Code {
	case sqlite3.AUTH_SELECT, sqlite3.AUTH_RECURSIVE:
		return ""
	case sqlite3.AUTH_READ:
		return mainOnly(a.Schema, a.Third)
	case sqlite3.AUTH_INSERT, sqlite3.AUTH_UPDATE, sqlite3.AUTH_DELETE:
		if strings.EqualFold(a.Third, "sqlite_sequence") {
			// It is the evidence that rows are missing at the end of a ledger.
			return "sqlite_sequence belongs to SQLite"
		}
		return mainOnly(a.Schema, a.Third)
	case sqlite3.AUTH_CREATE_TABLE, sqlite3.AUTH_CREATE_INDEX, sqlite3.AUTH_CREATE_VIEW, sqlite3.AUTH_CREATE_TRIGGER,
		sqlite3.AUTH_DROP_TABLE, sqlite3.AUTH_DROP_INDEX, sqlite3.AUTH_DROP_VIEW, sqlite3.AUTH_DROP_TRIGGER:
		return mainOnly(a.Schema, "")
	case sqlite3.AUTH_ALTER_TABLE:
		return mainOnly(a.Third, "")
	case sqlite3.AUTH_REINDEX:
		return ""
	case sqlite3.AUTH_FUNCTION:
		if !functions[strings.ToLower(a.Fourth)] {
			return fmt.Sprintf("the function %s is not granted", a.Fourth)
		}
		return ""
	case sqlite3.AUTH_PRAGMA:
		name := strings.ToLower(a.Third)
		if pragmas[name] == pragmaAny || pragmas[name] == pragmaRead && a.Fourth == "" {
			return ""
		}
		return fmt.Sprintf("PRAGMA %s is not granted: the host sets up the connection", a.Third)
	}
	if what, ok := refused[a.Code]; ok {
		return what + " is not granted: the capability is one database file, and the host begins and ends transactions"
	}
	return fmt.Sprintf("an action with SQLite's number %d is not granted", a.Code)
}

// mainOnly refuses all but the main database. ALTER TABLE looks into the list
// of temporary tables, which is empty and can't be written.
func mainOnly(schema, table string) string {
	if schema == "main" || schema == "" || schema == "temp" && (table == "sqlite_temp_master" || table == "sqlite_temp_schema") {
		return ""
	}
	return fmt.Sprintf("the database %q is not granted, main is", schema)
}

var refused = map[sqlite3.AuthorizerActionCode]string{
	sqlite3.AUTH_ATTACH: "ATTACH", sqlite3.AUTH_DETACH: "DETACH", sqlite3.AUTH_TRANSACTION: "a transaction statement",
	sqlite3.AUTH_SAVEPOINT: "SAVEPOINT", sqlite3.AUTH_ANALYZE: "ANALYZE",
	sqlite3.AUTH_CREATE_VTABLE: "a virtual table", sqlite3.AUTH_DROP_VTABLE: "a virtual table",
	sqlite3.AUTH_CREATE_TEMP_TABLE: "a temporary table", sqlite3.AUTH_CREATE_TEMP_INDEX: "a temporary index",
	sqlite3.AUTH_CREATE_TEMP_TRIGGER: "a temporary trigger", sqlite3.AUTH_CREATE_TEMP_VIEW: "a temporary view",
	sqlite3.AUTH_DROP_TEMP_TABLE: "a temporary table", sqlite3.AUTH_DROP_TEMP_INDEX: "a temporary index",
	sqlite3.AUTH_DROP_TEMP_TRIGGER: "a temporary trigger", sqlite3.AUTH_DROP_TEMP_VIEW: "a temporary view",
}

const (
	pragmaRead = iota + 1 // without an argument only
	pragmaAny
)

// pragmas that a guest may run. application_id and user_version are part of
// the ledger's schema and of every other schema with a version.
var pragmas = map[string]int{
	"application_id": pragmaAny, "user_version": pragmaAny,
	"table_info": pragmaAny, "table_xinfo": pragmaAny, "table_list": pragmaAny, "index_list": pragmaAny,
	"index_info": pragmaAny, "index_xinfo": pragmaAny, "foreign_key_list": pragmaAny,
	"integrity_check": pragmaAny, "quick_check": pragmaAny, "foreign_key_check": pragmaAny,
	"page_count": pragmaRead, "page_size": pragmaRead, "freelist_count": pragmaRead, "encoding": pragmaRead,
	"schema_version": pragmaRead, "data_version": pragmaRead, "synchronous": pragmaRead,
	"busy_timeout": pragmaRead, "foreign_keys": pragmaRead, "compile_options": pragmaRead,
}

// functions that a guest may call: those of SQLite's core, of its date, JSON
// and window functions, whose cost is bounded by the size of a value. Not
// among them: load_extension, the tokenizers, and extensions whose cost is
// more than linear in a value (decimal, regexp, spellfix). The sqlite_ ones
// are what ALTER TABLE is made of; a guest's own SQL can't call them.
var functions = func() map[string]bool {
	set := make(map[string]bool)
	for _, f := range strings.Fields(`
		abs avg changes char coalesce concat concat_ws count format glob group_concat hex if ifnull iif instr
		last_insert_rowid length like likelihood likely lower ltrim max min nullif octet_length printf quote random
		randomblob replace round rtrim sign sqlite_version string_agg substr substring sum total total_changes trim typeof
		unhex unicode unlikely upper zeroblob -> ->>
		date time datetime julianday unixepoch strftime timediff current_date current_time current_timestamp
		ceil ceiling floor trunc mod pow power sqrt exp ln log log10 log2
		json jsonb json_array jsonb_array json_array_length json_error_position json_extract jsonb_extract json_group_array
		jsonb_group_array json_group_object jsonb_group_object json_insert jsonb_insert json_object jsonb_object json_patch
		jsonb_patch json_pretty json_quote json_remove jsonb_remove json_replace jsonb_replace json_set jsonb_set json_type
		json_valid
		sqlite_rename_table sqlite_rename_column sqlite_rename_test sqlite_rename_quotefix sqlite_drop_column
		row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value`) {
		set[f] = true
	}
	return set
}()

// limitsFor returns the limits of a connection that runs others' SQL. A value
// is at most 16 MiB, so that no single instruction works on more.
func limitsFor(maxSQL int) map[sqlite3.LimitCategory]int {
	return map[sqlite3.LimitCategory]int{
		sqlite3.LIMIT_LENGTH: maxValue, sqlite3.LIMIT_SQL_LENGTH: maxSQL, sqlite3.LIMIT_COLUMN: maxColumns,
		sqlite3.LIMIT_EXPR_DEPTH: 100, sqlite3.LIMIT_COMPOUND_SELECT: 50, sqlite3.LIMIT_VDBE_OP: 250_000,
		sqlite3.LIMIT_FUNCTION_ARG: 64, sqlite3.LIMIT_ATTACHED: 0, sqlite3.LIMIT_LIKE_PATTERN_LENGTH: 128,
		sqlite3.LIMIT_VARIABLE_NUMBER: maxColumns * rowsPerStatement, sqlite3.LIMIT_TRIGGER_DEPTH: 10,
		sqlite3.LIMIT_WORKER_THREADS: 0,
	}
}
