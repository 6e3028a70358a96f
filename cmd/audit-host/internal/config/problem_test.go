package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// oneSink completes a text that needs nothing else. It has no [header] before
// it, so it may follow anything but a syntax error.
const oneSink = "\n[[sink]]\nname = \"one\"\nplugin = \"sink-mock\"\n"

// problemsOf parses text, which must be at fault, and returns the problems
// without their source: "line:column: message; did you mean ...".
func problemsOf(t *testing.T, text string) []string {
	t.Helper()
	cfg, err := Parse("audit.toml", []byte(text))
	if err == nil {
		return nil
	}
	var problems *Problems
	if !errors.As(err, &problems) || len(*problems) == 0 {
		t.Fatalf("Parse returned %T %v, want *Problems with at least one", err, err)
	}
	if cfg != nil {
		t.Error("Parse returned a Config beside an error")
	}
	var got []string
	for _, p := range *problems {
		checkPlace(t, p, text)
		s := fmt.Sprintf("%d:%d: %s", p.Line, p.Column, p.Message)
		if p.Suggestion != "" {
			s += fmt.Sprintf(" [%s]", p.Suggestion)
		}
		got = append(got, s)
	}
	return got
}

// checkPlace requires that a problem points into the text.
func checkPlace(t *testing.T, p Problem, text string) {
	t.Helper()
	lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	if p.Line < 1 || p.Line > len(lines) {
		t.Fatalf("line %d of a text with %d: %s", p.Line, len(lines), p.Message)
	}
	source := strings.TrimSuffix(lines[p.Line-1], "\r")
	if p.Source != source {
		t.Errorf("source of line %d is %q, want %q", p.Line, p.Source, source)
	}
	if p.Column < 1 || p.Column > utf8.RuneCountInString(source)+1 {
		t.Errorf("column %d in the line %q", p.Column, source)
	}
	if p.File != "audit.toml" || p.Message == "" {
		t.Errorf("incomplete problem %+v", p)
	}
}

func TestProblems(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown key, near miss", oneSink + "batch_evnts = 10\n",
			[]string{`5:1: unknown key "batch_evnts" [batch_events]`}},
		{"unknown key, swapped letters", "[log]\nlevle = \"info\"" + oneSink,
			[]string{`2:1: unknown key "levle" [level]`}},
		{"unknown key, hyphens", "drain-timeout = \"5s\"" + oneSink,
			[]string{`1:1: unknown key "drain-timeout" [drain_timeout]`}},
		{"unknown key, nothing near", "[log]\n  colour = true" + oneSink,
			[]string{`2:3: unknown key "colour"; known here are level, format`}},
		{"unknown key of another table", "address = \"\"" + oneSink,
			[]string{`1:1: unknown key "address" here; it belongs in [http]`}},
		{"unknown key of the top", "[log]\ndrain_timeout = \"5s\"" + oneSink,
			[]string{`2:1: unknown key "drain_timeout" in [log]; it belongs above the first [table]`}},
		{"unknown table", "[htpp]\naddress = \"\"" + oneSink,
			[]string{`1:2: unknown key "htpp" [http]`}},
		{"unknown array of tables", oneSink + "[[sinks]]\nname = \"x\"\n",
			[]string{`5:3: unknown key "sinks" [sink]`}},
		{"unknown key, quoted and empty", "\"\" = 1" + oneSink,
			[]string{`1:1: unknown key ""; known here are state_dir, drain_timeout, log, record, http, queue, signing, dead_letters, crashes, reload, sink`}},
		{"inline table", "log = { level = \"info\", formt = \"text\" }" + oneSink,
			[]string{`1:25: unknown key "formt" [format]`}},
		{"dotted key", "log.levl = \"info\"\nhttp.opa.rule = [\"x\"]" + oneSink,
			[]string{`1:5: unknown key "levl" [level]`,
				`2:18: rule: "x": a JSON pointer begins with / and has ~ only as ~0 or ~1 (RFC 6901) [/x]`}},
		{"dotted header", "[ http . \"opa\" ]\nagnt = []" + oneSink,
			[]string{`2:1: unknown key "agnt" [agent]`}},
		{"second element of an array of tables", oneSink + "[[sink]]\nname = \"two\"\nplugin = \"sink-mock\"\n[sink.grant]\nnow = 1\n[sink.grant.sql]\ndatabase = \"x.db\"\nmax_sql = \"64\"\n",
			[]string{`9:7: now must be true or false, without quotes, not the number 1`,
				`12:11: max_sql must be from 1KiB to 1MiB, not 64B`}},
		{"second element, inline", "sink = [\n  {name = \"one\", plugin = \"sink-mock\"},\n  {name = \"two\", plugin = \"sink-mock\", dedline = \"1s\"},\n]\n",
			[]string{`3:40: unknown key "dedline" [deadline]`}},
		{"element that is no table", "sink = [\"ledger\"]\n",
			[]string{`1:9: sink must hold tables, not the text "ledger"`}},
		{"sink as a table", "[sink]\nname = \"one\"\n",
			[]string{`1:2: sink must be an array of tables, each written as [[sink]], not a table`}},
		{"table as a value", "log = \"debug\"" + oneSink,
			[]string{`1:7: log must be a table, written once as [log], not the text "debug"`}},
		{"table as an array", "[[log]]\nlevel = \"info\"" + oneSink,
			[]string{`1:3: log must be a table, written once as [log], not an array`}},
		{"wrong types", "state_dir = 1\ndrain_timeout = 5\n[record]\ndecisions = \"refuse\"\n[http]\nmax_body = true\nmax_connections = \"9\"\nack_timeout = 1.5\nidle_timeout = 1979-05-27\n[queue]\nbackend = []" + oneSink + "required = \"true\"\nconfig = \"x\"\n",
			[]string{`1:13: state_dir must be a text in quotes, not the number 1`,
				`2:17: drain_timeout must be a duration in quotes such as "5s", not the number 5 [5s]`,
				`4:13: decisions must be an array of texts, not the text "refuse"`,
				`6:12: max_body must be a size such as "64MiB" or a number of bytes, not true`,
				`7:19: max_connections must be a whole number, without quotes, not the text "9"`,
				`8:15: ack_timeout must be a duration in quotes such as "5s", not the number 1.5`,
				`9:16: idle_timeout must be a duration in quotes such as "5s", not a date or time`,
				`11:11: backend must be one of "memory", "disk", not an array`,
				`15:12: required must be true or false, without quotes, not the text "true"`,
				`16:10: config must be a table, not the text "x"`}},
		{"durations", "drain_timeout = \"5 sec\"\n[http]\nread_timeout = \"-1s\"\nidle_timeout = \"0s\"\nack_timeout = \"2d\"\nread_header_timeout = \"soon\"" + oneSink + "deadline = \"25h\"\n",
			[]string{`1:17: drain_timeout: "5 sec" is not a duration such as "5s" or "1m30s" [5s]`,
				`3:16: read_timeout must be from 1ms to 24h, not -1s`,
				`4:16: idle_timeout must be from 1ms to 24h, not 0s`,
				`5:15: ack_timeout: "2d" is not a duration such as "5s" or "1m30s" [48h]`,
				`6:23: read_header_timeout: "soon" is not a duration such as "5s" or "1m30s"`,
				`10:12: deadline must be from 1ms to 24h, not 25h`}},
		{"sizes", "[http]\nmax_body = \"16 mb\"\nmax_event = -1\n[queue]\nmax_bytes = \"9999999999999999999B\"\ndisk_bytes = \"lots\"" + oneSink + "memory_limit = \"5GiB\"\nbatch_bytes = \"8388608TiB\"\n",
			[]string{`2:12: max_body: "16 mb" is not a size such as "64MiB" [16MiB]`,
				`3:13: max_event must be from 1KiB to 64MiB, not -1B`,
				`5:13: max_bytes: the size "9999999999999999999B" does not fit in 64 bits`,
				`6:14: disk_bytes: "lots" is not a size such as "64MiB"`,
				`10:16: memory_limit must be from 64KiB to 4GiB, not 5GiB`,
				`11:15: batch_bytes: the size "8388608TiB" does not fit in 64 bits`}},
		{"numbers", "[http]\nmax_connections = 0\n[queue]\nmax_events = -5" + oneSink + "batch_events = 65537\nmax_restarts = -1\n",
			[]string{`2:19: max_connections must be from 1 to 1048576, not 0`,
				`4:14: max_events must be from 1 to 2147483647, not -5`,
				`8:16: batch_events must be from 1 to 65536, not 65537`,
				`9:16: max_restarts must be from 0 to 1000000, not -1`}},
		{"choices", "[log]\nlevel = \"warning\"\nformat = \"JSON\"\n[queue]\nbackend = \"disc\"\nwhen_full = \"drop\"" + oneSink,
			[]string{`2:9: level must be one of "debug", "info", "warn", "error", not "warning" [warn]`,
				`3:10: format must be one of "text", "json", not "JSON" [json]`,
				`5:11: backend must be one of "memory", "disk", not "disc" [disk]`,
				`6:13: when_full must be one of "reject", "block", not "drop"`}},
		{"decisions", "[record]\ndecisions = [\"refuse\", \"alow\", 1,\n  \"refuse\"]" + oneSink,
			[]string{`2:24: decisions: "alow" is not one of "refuse", "warn", "allow" [allow]`,
				`2:32: decisions must hold texts in quotes, not the number 1`,
				`3:3: decisions: "refuse" is there twice`}},
		{"no decisions", "[record]\ndecisions = []" + oneSink,
			[]string{`2:13: decisions must not be empty: name at least one of "refuse", "warn", "allow"`}},
		{"addresses", "[http]\naddress = \"127.0.0.1\"" + oneSink,
			[]string{`2:11: address: "127.0.0.1" is not of the form "127.0.0.1:8480"`}},
		{"address, misspelt IP", "[http]\naddress = \"127.0.0.300:1\"" + oneSink,
			[]string{`2:11: address: "127.0.0.300" is neither an IP address nor a host name`}},
		{"address, port", "[http]\naddress = \"127.0.0.1:65536\"" + oneSink,
			[]string{`2:11: address: the port "65536" is not a number from 0 to 65535`}},
		{"address, all interfaces", "[http]\naddress = \":8480\"" + oneSink,
			[]string{`2:11: address ":8480" can be reached from other machines and needs a bearer token: set token_file, or listen on 127.0.0.1`}},
		{"address, unspecified", "[http]\naddress = \"[::]:8480\"" + oneSink,
			[]string{`2:11: address "[::]:8480" can be reached from other machines and needs a bearer token: set token_file, or listen on 127.0.0.1`}},
		{"address, a name", "[http]\naddress = \"audit.example:8480\"" + oneSink,
			[]string{`2:11: address "audit.example:8480" can be reached from other machines and needs a bearer token: set token_file, or listen on 127.0.0.1`}},
		{"pointers", "[http.opa]\nagent = [\"/ok\", \"input.agent\", \"/a~2\", \"/a~\", 7]\ndecision = []\nrule = []" + oneSink,
			[]string{`2:17: agent: "input.agent": a JSON pointer begins with / and has ~ only as ~0 or ~1 (RFC 6901) [/input/agent]`,
				`2:32: agent: "/a~2": a JSON pointer begins with / and has ~ only as ~0 or ~1 (RFC 6901)`,
				`2:40: agent: "/a~": a JSON pointer begins with / and has ~ only as ~0 or ~1 (RFC 6901)`,
				`2:47: agent must hold texts in quotes, not the number 7`,
				`3:12: decision needs at least one JSON pointer: without it every entry is rejected`}},
		{"half a key pair", "[signing]\nprivate_key = \"audit.key\"" + oneSink,
			[]string{`1:2: public_key is missing: [signing] needs both halves of the pair, or neither to run unsigned`}},
		{"empty paths", "state_dir = \"\"\n[signing]\nprivate_key = \"\"\npublic_key = \"a.pub\"" + oneSink,
			[]string{`1:13: state_dir must not be empty; leave the key out to have the default`,
				`3:15: private_key must not be empty; leave the key out to have the default`}},
		{"control character in a path", "[queue]\ndirectory = \"a\\u0000b\"" + oneSink,
			[]string{`2:13: directory must not hold control characters`}},
		{"one file twice", "[signing]\nprivate_key = \"k\"\npublic_key = \"./k\"\n[dead_letters]\npath = \"audit.toml\"" + oneSink + "[sink.grant.sql]\ndatabase = \"x/../k\"\n",
			[]string{`3:14: signing.public_key is the same file as signing.private_key in line 2`,
				`5:8: dead_letters.path is the same file as the configuration itself`,
				`10:12: sink.grant.sql.database is the same file as signing.private_key in line 2`}},
		{"database in the place of the dead letters", oneSink + "[sink.grant.sql]\ndatabase = \"state/dead-letters.db\"\n",
			[]string{`6:12: sink.grant.sql.database is the same file as dead_letters.path`}},
		{"a ledger that can't be written", "[[sink]]\nname = \"l\"\nplugin = \"sink-sqlite\"\n[sink.grant.sql]\ndatabase = \"l.db\"\nread_only = true\n",
			[]string{`6:13: read_only leaves sink-sqlite nothing to do but wait: it writes; take it away, or the sink`}},
		{"missing keys", "[[sink]]\n[sink.grant.sql]\ncreate = true\n",
			[]string{`1:3: name is missing: every [[sink]] needs one, such as "ledger"`,
				`1:3: plugin is missing: name one of "sink-sqlite", "sink-file", "sink-http", "sink-mock", or the path of a .wasm file`,
				`2:13: database is missing: [sink.grant.sql] grants one database file`}},
		{"databases", oneSink + "grant.sql.database = \":memory:\"\n[[sink]]\nname = \"two\"\nplugin = \"sink-mock\"\ngrant = {sql = {database = \"file:x?mode=ro\"}}",
			[]string{`5:22: database must be the path of a file, not ":memory:"`,
				`9:28: database must be the path of a file, not "file:x?mode=ro"`}},
		{"sink names", oneSink + "[[sink]]\nname = \"one\"\nplugin = \"sink-mock\"\n[[sink]]\nname = \"\"\nplugin = \"sink-mock\"\n[[sink]]\nname = \"The Ledger\"\nplugin = \"sink-mock\"\n",
			[]string{`6:8: the name "one" is taken by the sink in line 3`,
				`9:8: name must be 1 to 32 of a-z, 0-9 and -, not ""`,
				`12:8: name must be 1 to 32 of a-z, 0-9 and -, not "The Ledger"`}},
		{"plugins", "[[sink]]\nname = \"one\"\nplugin = \"sink-sqlit\"\n[[sink]]\nname = \"two\"\nplugin = \"\"\n",
			[]string{`3:10: plugin must be one of "sink-sqlite", "sink-file", "sink-http", "sink-mock", or a path with a / or ending in .wasm, not "sink-sqlit" [sink-sqlite]`,
				`6:10: plugin must be one of "sink-sqlite", "sink-file", "sink-http", "sink-mock", or a path with a / or ending in .wasm, not ""`}},
		{"values that JSON lacks", oneSink + "[sink.config]\nok = [1, {at = 2020-01-01}]\nx = {y = inf}\n[[sink.config.z]]\nn = nan\n",
			[]string{`6:16: config goes to the plugin as JSON, which has no dates: put it in quotes`,
				`7:10: config goes to the plugin as JSON, which has no +Inf`,
				`9:5: config goes to the plugin as JSON, which has no NaN`}},
		{"contradictions", "[http]\nmax_event = \"8MiB\"\nmax_body = \"1MiB\"\n[queue]\nbackend = \"memory\"\nmax_bytes = \"64KiB\"" + oneSink + "memory_limit = \"1MiB\"\n",
			[]string{`2:13: max_event (8MiB) is more than max_body (1MiB)`,
				`2:13: batch_bytes (4MiB) is less than http.max_event (8MiB): such an event would fit no batch`,
				`6:13: queue.max_bytes (64KiB) is less than http.max_event (8MiB): such an event could never be queued`,
				`10:16: memory_limit (1MiB) must be more than batch_bytes (4MiB), since the guest holds a whole batch`}},
		{"too little disk", "[http]\nmax_event = \"8MiB\"\n[queue]\ndisk_bytes = \"64MiB\"" + oneSink + "batch_bytes = \"8MiB\"\n",
			[]string{`4:14: queue.disk_bytes (64MiB) is too small for http.max_event (8MiB): at least 131088KiB are needed`}},
		{"empty file", "", []string{`1:1: no [[sink]]: at least one is needed, with a name and a plugin`}},
		{"only a comment", "# nothing\n", []string{`1:1: no [[sink]]: at least one is needed, with a name and a plugin`}},
		{"empty array of sinks", "sink = []\n", []string{`1:1: no [[sink]]: at least one is needed, with a name and a plugin`}},
		{"BOM and CRLF", "\ufefflog.levl = \"info\"\r\n[queue]\r\nbackend = \"\tdisc\"\r\n" + strings.ReplaceAll(oneSink, "\n", "\r\n"),
			[]string{`1:5: unknown key "levl" [level]`,
				`3:11: backend must be one of "memory", "disk", not "\tdisc" [disk]`}},
		{"column counts characters", "log = { \"größe\" = 1, levl = \"info\" }" + oneSink,
			[]string{`1:9: unknown key "größe"; known here are level, format`, `1:22: unknown key "levl" [level]`}},
		{"value on a later line", "[record]\ndecisions = [\n  \"refuse\",\n  # a comment\n  \"wran\"\n]" + oneSink,
			[]string{`5:3: decisions: "wran" is not one of "refuse", "warn", "allow" [warn]`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := problemsOf(t, tt.text)
			if !slices.Equal(got, tt.want) {
				t.Errorf("problems\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tt.want, "\n\t"))
			}
		})
	}
}

func TestSyntaxErrors(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"missing quotes, and what else is wrong", "[log]\nlevel = info\nformt = \"text\"\n[http]\naddress = 127.0.0.1:8480 # here\nmax_body = 64MiB\n[[sink]]\nname = \"one\"\n",
			[]string{`2:9: text needs quotes [info]`, `3:1: unknown key "formt" [format]`,
				`5:11: text needs quotes [127.0.0.1:8480]`, `6:12: text needs quotes [64MiB]`}},
		{"no value", "state_dir = \n[log]\nlevl = \"info\"" + oneSink,
			[]string{`1:13: expected value but found '\n' instead`, `3:1: unknown key "levl" [level]`}},
		{"open quote", "[log]\nlevel = \"info\nformat = \"txet\"" + oneSink,
			[]string{`2:14: strings cannot contain newlines`, `3:10: format must be one of "text", "json", not "txet" [text]`}},
		{"a key twice", "[log]\nlevel = \"info\"\nlevel = \"warn\"\nformat = \"xml\"" + oneSink,
			[]string{`3:1: key 'log.level' has already been defined`, `4:10: format must be one of "text", "json", not "xml"`}},
		{"a key twice, dotted", "log.level = \"info\"\nlog.level = \"warn\"" + oneSink,
			[]string{`2:1: key 'log.level' has already been defined`}},
		{"a table twice", "[log]\nlevel = \"info\"\n[log]\nformat = \"text\"" + oneSink,
			[]string{`3:2: key 'log' has already been defined`}},
		{"open array", "[record]\ndecisions = [\"refuse\"\n[log]\nlevel = \"xx\"" + oneSink,
			[]string{`3:1: expected a comma (',') or array terminator (']'), but got '['`}},
		{"open array to the end", "a = [1,\n", []string{`1:8: unexpected EOF; expected value`}},
		{"open header", "[log\nlevel = \"info\"" + oneSink,
			[]string{`1:5: expected '.' or ']' to end table name, but got '\n' instead`}},
		{"number out of range", "[queue]\nmax_events = 99999999999999999999" + oneSink,
			[]string{`2:14: 99999999999999999999 is out of range for int64`}},
		{"no TOML at all", "{\"state_dir\": \"x\"}\n",
			[]string{`1:1: expected '.' or '=', but got '{' instead`}},
		{"a stray word", "audit\n" + oneSink,
			[]string{`1:6: expected '.' or '=', but got '\n' instead`}},
		{"too deep", "x = " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + oneSink,
			[]string{`1:5: nested more than 32 levels deep`}},
		{"too many parts", strings.Repeat("a.", 32) + "a = 1" + oneSink,
			[]string{`1:65: nested more than 32 levels deep`}},
		{"too many brackets", "x = " + strings.Repeat("[{a=", 200),
			[]string{`1:517: more than 256 open brackets here: is it a configuration?`}},
		{"too many dots", "# ..." + strings.Repeat(".", 1000) + "\n" + strings.Repeat("a.", 10000) + "=",
			[]string{`2:514: more than 256 dots in a name here: is it a configuration?`}},
		{"error behind a character of several bytes", "'뱶", []string{`1:2: unexpected EOF; expected "'"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := problemsOf(t, tt.text)
			if !slices.Equal(got, tt.want) {
				t.Errorf("problems\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tt.want, "\n\t"))
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	_, err := Parse("etc/audit.toml", []byte("[http]\n\tmax_conections = 7 # \x7f\n"+oneSink))
	if err == nil || !strings.Contains(err.Error(), "etc/audit.toml:2:") {
		t.Errorf("a control character gave %v", err)
	}
	_, err = Parse("audit.toml", []byte("[http]\n\tmax_conections = 7\n\n[[sink]]\nname = \"one\"\nplugin = \"sink-mock\"\nbatch_evnts = 1"))
	const want = "audit.toml:2:2: unknown key \"max_conections\"; did you mean \"max_connections\"?\n" +
		"    \tmax_conections = 7\n" +
		"    \t^\n" +
		"audit.toml:7:1: unknown key \"batch_evnts\"; did you mean \"batch_events\"?\n" +
		"    batch_evnts = 1\n" +
		"    ^"
	if err == nil || err.Error() != want {
		t.Errorf("Error() is\n%v\nwant\n%s", err, want)
	}
}

func TestErrorTextOfLongAndHostileLines(t *testing.T) {
	long := "log = { x = \"" + strings.Repeat("ä", 5000) + "\", levl = 1 }"
	_, err := Parse("audit.toml", []byte(long+oneSink))
	var problems *Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	for _, p := range *problems {
		lines := strings.Split(p.String(), "\n")
		if len(lines) != 3 || utf8.RuneCountInString(lines[1]) > 130 {
			t.Fatalf("not cut: %d lines, %q", len(lines), lines)
		}
		under := []rune(lines[1])[utf8.RuneCountInString(lines[2])-1]
		if at := []rune(p.Source)[p.Column-1]; under != at {
			t.Errorf("the caret is under %q, the problem at %q", under, at)
		}
	}
	p := Problem{File: "f", Line: 1, Column: 1, Source: "a\x1b[31m\u202eb", Message: "m"}
	if s := p.String(); strings.ContainsAny(s, "\x1b\u202e") {
		t.Errorf("a control character reached the terminal: %q", s)
	}
}

func TestManyProblemsAreCutOff(t *testing.T) {
	var b strings.Builder
	for i := range 500 {
		fmt.Fprintf(&b, "key%d = 1\n", i)
	}
	got := problemsOf(t, b.String()+oneSink)
	if len(got) != maxProblems+1 || !strings.HasSuffix(got[maxProblems], "too many problems; the rest is not shown") {
		t.Errorf("%d problems, the last %q", len(got), got[len(got)-1])
	}
}

func TestGarbage(t *testing.T) {
	garbage := make([]byte, 1_000_000)
	state := uint32(1)
	for i := range garbage {
		state = state*1664525 + 1013904223
		garbage[i] = byte(state >> 24)
	}
	path := filepath.Join(t.TempDir(), "audit.toml")
	if err := os.WriteFile(path, garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	var problems *Problems
	if !errors.As(err, &problems) || len(*problems) != 1 || !strings.Contains(err.Error(), "longer than 256KiB") {
		t.Errorf("1 MB of garbage gave %.300v", err)
	}
	for n := 1; n <= maxFile; n *= 8 {
		if _, err := Parse("audit.toml", garbage[:n]); !errors.As(err, &problems) {
			t.Errorf("%d bytes of garbage gave %.300v", n, err)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "none.toml"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "audit-host init") {
		t.Errorf("a missing file gave %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory gave %v", err)
	}
}
