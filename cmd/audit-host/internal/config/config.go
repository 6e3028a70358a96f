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
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/audit-host/audit-host/host/egress"
)

// maxFile is the length in bytes beyond which a file is not taken for a
// configuration. The sample has 5 KB.
const maxFile = 256 << 10

// EventRoom is what the record of an event in a queue has beyond its payload, in
// bytes: agent, type and timestamp with their lengths.
const EventRoom = KiB

// LeastDisk is the least value of DiskBytes for events of that size: a queue on
// disk has four segments at least, and each has room for four such events.
func LeastDisk(event Size) Size { return 16 * (event + EventRoom) }

// Enabled reports whether events are signed.
func (s Signing) Enabled() bool { return s.PrivateKey != "" }

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

// config reads the whole file. The result counts only if no problem was found.
func (c *checker) config(file string) *Config {
	cfg := &Config{File: file}
	c.dir = filepath.Dir(file)
	values, root := c.decode()
	if values == nil {
		if len(c.problems) > 0 {
			return cfg
		}
		root = &node{} // an empty file: all that is required is missing
	}
	top := c.newTable("", root, true, values)
	top.read(cfg.rows())
	cfg.check(top)
	c.unknown()
	return cfg
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

// Rule returns the rule that enforces h, without its secrets.
func (h HTTPHost) Rule() egress.HostRule {
	return egress.HostRule{Scheme: h.Scheme, Host: h.Host, Port: uint16(h.Port), Methods: h.Methods, PathPrefix: h.Path}
}

// KVPath is the file of a sink's kv store.
func (c *Config) KVPath(sink string) string { return filepath.Join(c.StateDir, "kv", sink+".db") }
