package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReload(t *testing.T) {
	if got := parse(t, oneSink).Reload; got != (Reload{32, 30 * time.Second, 5 * time.Second}) {
		t.Errorf("%+v", got)
	}
	cfg := parse(t, "[reload]\nprobation_batches = 0\nprobation_time = \"0s\"\nwatch = \"1m\"\n"+oneSink)
	if cfg.Reload != (Reload{Watch: time.Minute}) || !strings.Contains(string(cfg.TOML()), "\n[reload]\nprobation_batches = 0\n") {
		t.Errorf("%+v\n%s", cfg.Reload, cfg.TOML())
	}
	if _, err := Parse("audit.toml", []byte("[reload]\nprobation_batches = -1\nwatch = 3\n"+oneSink)); err == nil ||
		!strings.Contains(err.Error(), "probation_batches must be from 0 to") || !strings.Contains(err.Error(), `watch must be a duration in quotes`) {
		t.Errorf("%v", err)
	}
}

// Every key outside of the sinks that differs is named, with both values.
func TestFixed(t *testing.T) {
	was := parse(t, oneSink)
	if d := was.Fixed(was); d != nil {
		t.Errorf("%q", d)
	}
	for text, want := range map[string][]string{
		"[reload]\nwatch = \"1m\"\n":                                          nil,
		"drain_timeout = \"7s\"\n":                                            {`drain_timeout: "5s" is now "7s"`},
		"[queue]\nbackend = \"memory\"\nwhen_full = \"block\"\n":              {`queue.backend: "disk" is now "memory"`, `queue.when_full: "reject" is now "block"`},
		"[http]\naddress = \"127.0.0.1:9999\"\n":                              {`http.address: "127.0.0.1:8480" is now "127.0.0.1:9999"`},
		"[http.opa]\nrule = [\"/path\"]\n":                                    {`http.opa.rule: ["/result/rule_id", "/path"] is now ["/path"]`},
		"[signing]\nprivate_key = \"/a = b\"\npublic_key = \"/b\"\n":          {`signing.private_key: not set is now "/a = b"`, `signing.public_key: not set is now "/b"`},
		"[record]\ndecisions = [\"refuse\", \"warn\"]\n[crashes]\nkeep = 3\n": {`record.decisions: ["refuse"] is now ["refuse", "warn"]`, `crashes.keep: 8 is now 3`},
		"[log]\nlevel = \"debug\"\n[dead_letters]\nreplay_at_start = true\n":  {`log.level: "info" is now "debug"`, "dead_letters.replay_at_start: false is now true"},
	} {
		now := parse(t, text+oneSink)
		if got := was.Fixed(now); !slices.Equal(got, want) {
			t.Errorf("%s: %q\nwant %q", text, got, want)
		}
		back := now.Fixed(was)
		if len(back) != len(want) {
			t.Errorf("the other way round: %q", back)
		}
	}
	// A token is a text in a file.
	file := filepath.Join(t.TempDir(), "token")
	with := func(token string) *Config {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		return parse(t, "http.token_file = \""+filepath.ToSlash(file)+"\"\n"+oneSink)
	}
	a, b := with("0123456789abcdef"), with("0123456789abcdeF")
	if got := a.Fixed(b); len(got) != 1 || strings.Contains(got[0], "0123456789") {
		t.Errorf("%q", got)
	}
}
