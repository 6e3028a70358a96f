// Package config reads audit.toml, the file that a person edits, and turns it
// into a [Config] in which nothing is left to guess: every value is set,
// checked and in range, every path is absolute.
//
// Guarantee: when [Load] or [Parse] returns a Config, every key of the file was
// known and every value was accepted. When the text is at fault, the error is a
// *[Problems] that holds all the problems found, each with its place in the
// file, not the first only. A path is resolved against the directory of the
// file that names it, never against the working directory. No text makes the
// package panic.
//
// Not guaranteed: that the files named exist or can be used. Keys, databases
// and plugins are opened by whoever uses them. The one exception is the HTTP
// token file, which is read here, because a configuration that is safe only
// with a token must not exist without one.
//
// After a syntax error the lines that are readable are still checked, but keys
// that seem to be missing are not reported, since the unreadable line may have
// been theirs.
package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maxFile is the length in bytes beyond which a file is not taken for a
// configuration. The sample has 5 KB.
const maxFile = 256 << 10

// Config is a whole configuration: checked, with defaults filled in. All paths
// are absolute.
type Config struct {
	File         string        // the file that was read
	StateDir     string        // holds the compilation cache, the queue and the dead letters
	DrainTimeout time.Duration // bound of the shutdown; 0 does not wait

	Log         Log
	Record      Record
	HTTP        HTTP
	Queue       Queue
	Signing     Signing
	DeadLetters DeadLetters
	Crashes     Crashes
	Reload      Reload
	Sinks       []Sink // at least one, with distinct names
}

// Log says what is written to stderr.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
}

// Record says which events are kept.
type Record struct {
	Decisions []string // of "refuse", "warn" and "allow"; never empty, no duplicates
	// PluginEvents has the life of the plugins recorded as events: loads,
	// crashes, parks, resumes and dead letters.
	PluginEvents bool
}

// HTTP is the listener. Sizes are in bytes.
type HTTP struct {
	Address           string // host:port; empty means no HTTP at all
	TokenFile         string // empty means that no token is asked for
	Token             Token  // the first line of TokenFile
	MaxBody           Size   // of a request, after decompression
	MaxEvent          Size
	MaxConnections    int
	ReadHeaderTimeout time.Duration
	ReadTimeout       time.Duration
	IdleTimeout       time.Duration
	AckTimeout        time.Duration // how long a request waits to be acknowledged
	OPA               OPA
}

// OPA holds lists of JSON pointers (RFC 6901) into a decision-log entry. The
// first pointer of a list that finds something wins.
type OPA struct {
	Agent    []string
	Decision []string
	Rule     []string
	Reason   []string
}

// Queue says where accepted events wait. Sizes are in bytes.
type Queue struct {
	Backend   string // "disk" or "memory"
	Directory string
	MaxEvents int    // in memory
	MaxBytes  Size   // of events in memory
	DiskBytes Size   // of segments on disk
	WhenFull  string // "reject" or "block"
}

// EventRoom is what the record of an event in a queue has beyond its payload, in
// bytes: agent, type and timestamp with their lengths.
const EventRoom = KiB

// LeastDisk is the least value of DiskBytes for events of that size: a queue on
// disk has four segments at least, and each has room for four such events.
func LeastDisk(event Size) Size { return 16 * (event + EventRoom) }

// Signing names the two halves of the key pair. Both are empty, or neither is.
type Signing struct {
	PrivateKey string
	PublicKey  string
}

// Enabled reports whether events are signed.
func (s Signing) Enabled() bool { return s.PrivateKey != "" }

// DeadLetters says where events go that no sink takes.
type DeadLetters struct {
	Path string
	// ReplayAtStart has the daemon replay the open ones when it starts.
	ReplayAtStart bool
}

// Sink is one destination.
type Sink struct {
	Name          string
	Plugin        Plugin
	Required      bool
	BatchEvents   int  // 1 to 65,536
	BatchBytes    Size // at least HTTP.MaxEvent, so that every event fits a batch
	MemoryLimit   Size // of the guest; a multiple of 64 KiB, at most 4 GiB
	Deadline      time.Duration
	Limits        Limits
	MaxRestarts   int // within RestartWindow
	RestartWindow time.Duration
	Config        json.RawMessage // an object, handed to the plugin as it stands
	Grant         Grant
}

// Plugin says which WebAssembly module a sink runs: exactly one field is set.
type Plugin struct {
	Bundled string // the name of a plugin inside the binary, one of [BundledPlugins]
	Path    string // a .wasm file
}

// Grant lists the capabilities of a sink. The zero value grants nothing.
type Grant struct {
	Now    bool      // the real clock
	Random bool      // real randomness
	SQL    *SQLGrant // one database, or nil
	Append *AppendGrant
	HTTP   *HTTPGrant
	KV     *KVGrant
}

// SQLGrant is the capability to run SQL in one database file.
type SQLGrant struct {
	Database    string
	Create      bool // make the file when it is missing
	ReadOnly    bool // no writing transaction
	BusyTimeout time.Duration
	TimeLimit   time.Duration // of one call
	MaxSQL      Size          // length of a call's SQL text, bytes
	MaxResult   Size          // length of a call's result, bytes
	MaxSize     Size          // of the database; 0 is no bound
}

// BundledPlugins returns the names of the plugins inside the binary, the only
// values of sink.plugin that are not paths.
func BundledPlugins() []string { return []string{"sink-sqlite", "sink-file", "sink-http", "sink-mock"} }

// Load reads and checks the file at path. The error is a *[Problems] when the
// content is at fault; otherwise it wraps the error of the file system, so that
// errors.Is(err, fs.ErrNotExist) works.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w (audit-host init writes a first one)", err)
	}
	defer f.Close()
	// One byte more than allowed tells a file that is too long from one that
	// just fits, and bounds what a device or a log file can make us read.
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse checks a configuration that is already in memory. name is the file's
// path: it stands before every problem, and relative paths in data are resolved
// against its directory. The file itself is not opened; the HTTP token file is,
// if data names one.
func Parse(name string, data []byte) (*Config, error) {
	file, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", name, err)
	}
	c := newChecker(name, data)
	cfg := c.config(file)
	if err := c.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// Ledger returns the sink whose database is the ledger: of those that may write
// to one, the first whose plugin is sink-sqlite, or else the first. False if there
// is none.
func (c *Config) Ledger() (Sink, bool) {
	writes := func(s Sink) bool { return s.Grant.SQL != nil && !s.Grant.SQL.ReadOnly }
	i := slices.IndexFunc(c.Sinks, func(s Sink) bool { return writes(s) && s.Plugin.Bundled == "sink-sqlite" })
	if i < 0 {
		i = slices.IndexFunc(c.Sinks, writes)
	}
	if i < 0 {
		return Sink{}, false
	}
	return c.Sinks[i], true
}
