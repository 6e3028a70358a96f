package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	audithost "github.com/audit-host/audit-host"
)

// FuzzParse checks that no text makes Parse panic, that every problem points
// into the text and renders, and that a configuration without problems reads
// back from its own TOML as it was.
func FuzzParse(f *testing.F) {
	seeds := []string{
		string(audithost.SampleConfig),
		commented.ReplaceAllString(string(audithost.SampleConfig), "$1"),
		oneSink,
		oneSink + "config = {a = -0.0, b = 12345678901234567890.0, c = [[], [{}]], d = \"\\u007f\\\"\\\\\", \"\" = 1e-7}\n",
		"\ufeff" + strings.ReplaceAll(oneSink, "\n", "\r\n"),
		"sink = [{name = \"a\", plugin = './x.wasm', grant.sql.database = 'l.db'}]",
		oneSink + "[sink.config]\n[[sink.config.a]]\nb = 1\n[[sink.config.a]]\nb.c = '''\nx'''\n",
		"a.\"b\\u0000\".c = 1979-05-27T07:32:00Z\n",
		"[a]\nx = info\n[a]\n",
		"x = [[[[[\n",
		"x = {\n a = 1, # comment\n}\n",
		"\xff\xfex\x00",
		"\"\"\"\n",
		"'뱶",
	}
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("audit.toml", data)
		if err != nil {
			var problems *Problems
			if !errors.As(err, &problems) || len(*problems) == 0 {
				t.Fatalf("%T: %v", err, err)
			}
			for _, p := range *problems {
				checkPlace(t, p, string(data))
			}
			if problems.Error() == "" {
				t.Error("empty error text")
			}
			return
		}
		text := cfg.TOML()
		again, err := Parse("audit.toml", text)
		if err != nil {
			t.Fatalf("own TOML is refused:\n%v\n%s", err, text)
		}
		if !reflect.DeepEqual(cfg, again) {
			t.Errorf("reads back differently:\n%s\nwant\n%s", again.TOML(), text)
		}
		if _, err := Parse("audit.toml", []byte(cfg.Redacted())); err != nil {
			t.Errorf("redacted TOML is refused: %v", err)
		}
	})
}
