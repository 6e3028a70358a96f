package config

import (
	"encoding/json"
	"log/slog"
	"time"
)

// defaults returns the values of all keys that are not set, but for those of a
// sink. audit.toml documents the same values; a test compares the two. Paths
// are as a person would write them: relative, and empty for those that lie in
// the state directory unless told otherwise.
func defaults() *Config {
	return &Config{
		StateDir:     "state",
		DrainTimeout: 5 * time.Second,
		Log:          Log{Level: slog.LevelInfo, Format: "text"},
		Record:       Record{Decisions: []string{"refuse"}},
		HTTP: HTTP{
			Address:           "127.0.0.1:8480",
			MaxBody:           16 * MiB,
			MaxEvent:          1 * MiB,
			MaxConnections:    1024,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       30 * time.Second,
			IdleTimeout:       60 * time.Second,
			AckTimeout:        30 * time.Second,
			OPA: OPA{
				Agent:    []string{"/input/agent_id", "/input/user", "/input/subject", "/labels/id"},
				Decision: []string{"/result/decision", "/result/allow", "/result/deny", "/result"},
				Rule:     []string{"/result/rule_id", "/path"},
				Reason:   []string{"/result/reason"},
			},
		},
		Queue: Queue{
			Backend:   "disk",
			MaxEvents: 1_000_000,
			MaxBytes:  256 * MiB,
			DiskBytes: 4 * GiB,
			WhenFull:  "reject",
		},
		Crashes: defaultCrashes(),
		Reload:  defaultReload(),
	}
}

// defaultSink returns a sink of which only the name and the plugin are missing.
func defaultSink() Sink {
	return Sink{
		Required:      true,
		BatchEvents:   1024,
		BatchBytes:    4 * MiB,
		MemoryLimit:   64 * MiB,
		Deadline:      30 * time.Second,
		Limits:        defaultLimits(),
		MaxRestarts:   5,
		RestartWindow: time.Minute,
		Config:        json.RawMessage("{}"),
	}
}

// defaultSQL returns a grant of which only the database is missing. A bundled
// plugin writes what the host was sent and no more, and the ledger is not to end at
// a size that nobody chose; whatever else writes without a bound has to be told to.
func defaultSQL(p Plugin) *SQLGrant {
	g := &SQLGrant{
		BusyTimeout: time.Second,
		TimeLimit:   20 * time.Second,
		MaxSQL:      64 * KiB,
		MaxResult:   4 * MiB,
	}
	if p.Bundled == "" {
		g.MaxSize = GiB
	}
	return g
}
