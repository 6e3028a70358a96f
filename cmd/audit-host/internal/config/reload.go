package config

import (
	"fmt"
	"strings"
	"time"
)

// Reload says how a plugin is exchanged while the daemon runs. It is in force
// from the next reload on.
type Reload struct {
	// A new plugin is on probation until it has answered for so many batches and
	// so much time has passed, whichever comes later.
	ProbationBatches int
	ProbationTime    time.Duration
	// Watch is how often audit.lock and the plugins' files are looked at, where
	// there is a lock; 0 never.
	Watch time.Duration
}

func defaultReload() Reload {
	return Reload{ProbationBatches: 32, ProbationTime: 30 * time.Second, Watch: 5 * time.Second}
}

// reload reads [reload].
func (c *checker) reload(t *table, into *Reload) {
	t.number("probation_batches", 0, 1_000_000, &into.ProbationBatches)
	t.duration("probation_time", 0, &into.ProbationTime)
	t.duration("watch", 0, &into.Watch)
}

// reload writes [reload].
func (w *renderer) reload(r Reload) {
	w.table("[reload]")
	w.key("probation_batches", r.ProbationBatches)
	w.key("probation_time", r.ProbationTime)
	w.key("watch", r.Watch)
}

// Fixed lists what differs between two configurations outside of the sinks and of
// [reload], one text for each key: "queue.backend: \"disk\" is now \"memory\"". A
// daemon that has read c needs a restart to follow to in these.
func (c *Config) Fixed(to *Config) []string {
	was, now := c.keys(), to.keys()
	var out []string
	for i, k := range now {
		if strings.HasPrefix(k.name, "reload.") {
			continue
		}
		if w := was[i]; w.value != k.value {
			out = append(out, fmt.Sprintf("%s: %s is now %s", k.name, w.value, k.value))
		}
	}
	if c.HTTP.TokenFile == to.HTTP.TokenFile && c.HTTP.Token != to.HTTP.Token {
		out = append(out, "http.token_file: it holds another token now")
	}
	return out
}

type keyValue struct{ name, value string }

// keys are the keys outside of the sinks as [Config.TOML] writes them; the same
// ones in the same order for every configuration.
func (c *Config) keys() []keyValue {
	w := &renderer{}
	c.renderTop(w)
	var list []keyValue
	header := ""
	for line := range strings.Lines(w.String()) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			header = strings.Trim(line, "[]") + "."
		} else if name, value, ok := strings.Cut(line, " = "); ok {
			list = append(list, keyValue{header + name, value})
		}
	}
	// The signing keys are left out of the text when there are none.
	if !c.Signing.Enabled() {
		for i, k := range list {
			if strings.HasPrefix(k.name, "dead_letters.") {
				none := []keyValue{{"signing.private_key", "not set"}, {"signing.public_key", "not set"}}
				return append(list[:i:i], append(none, list[i:]...)...)
			}
		}
	}
	return list
}
