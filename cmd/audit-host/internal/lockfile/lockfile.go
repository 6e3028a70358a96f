// Package lockfile pins the plugins of a configuration: audit.lock, beside
// audit.toml, has for each sink the digest of its plugin and what it is granted.
//
// Guarantee: where the file exists, a plugin whose bytes or grants are not those
// that were locked is not loaded, and the difference is shown. The bytes that are
// compared are those that are loaded. Not guaranteed: anything against somebody
// who can write the file; it stands between a change and its approval, and goes
// where the approval is recorded: into version control.
//
// The digest alone decides about a plugin. Name, version, ABI and imports are
// there so that a person can see what a change is.
package lockfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/internal/durable"
)

// Name is the file's, in the folder of the configuration.
const Name = "audit.lock"

// version is that of the file's form.
const version = 1

// Lock is the content of the file.
type Lock struct {
	Version int      `toml:"version"`
	Plugins []Plugin `toml:"plugin"`
}

// Plugin is what is pinned for one sink.
type Plugin struct {
	Sink string `toml:"sink"`
	// File is the name of a bundled plugin, or a path relative to the
	// configuration.
	File    string   `toml:"plugin"`
	SHA256  string   `toml:"sha256"`
	Name    string   `toml:"name"`
	Version string   `toml:"version"`
	ABI     []int    `toml:"abi"`
	Imports []string `toml:"imports"`
	Grants  []string `toml:"grants"`
}

// Path is where the file of a configuration lies.
func Path(cfg *config.Config) string { return filepath.Join(filepath.Dir(cfg.File), Name) }

// Pin describes a sink with its plugin.
func Pin(cfg *config.Config, s config.Sink, wasm []byte) (Plugin, error) {
	id, err := host.Identify(wasm)
	if err != nil {
		return Plugin{}, fmt.Errorf("sink %s: %w", s.Name, err)
	}
	file := s.Plugin.Bundled
	if file == "" {
		file = relative(cfg, s.Plugin.Path)
	}
	return Plugin{Sink: s.Name, File: file, SHA256: id.Digest, Name: id.Manifest.Name, Version: id.Manifest.Version,
		ABI: id.ABI, Imports: id.Imports, Grants: grants(cfg, s.Grant)}, nil
}

// relative writes a path as seen from the configuration, so that both can be
// moved together.
func relative(cfg *config.Config, path string) string {
	rel, err := filepath.Rel(filepath.Dir(cfg.File), path)
	if err != nil || !filepath.IsLocal(rel) {
		return path
	}
	return filepath.ToSlash(rel)
}

// Read reads a lock file. Without one the error wraps fs.ErrNotExist.
func Read(path string) (*Lock, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read lock: %w", err)
	}
	var l Lock
	meta, err := toml.Decode(string(text), &l)
	mend := "; audit-host plugin lock writes it anew"
	switch {
	case err != nil:
		return nil, fmt.Errorf("read lock %s: %w%s", path, err, mend)
	case l.Version != version:
		return nil, fmt.Errorf("read lock %s: version is %d, wanted %d%s", path, l.Version, version, mend)
	case len(meta.Undecoded()) > 0:
		return nil, fmt.Errorf("read lock %s: unknown key %q%s", path, meta.Undecoded()[0].String(), mend)
	}
	return &l, nil
}

// Write replaces the file: whoever reads it finds the old one or the new one,
// whole.
func (l *Lock) Write(path string) error {
	l.Version = version
	var b bytes.Buffer
	b.WriteString("# Written by audit-host plugin lock, which also tells what differs (--check). A plugin\n# or grant that is not as it stands here is not loaded.\n\n")
	e := toml.NewEncoder(&b)
	e.Indent = ""
	if err := e.Encode(l); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if err := durable.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write lock %s: %w", path, err)
	}
	return nil
}

// Forget takes a sink out.
func (l *Lock) Forget(sink string) {
	l.Plugins = slices.DeleteFunc(l.Plugins, func(p Plugin) bool { return p.Sink == sink })
}

// Mismatch is a configuration that is not what was locked.
type Mismatch struct {
	Path, Config string
	// Differences has one text for each sink, of one or more lines.
	Differences []string
}

// Error shows all differences and what to do.
func (m *Mismatch) Error() string {
	return fmt.Sprintf("%s does not have the plugins and grants that were locked in %s:\n%s\nif this is meant, run: audit-host plugin lock -c %s",
		m.Config, m.Path, strings.Join(m.Differences, "\n"), m.Config)
}

// Compare returns what differs, one text for each sink; nil if nothing does.
func Compare(locked, now *Lock) []string {
	var out []string
	for _, n := range now.Plugins {
		i := slices.IndexFunc(locked.Plugins, func(p Plugin) bool { return p.Sink == n.Sink })
		if i < 0 {
			out = append(out, fmt.Sprintf("  sink %s is not locked: %s (%s %s, sha256 %s)", n.Sink, n.File, visible.Word(n.Name), visible.Word(n.Version), n.SHA256))
			continue
		}
		if d := difference(locked.Plugins[i], n); d != "" {
			out = append(out, "  sink "+n.Sink+" differs:"+d)
		}
	}
	for _, l := range locked.Plugins {
		if !slices.ContainsFunc(now.Plugins, func(p Plugin) bool { return p.Sink == l.Sink }) {
			out = append(out, fmt.Sprintf("  sink %s is locked and not there any more", l.Sink))
		}
	}
	return out
}

func difference(l, n Plugin) string {
	var b strings.Builder
	value := func(what, l, n string) {
		if l != n {
			fmt.Fprintf(&b, "\n    %-8s locked %s\n    %-8s now    %s", what, visible.Line(l), "", visible.Line(n))
		}
	}
	value("plugin", l.File, n.File)
	value("sha256", l.SHA256, n.SHA256)
	value("name", l.Name, n.Name)
	value("version", l.Version, n.Version)
	value("abi", fmt.Sprint(l.ABI), fmt.Sprint(n.ABI))
	list := func(what string, l, n []string) {
		for _, v := range n {
			if !slices.Contains(l, v) {
				fmt.Fprintf(&b, "\n    %-8s + %s", what, visible.Line(v))
			}
		}
		for _, v := range l {
			if !slices.Contains(n, v) {
				fmt.Fprintf(&b, "\n    %-8s - %s", what, visible.Line(v))
			}
		}
	}
	list("imports", l.Imports, n.Imports)
	list("grants", l.Grants, n.Grants)
	return b.String()
}
