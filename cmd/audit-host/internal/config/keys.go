package config

import (
	"encoding/json"
	"log/slog"
	"math"
	"time"

	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/egress"
)

// All keys are in this file: the fields that hold the values, and for each a row that
// says all else about it. docs/configuration.md is written from the rows. What keys say
// about each other is in check.go.
//
//go:generate go test -run ^TestReferencePage$ . -write-page

// Config is a whole configuration: checked, with defaults filled in. All paths
// are absolute, all sizes are in bytes.
type Config struct {
	File         string // the file that was read
	StateDir     string
	DrainTimeout time.Duration
	Log          Log
	Record       Record
	HTTP         HTTP
	Queue        Queue
	Signing      Signing
	DeadLetters  DeadLetters
	Crashes      Crashes
	Reload       Reload
	Sinks        []Sink // at least one, with distinct names
}

// Log says what is written to stderr.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
}

// Record says which events are kept.
type Record struct {
	Decisions    []string // of "refuse", "warn" and "allow"; never empty, no duplicates
	PluginEvents bool
}

// HTTP is the listener.
type HTTP struct {
	Address           string // host:port; empty means no HTTP at all
	TokenFile         string // empty means that no token is asked for
	Token             Token  // the first line of TokenFile
	MaxBody, MaxEvent Size
	MaxConnections    int
	OPA               OPA

	ReadHeaderTimeout, ReadTimeout, IdleTimeout, AckTimeout time.Duration
}

// OPA holds lists of JSON pointers (RFC 6901) into a decision-log entry. The
// first pointer of a list that finds something wins.
type OPA struct{ Agent, Decision, Rule, Reason []string }

// Queue says where accepted events wait.
type Queue struct {
	Backend   string // "disk" or "memory"
	Directory string
	MaxEvents int    // in memory
	MaxBytes  Size   // of events in memory
	DiskBytes Size   // of segments on disk
	WhenFull  string // "reject" or "block"
}

// Signing names the two halves of the key pair. Both are empty, or neither is.
type Signing struct{ PrivateKey, PublicKey string }

// DeadLetters says where events go that no sink takes.
type DeadLetters struct {
	Path          string
	ReplayAtStart bool // the daemon replays the open ones when it starts
}

// Crashes bounds the crash bundles in <state_dir>/crashes.
type Crashes struct {
	Keep     int  // of each sink; 0 keeps none
	MaxBytes Size // of all, the plugins beside them included
}

// Reload says how a plugin is exchanged while the daemon runs. A new plugin is on
// probation until it has answered for so many batches and so much time has passed,
// whichever comes later.
type Reload struct {
	ProbationBatches     int
	ProbationTime, Watch time.Duration // Watch 0 is never
}

// Sink is one destination.
type Sink struct {
	Name          string
	Plugin        Plugin
	Required      bool
	BatchEvents   int
	BatchBytes    Size // at least HTTP.MaxEvent, so that every event fits a batch
	MemoryLimit   Size // of the guest; a multiple of 64 KiB
	Deadline      time.Duration
	MaxRestarts   int // within RestartWindow
	RestartWindow time.Duration
	Config        json.RawMessage // an object, handed to the plugin as it stands
	Limits        Limits
	Grant         Grant
}

// Plugin says which WebAssembly module a sink runs: exactly one field is set.
type Plugin struct {
	Bundled string // the name of a plugin inside the binary, one of [BundledPlugins]
	Path    string // a .wasm file
}

// Limits bound what a plugin may use in one call, beside the sink's own keys
// for memory and time.
type Limits struct {
	Fuel                                 int // units of the meter: at least one an instruction
	Stack, ModuleSize                    Size
	TableElements, CompileCost, LogLines int
	LogBytes, VerdictBytes               Size
}

// Grant lists the capabilities of a sink. The zero value grants nothing.
type Grant struct {
	Now, Random bool // the real clock, real randomness
	Append      *AppendGrant
	HTTP        *HTTPGrant
	KV          *KVGrant
	SQL         *SQLGrant
}

// AppendGrant is the capability to append lines to one file.
type AppendGrant struct {
	Path    string
	MaxSize Size // 0 never rotates
	Keep    int  // 0 keeps all
	Pattern string
}

// HTTPGrant is the capability to make requests of some hosts.
type HTTPGrant struct {
	AllowPrivate            []string // address ranges in CIDR form
	Timeout                 time.Duration
	MaxRequest, MaxResponse Size
	CAFile                  string // PEM; empty means the system's authorities
	Hosts                   []HTTPHost
	Secrets                 []HTTPSecret
}

// HTTPHost grants requests to one origin.
type HTTPHost struct {
	Scheme, Host string
	Port         int // 0 is that of the scheme
	Methods      []string
	Path         string // and what lies below it; empty means all
}

// HTTPSecret is a value that the host puts into headers of requests to Host.
// The value is not here: [ReadSecret] reads it when the sink is opened.
type HTTPSecret struct{ Name, File, Host string }

// KVGrant is the capability to keep a small store.
type KVGrant struct {
	MaxKeys  int
	MaxBytes Size
}

// SQLGrant is the capability to run SQL in one database file.
type SQLGrant struct {
	Database                   string
	Create, ReadOnly           bool
	BusyTimeout, TimeLimit     time.Duration
	MaxSQL, MaxResult, MaxSize Size // MaxSize 0 is no bound
}

const (
	moment    = time.Millisecond // the least that a bound of time may be
	unlimited = 1 << 20 * GiB    // a bound that only keeps sums from overflowing
	wasmPage  = 64 * KiB
	most      = math.MaxInt64 >> 1
)

func (c *Config) rows() []row {
	h, o, q := &c.HTTP, &c.HTTP.OPA, &c.Queue
	const pointers = " needs at least one JSON pointer: without it every entry is rejected"
	return []row{
		key("state_dir", path(&c.StateDir, "state", notEmpty), "Compiled plugins, the queue, dead letters."),
		key("drain_timeout", duration(&c.DrainTimeout, 5*time.Second, 0), "How long a shutdown may take to deliver the rest; 0 does not wait."),
		section("log", "What is written to stderr.",
			key("level", level(&c.Log.Level, slog.LevelInfo), "The least that is written."),
			key("format", choice(&c.Log.Format, "text", "text", "json"), "The form of a line."),
		),
		section("record", "Which events are kept.",
			key("decisions", subset(&c.Record.Decisions, []string{"refuse"}, "refuse", "warn", "allow"), "Events with these decisions."),
			key("plugin_events", flag(&c.Record.PluginEvents, false), "Also what becomes of plugins: "+
				"`audit.plugin.loaded`, `trapped`, `parked`, `resumed`, `rolled_back` and `dead_letter`."),
		),
		section("http", "The listener.",
			key("address", text(&h.Address, "127.0.0.1:8480", checkAddress),
				"`host:port`, or `\"\"` for no HTTP. Beyond loopback it needs token_file."),
			key("token_file", path(&h.TokenFile, "", nil), "Its first line is the bearer token, 16 characters or more; "+
				"keep the file at mode 0600. Without it HTTP answers no text of a plugin.").owns(),
			key("max_body", size(&h.MaxBody, 16*MiB, KiB, GiB), "Of a request, after decompression."),
			key("max_event", size(&h.MaxEvent, MiB, KiB, 64*MiB), "Of one event; at most max_body."),
			key("max_connections", number(&h.MaxConnections, 1024, 1, 1<<20), "At the same time."),
			key("read_header_timeout", duration(&h.ReadHeaderTimeout, 5*time.Second, moment), "Of a request's header."),
			key("read_timeout", duration(&h.ReadTimeout, 30*time.Second, moment), "Of a whole request."),
			key("idle_timeout", duration(&h.IdleTimeout, time.Minute, moment), "Between two requests."),
			key("ack_timeout", duration(&h.AckTimeout, 30*time.Second, moment), "How long a request waits to be acknowledged."),
			section("opa", "JSON pointers (RFC 6901) into an entry of OPA's decision log; the first that finds something wins.",
				key("agent", texts(&o.Agent, checkPointer, pointers, "/input/agent_id", "/input/user", "/input/subject", "/labels/id"), "Who asked."),
				key("decision", texts(&o.Decision, checkPointer, pointers,
					"/result/decision", "/result/allow", "/result/deny", "/result"), "What was decided."),
				key("rule", texts(&o.Rule, checkPointer, "", "/result/rule_id", "/path"), "By which rule."),
				key("reason", texts(&o.Reason, checkPointer, "", "/result/reason"), "Why."),
			),
		),
		section("queue", "Where accepted events wait.",
			key("backend", choice(&q.Backend, "disk", "memory", "disk"), "What is in memory is lost with the process."),
			key("directory", path(&q.Directory, "", nil), "`\"\"` is `<state_dir>/queue`."),
			key("max_events", number(&q.MaxEvents, 1_000_000, 1, math.MaxInt32), "Bound of a queue in memory."),
			key("max_bytes", size(&q.MaxBytes, 256*MiB, 64*KiB, TiB), "Bound of a queue in memory; at least http.max_event."),
			key("disk_bytes", size(&q.DiskBytes, 4*GiB, MiB, unlimited), "Bound of a queue on disk; 16 times http.max_event and more."),
			key("when_full", choice(&q.WhenFull, "reject", "reject", "block"), "reject: the client is told; block: it waits."),
		),
		section("signing", "The key pair. Leave both keys out to run unsigned, once all that was accepted with them is delivered.",
			key("private_key", unlessZero(path(&c.Signing.PrivateKey, "", notEmpty)), "Mode 0600; `audit-host init` makes the pair.").owns(),
			key("public_key", unlessZero(path(&c.Signing.PublicKey, "", notEmpty)), "All that `audit-host verify` needs.").owns(),
		),
		section("dead_letters", "Where events go that no sink takes.",
			key("path", path(&c.DeadLetters.Path, "", nil), "`\"\"` is `<state_dir>/dead-letters.db`.").owns(companions...),
			key("replay_at_start", flag(&c.DeadLetters.ReplayAtStart, false), "Offer them to their sinks at each start."),
		),
		section("crashes", "What a plugin leaves when the host ends it, in `<state_dir>/crashes`. `audit-host plugin replay` runs it again.",
			key("keep", number(&c.Crashes.Keep, host.DefaultCrashesKept, 0, 10_000), "Of each sink; 0 keeps none."),
			key("max_bytes", size(&c.Crashes.MaxBytes, host.DefaultCrashesBytes, MiB, TiB), "Of all, with the plugins beside them."),
		),
		section("reload", "How a plugin is exchanged: at SIGHUP, `audit-host reload` or a renewed `audit.lock`.",
			key("probation_batches", number(&c.Reload.ProbationBatches, 32, 0, 1_000_000),
				"A new plugin that ends before it has answered so many batches is taken back."),
			key("probation_time", duration(&c.Reload.ProbationTime, 30*time.Second, 0), "So is one that ends before so long."),
			key("watch", duration(&c.Reload.Watch, 5*time.Second, 0), "How often a lock and its plugins are looked at; 0 never."),
		).on(reload),
		array("sink", "One for each destination.", &c.Sinks, (*Sink).rows).on(exchange).
			required("no [[sink]]: at least one is needed, with a name and a plugin"),
	}
}

func (s *Sink) rows() []row {
	l := &s.Limits
	return []row{
		key("name", text(&s.Name, "", checkSinkName), "1 to 32 of a-z, 0-9 and -.").on(restart).
			required(`name is missing: every [[sink]] needs one, such as "ledger"`),
		key("plugin", plugin(&s.Plugin), "A bundled plugin, or the path of a .wasm file.").
			required("plugin is missing: name one of " + list(BundledPlugins()) + ", or the path of a .wasm file"),
		key("required", flag(&s.Required, true), "audit-host is ready only while this sink works.").on(restart),
		key("batch_events", number(&s.BatchEvents, 1024, 1, 1<<16), "Events in one batch.").on(reload),
		key("batch_bytes", size(&s.BatchBytes, 4*MiB, KiB, GiB), "Of one batch; at least http.max_event.").on(reload),
		key("memory_limit", size(&s.MemoryLimit, 64*MiB, wasmPage, 4*GiB), "Of the plugin, rounded up to 64KiB; more than batch_bytes."),
		key("deadline", duration(&s.Deadline, 30*time.Second, moment), "Of one batch."),
		key("max_restarts", number(&s.MaxRestarts, 5, 0, 1_000_000), "Within restart_window; then the sink parks.").on(reload),
		key("restart_window", duration(&s.RestartWindow, time.Minute, moment), "See max_restarts.").on(reload),
		key("config", object(&s.Config), "Handed to the plugin as JSON.").hidden(),
		section("limits", "Of one batch, beside memory_limit and deadline.",
			// Less fuel than a Go guest needs to start is a slip of the pen.
			key("fuel", number(&l.Fuel, host.DefaultFuel, 1_000_000, most), "Instructions and more: what they cost at most."),
			key("stack", size(&l.Stack, host.DefaultStack, 64*KiB, GiB), "Native."),
			key("module_size", size(&l.ModuleSize, host.DefaultModuleSize, KiB, 256*MiB), "Of the plugin's file."),
			key("table_elements", number(&l.TableElements, host.DefaultTableElements, 1, 100_000_000), "Of all its tables."),
			key("compile_cost", number(&l.CompileCost, host.DefaultCompileCost, 1_000_000, most), "About nanoseconds, by an estimate."),
			key("log_lines", number(&l.LogLines, host.DefaultLogLines, 1, 1_000_000), "The rest is dropped, as with log_bytes."),
			key("log_bytes", size(&l.LogBytes, host.DefaultLogBytes, KiB, GiB), "See log_lines."),
			key("verdict_bytes", size(&l.VerdictBytes, host.DefaultVerdictBytes, KiB, GiB), "Of all reasons; one has up to 1024 bytes."),
		),
		section("grant", "What the plugin may use; nothing by default.", s.Grant.rows()...),
	}
}

func (g *Grant) rows() []row {
	return []row{
		key("now", flag(&g.Now, false), "The real clock.").quiet(),
		key("random", flag(&g.Random, false), "Real randomness.").quiet(),
		optional("append", "One file that only grows.", &g.Append, (*AppendGrant).rows),
		optional("http", "Requests to some hosts, redirects included.", &g.HTTP, (*HTTPGrant).rows),
		optional("kv", "A small store in `<state_dir>/kv`, for plugins that ask for one.", &g.KV, (*KVGrant).rows),
		optional("sql", "One database.", &g.SQL, (*SQLGrant).rows),
	}
}

func (a *AppendGrant) rows() []row {
	return []row{
		key("path", path(&a.Path, "", notEmpty), "The file.").owns().required("path is missing: [sink.grant.append] grants one file"),
		key("max_size", size(&a.MaxSize, 0, 0, unlimited), "The file is rotated before it grows beyond this; 0 never."),
		key("keep", number(&a.Keep, 0, 0, 1_000_000), "Rotated files that stay; 0 all."),
		key("pattern", text(&a.Pattern, "{name}.{seq}", checkPattern), "Of the names of rotated files: {name}, {seq}, {time}."),
	}
}

func (h *HTTPGrant) rows() []row {
	return []row{
		key("allow_private", texts(&h.AllowPrivate, checkRange, ""),
			"Ranges such as \"10.1.0.0/16\"; needed by names that resolve to addresses which are not public."),
		key("timeout", duration(&h.Timeout, egress.DefaultTimeout, moment), "Of one request; less than deadline."),
		key("max_request", size(&h.MaxRequest, egress.DefaultMaxRequest, KiB, GiB), "Of a request's body."),
		key("max_response", size(&h.MaxResponse, egress.DefaultMaxResponse, KiB, GiB), "Of a response's body."),
		key("ca_file", path(&h.CAFile, "", nil), "PEM; `\"\"` is what the system trusts."),
		array("hosts", "The hosts, and what may be asked of them.", &h.Hosts, (*HTTPHost).rows).
			required(`hosts is missing: [sink.grant.http] grants requests to some, hosts = [{ host = "collector.example", methods = ["POST"] }]`),
		secrets("secrets", "Secrets by name. The host puts them into headers; the plugin has the name, never the value.", &h.Secrets),
	}
}

func (h *HTTPHost) rows() []row {
	return []row{
		key("scheme", choice(&h.Scheme, "https", "https", "http"), "Of the URL."),
		key("host", text(&h.Host, "", nil), "An exact name or an IP address.").required("host is missing: an exact name or an IP address"),
		key("port", unlessZero(number(&h.Port, 0, 1, 1<<16-1)), "That of the scheme by default."),
		key("methods", texts(&h.Methods, nil, ""), "At least one."),
		key("path", text(&h.Path, "", nil), "With what lies below it; `\"\"` is all."),
	}
}

func (s *HTTPSecret) rows() []row {
	const missing = " is missing: a secret has a file, whose first line is its value, and the host that it is sent to"
	return []row{
		key("file", path(&s.File, "", notEmpty), "Its first line is the value.").required("file" + missing),
		key("host", text(&s.Host, "", nil), "The one of hosts that it is sent to.").required("host" + missing),
	}
}

func (k *KVGrant) rows() []row {
	return []row{
		key("max_keys", number(&k.MaxKeys, 1024, 1, 1<<20), "Keys in it."),
		key("max_bytes", size(&k.MaxBytes, MiB, KiB, 64*MiB), "Of keys and values."),
	}
}

func (g *SQLGrant) rows() []row {
	return []row{
		key("database", path(&g.Database, "", checkDatabase), "The file.").owns(companions...).
			required("database is missing: [sink.grant.sql] grants one database file"),
		key("create", flag(&g.Create, false), "Make a missing file instead of refusing."),
		key("read_only", flag(&g.ReadOnly, false), "The plugin may read and not write."),
		key("busy_timeout", duration(&g.BusyTimeout, time.Second, 0), "Wait for another process's lock."),
		key("time_limit", duration(&g.TimeLimit, 20*time.Second, moment), "Of one call."),
		key("max_sql", size(&g.MaxSQL, 64*KiB, KiB, MiB), "Of the text of one call."),
		key("max_result", size(&g.MaxResult, 4*MiB, KiB, GiB), "Of the result of one call."),
		key("max_size", size(&g.MaxSize, 0, 0, unlimited), "Of the database, and bounds one call too; 0 is no bound. "+
			"A plugin that is a file has 1GiB by default.").quiet(),
	}
}
