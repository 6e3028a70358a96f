package config

import (
	"strings"
	"testing"
)

func TestLimits(t *testing.T) {
	cfg := parse(t, `
record.plugin_events = true
[crashes]
keep = 0
max_bytes = "1MiB"
[[sink]]
name = "one"
plugin = "sink-mock"
[sink.limits]
fuel = 1_000_000
stack = "64KiB"
module_size = "256MiB"
table_elements = 1
compile_cost = 1_000_000
log_lines = 2
log_bytes = 2048
verdict_bytes = "1GiB"
`)
	if want := (Limits{1_000_000, 64 * KiB, 256 * MiB, 1, 1_000_000, 2, 2 * KiB, GiB}); cfg.Sinks[0].Limits != want {
		t.Errorf("got %+v, want %+v", cfg.Sinks[0].Limits, want)
	}
	if want := (Crashes{0, MiB}); cfg.Crashes != want || !cfg.Record.PluginEvents {
		t.Errorf("got %+v, %+v", cfg.Crashes, cfg.Record)
	}
	if cfg := parse(t, string(cfg.TOML())); cfg.Sinks[0].Limits.LogLines != 2 || cfg.Crashes.MaxBytes != MiB || !cfg.Record.PluginEvents {
		t.Errorf("not written as it was read:\n%s", cfg.TOML())
	}
}

func TestLimitsOutOfRange(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"fuel", "0", "fuel must be from 1000000 to 4611686018427387903, not 0"},
		{"fuel", `"much"`, "fuel must be a whole number"},
		{"stack", `"2GiB"`, "stack must be from 64KiB to 1GiB, not 2GiB"},
		{"module_size", `"257MiB"`, "module_size must be from 1KiB to 256MiB"},
		{"table_elements", "0", "table_elements must be from 1"},
		{"compile_cost", "0", "compile_cost must be from 1000000"},
		{"log_lines", "0", "log_lines must be from 1"},
		{"log_bytes", "1", "log_bytes must be from 1KiB"},
		{"verdict_bytes", "1", "verdict_bytes must be from 1KiB"},
		{"deadline", `"1s"`, `unknown key "deadline" here; it belongs in [sink]`},
	} {
		_, err := Parse("audit.toml", []byte(oneSink+"[sink.limits]\n"+c.key+" = "+c.value+"\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %s: %v, want %q", c.key, c.value, err, c.want)
		}
	}
	if _, err := Parse("audit.toml", []byte("[crashes]\nkeep = -1\n"+oneSink)); err == nil || !strings.Contains(err.Error(), "keep must be from 0 to 10000") {
		t.Errorf("%v", err)
	}
}
