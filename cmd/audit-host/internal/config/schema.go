package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	wasmPage  = 64 * KiB
	moment    = time.Millisecond // the least that a bound of time may be
	unlimited = 1 << 20 * GiB    // a bound that only keeps sums from overflowing
)

// config reads the whole file. The result counts only if no problem was found.
func (c *checker) config(file string) *Config {
	cfg := defaults()
	cfg.File = file
	values, root := c.decode()
	if values == nil {
		if len(c.problems) > 0 {
			return cfg
		}
		root = &node{} // an empty file: all that is required is missing
	}
	dir := filepath.Dir(file)
	c.claims[file] = claim{name: "the configuration itself"}
	top := c.newTable("", root, values)

	top.path("state_dir", dir, &cfg.StateDir)
	cfg.StateDir = absolute(dir, cfg.StateDir)
	top.duration("drain_timeout", 0, &cfg.DrainTimeout)
	c.log(top.table("log"), &cfg.Log)
	record := top.table("record")
	record.subset("decisions", []string{"refuse", "warn", "allow"}, &cfg.Record.Decisions)
	record.flag("plugin_events", &cfg.Record.PluginEvents)
	listener := top.table("http")
	c.http(listener, dir, &cfg.HTTP)
	queue := top.table("queue")
	c.queue(queue, dir, cfg)
	c.signing(top.table("signing"), dir, &cfg.Signing)
	dead := top.table("dead_letters")
	cfg.DeadLetters.Path = filepath.Join(cfg.StateDir, "dead-letters.db")
	dead.optionalPath("path", dir, &cfg.DeadLetters.Path)
	c.claim(dead, "path", cfg.DeadLetters.Path, companions...)
	dead.flag("replay_at_start", &cfg.DeadLetters.ReplayAtStart)
	c.crashes(top.table("crashes"), &cfg.Crashes)
	c.reload(top.table("reload"), &cfg.Reload)

	if at, ok := either(queue, "max_bytes", listener, "max_event"); ok && cfg.Queue.Backend == "memory" && cfg.Queue.MaxBytes < cfg.HTTP.MaxEvent {
		c.add(at.value, "", "queue.max_bytes (%v) is less than http.max_event (%v): such an event could never be queued",
			cfg.Queue.MaxBytes, cfg.HTTP.MaxEvent)
	}
	if at, ok := either(queue, "disk_bytes", listener, "max_event"); ok && cfg.Queue.Backend == "disk" && cfg.Queue.DiskBytes < LeastDisk(cfg.HTTP.MaxEvent) {
		c.add(at.value, "", "queue.disk_bytes (%v) is too small for http.max_event (%v): at least %v are needed",
			cfg.Queue.DiskBytes, cfg.HTTP.MaxEvent, LeastDisk(cfg.HTTP.MaxEvent))
	}
	c.sinks(top, listener, dir, cfg)
	c.unknown()
	return cfg
}

func (c *checker) log(t *table, log *Log) {
	names := []string{"debug", "info", "warn", "error"}
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	level := names[slices.Index(levels, log.Level)]
	t.choice("level", names, &level)
	log.Level = levels[slices.Index(names, level)]
	t.choice("format", []string{"text", "json"}, &log.Format)
}

func (c *checker) queue(t *table, dir string, cfg *Config) {
	q := &cfg.Queue
	t.choice("backend", []string{"memory", "disk"}, &q.Backend)
	q.Directory = filepath.Join(cfg.StateDir, "queue")
	t.optionalPath("directory", dir, &q.Directory)
	t.number("max_events", 1, math.MaxInt32, &q.MaxEvents)
	t.size("max_bytes", 64*KiB, TiB, &q.MaxBytes)
	t.size("disk_bytes", MiB, unlimited, &q.DiskBytes)
	t.choice("when_full", []string{"reject", "block"}, &q.WhenFull)
}

func (c *checker) signing(t *table, dir string, s *Signing) {
	for _, half := range []struct {
		key, other string
		into       *string
	}{
		{"private_key", "public_key", &s.PrivateKey},
		{"public_key", "private_key", &s.PublicKey},
	} {
		t.path(half.key, dir, half.into)
		if t.set(half.key) {
			c.claim(t, half.key, *half.into)
		} else if t.set(half.other) {
			t.missing(half.key, "%s is missing: [signing] needs both halves of the pair, or neither to run unsigned", half.key)
		}
	}
}

func (c *checker) sinks(top, listener *table, dir string, cfg *Config) {
	tables := top.tableArray("sink")
	if len(tables) == 0 && !top.faulty["sink"] {
		top.missing("sink", "no [[sink]]: at least one is needed, with a name and a plugin")
	}
	lines := map[string]int{} // of the names so far
	for _, t := range tables {
		s := defaultSink()
		c.sink(t, dir, &s)
		if at, ok := either(t, "batch_bytes", listener, "max_event"); ok && s.BatchBytes < cfg.HTTP.MaxEvent {
			c.add(at.value, "", "batch_bytes (%v) is less than http.max_event (%v): such an event would fit no batch",
				s.BatchBytes, cfg.HTTP.MaxEvent)
		}
		at := t.at.kid("name")
		line, _, _ := c.locate(at.value)
		if first, ok := lines[s.Name]; ok && s.Name != "" {
			t.refuse("name", at, "", "the name %q is taken by the sink in line %d", s.Name, first)
		} else {
			lines[s.Name] = line
		}
		cfg.Sinks = append(cfg.Sinks, s)
	}
}

var sinkName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

func (c *checker) sink(t *table, dir string, s *Sink) {
	if !t.set("name") {
		t.missing("name", `name is missing: every [[sink]] needs one, such as "ledger"`)
	}
	if t.text("name", &s.Name) && !sinkName.MatchString(s.Name) {
		t.refuse("name", t.at.kid("name"), "", "name must be 1 to 32 of a-z, 0-9 and -, not %q", brief(s.Name))
		s.Name = ""
	}
	c.plugin(t, dir, &s.Plugin)
	t.flag("required", &s.Required)
	t.number("batch_events", 1, 1<<16, &s.BatchEvents)
	t.size("batch_bytes", KiB, GiB, &s.BatchBytes)
	t.size("memory_limit", wasmPage, 4*GiB, &s.MemoryLimit)
	s.MemoryLimit = (s.MemoryLimit + wasmPage - 1) / wasmPage * wasmPage
	if at, ok := either(t, "memory_limit", t, "batch_bytes"); ok && s.MemoryLimit <= s.BatchBytes {
		c.add(at.value, "", "memory_limit (%v) must be more than batch_bytes (%v), since the guest holds a whole batch",
			s.MemoryLimit, s.BatchBytes)
	}
	t.duration("deadline", moment, &s.Deadline)
	c.limits(t.table("limits"), &s.Limits)
	t.number("max_restarts", 0, 1_000_000, &s.MaxRestarts)
	t.duration("restart_window", moment, &s.RestartWindow)
	t.json("config", &s.Config)

	grant := t.table("grant")
	grant.flag("now", &s.Grant.Now)
	grant.flag("random", &s.Grant.Random)
	c.grants(grant, t, dir, s)
	sql := grant.table("sql")
	granted := defaultSQL(s.Plugin)
	c.sql(sql, dir, granted)
	if grant.set("sql") {
		s.Grant.SQL = granted
		if !sql.set("database") && !grant.faulty["sql"] {
			sql.missing("database", "database is missing: [sink.grant.sql] grants one database file")
		}
		if granted.ReadOnly && s.Plugin.Bundled == "sink-sqlite" {
			sql.refuse("read_only", sql.at.kid("read_only"), "", "read_only leaves sink-sqlite nothing to do but wait: it writes; take it away, or the sink")
		}
	}
}

func (c *checker) sql(t *table, dir string, g *SQLGrant) {
	var name string
	if raw, ok := t.values["database"].(string); ok {
		name = raw
	}
	t.path("database", dir, &g.Database)
	if name == ":memory:" || strings.HasPrefix(name, "file:") {
		t.refuse("database", t.at.kid("database"), "", "database must be the path of a file, not %q", brief(name))
	}
	if t.set("database") {
		c.claim(t, "database", g.Database, companions...)
	}
	t.flag("create", &g.Create)
	t.flag("read_only", &g.ReadOnly)
	t.duration("busy_timeout", 0, &g.BusyTimeout)
	t.duration("time_limit", moment, &g.TimeLimit)
	t.size("max_sql", KiB, MiB, &g.MaxSQL)
	t.size("max_result", KiB, GiB, &g.MaxResult)
	t.size("max_size", 0, unlimited, &g.MaxSize)
}

// plugin reads a name or a path: a value with a separator or ending in .wasm is
// a path.
func (c *checker) plugin(t *table, dir string, p *Plugin) {
	if !t.set("plugin") {
		t.missing("plugin", "plugin is missing: name one of %s, or the path of a .wasm file", list(BundledPlugins()))
	}
	var name string
	if !t.text("plugin", &name) {
		return
	}
	if filepath.Base(name) != name && strings.ContainsAny(name, `/`+string(filepath.Separator)) || strings.HasSuffix(name, ".wasm") {
		t.path("plugin", dir, &p.Path)
		return
	}
	if !slices.Contains(BundledPlugins(), name) {
		t.refuse("plugin", t.at.kid("plugin"), Nearest(name, BundledPlugins()),
			"plugin must be one of %s, or a path with a / or ending in .wasm, not %q", list(BundledPlugins()), brief(name))
		return
	}
	p.Bundled = name
}

// path reads a path that must not be empty and makes it absolute.
func (t *table) path(key, dir string, into *string) {
	var path string
	if !t.text(key, &path) {
		return
	}
	if path == "" {
		t.refuse(key, t.at.kid(key), "", "%s must not be empty; leave the key out to have the default", key)
		return
	}
	t.usePath(key, dir, path, into)
}

// optionalPath reads a path whose empty value means the same as no value.
func (t *table) optionalPath(key, dir string, into *string) {
	var path string
	if t.text(key, &path) && path != "" {
		t.usePath(key, dir, path, into)
	}
}

func (t *table) usePath(key, dir, path string, into *string) {
	if strings.ContainsFunc(path, isControl) {
		t.refuse(key, t.at.kid(key), "", "%s must not hold control characters", key)
		return
	}
	*into = absolute(dir, path)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// claim is the key that names a file.
type claim struct {
	name string
	line int // 0 if no key of the file does
}

// companions are what SQLite keeps beside a database.
var companions = []string{"-wal", "-shm", "-journal"}

// claim records that a key names a file of its own and refuses a second key
// with the same one: a ledger that is also the dead letters, say. beside are
// the endings of the files that go with it.
func (c *checker) claim(t *table, key, path string, beside ...string) {
	if path == "" || t.faulty[key] {
		return
	}
	mine := claim{name: strings.TrimPrefix(t.name+"."+key, ".")}
	if t.set(key) {
		mine.line, _, _ = c.locate(t.at.kid(key).value)
	}
	for _, ending := range append([]string{""}, beside...) {
		own := claim{mine.name + ending, mine.line}
		first, taken := c.claims[path+ending]
		if !taken {
			c.claims[path+ending] = own
			continue
		}
		if first.line > 0 {
			first.name = fmt.Sprintf("%s in line %d", first.name, first.line)
		}
		t.refuse(key, t.at.kid(key), "", "%s is the same file as %s", own.name, first.name)
		return
	}
}

// subset reads an array of distinct words, at least one.
func (t *table) subset(key string, words []string, into *[]string) {
	seen := map[string]bool{}
	var chosen []string
	t.texts(key, func(word string) (string, error) {
		if !slices.Contains(words, word) {
			return Nearest(word, words), fmt.Errorf("%q is not one of %s", brief(word), list(words))
		}
		if seen[word] {
			return "", fmt.Errorf("%q is there twice", word)
		}
		seen[word] = true
		return "", nil
	}, &chosen)
	if t.faulty[key] || !t.set(key) {
		return
	}
	if len(chosen) == 0 {
		t.refuse(key, t.at.kid(key), "", "%s must not be empty: name at least one of %s", key, list(words))
		return
	}
	*into = chosen
}

var errPointer = errors.New("a JSON pointer begins with / and has ~ only as ~0 or ~1 (RFC 6901)")

// checkPointer accepts the syntax of RFC 6901, section 3.
func checkPointer(p string) (string, error) {
	if p != "" && p[0] != '/' {
		return "/" + strings.ReplaceAll(p, ".", "/"), fmt.Errorf("%q: %w", brief(p), errPointer)
	}
	for i := range len(p) {
		if p[i] == '~' && (i+1 == len(p) || p[i+1] != '0' && p[i+1] != '1') {
			return "", fmt.Errorf("%q: %w", brief(p), errPointer)
		}
	}
	return "", nil
}
