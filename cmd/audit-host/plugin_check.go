package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	audithost "github.com/audit-host/audit-host"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
	"github.com/audit-host/audit-host/host/conformance"
)

func newPluginCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "check FILE [--config FILE [--sink NAME]] [--run REGEXP] [--batches N] [--answer FILE] [--database FILE] [--log] [--json]",
		Short: "Check a plugin against the rules of the ABI",
		Long: `Runs a plugin in a world made for it and thrown away: an empty database, a file,
a small store, an HTTP server on loopback, as its manifest asks for. Everything
that may go wrong is made to, and what the plugin has stored is compared with
what it has answered. FILE may be the name of a bundled plugin. Each case names
the rule of abi/README.md that it checks; a breach is explained with what was
sent, what came back, what was wanted and what to change.

The configuration is made from the schema in the manifest, or taken from
--config: a JSON object, or an audit.toml, of which --sink names the sink if
there are several. No other server is asked: each URL in it leads to the one on
loopback, with the same path. A plugin that looks at the body of an answer
needs one that satisfies it, in --answer.

Exit codes: 0 all rules held, 1 one is broken, 2 usage, 4 none is broken but not
all could be checked, 78 the configuration can't be read.`,
		Args: arguments(1, 1),
	}
	path := c.Flags().String("config", "", "take the plugin's configuration from `FILE`")
	sink := c.Flags().String("sink", "", "take that of the sink `NAME` of an audit.toml")
	only := c.Flags().String("run", "", "run only the cases whose names match `REGEXP`")
	batches := c.Flags().Int("batches", conformance.DefaultBatches, "deliver `N` batches in the case endurance")
	answer := c.Flags().String("answer", "", "have the HTTP server answer with the content of `FILE` and not with {}")
	base := c.Flags().String("database", "", "begin with a copy of the SQLite database `FILE`, for a plugin that makes no tables")
	logged := c.Flags().Bool("log", false, "write what the plugin and its host log to stderr")
	asJSON := jsonFlag(c, "write one JSON object")
	c.RunE = func(c *cobra.Command, args []string) error {
		o := conformance.Options{Batches: *batches, Database: *base}
		if *batches < 1 {
			return usageError("--batches is %d; it is at least 1", *batches)
		}
		var err error
		if o.Only, err = chosenCases(*only); err != nil {
			return err
		}
		wasm, err := pipeline.ReadPlugin(pluginNamed(args[0]))
		if err != nil {
			return err
		}
		if o.Config, err = checkedConfig(*path, *sink); err != nil {
			return err
		}
		if *answer != "" {
			if o.Answer, err = os.ReadFile(*answer); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
		}
		if *logged {
			o.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
		card := &scorecard{w: c.OutOrStdout(), plain: true}
		if !*asJSON {
			if f := visible.Terminal(card.w); f != nil && os.Getenv("NO_COLOR") == "" {
				card.plain, card.colours = false, f
			}
			o.Done = card.result
		}
		// Its world is to be removed, also when it is interrupted.
		ctx, stop := untilSignal(c.Context())
		defer stop()
		r, err := conformance.Check(ctx, wasm, o)
		if errors.Is(err, context.Canceled) {
			return errors.New("check plugin: interrupted, not all cases were run")
		} else if err != nil {
			return err
		}
		if *asJSON {
			err = writeJSON(c.OutOrStdout(), r)
		} else {
			err = card.end(r)
		}
		switch {
		case err != nil:
			return err
		case r.Breaches > 0:
			return exitWith(exitFailed)
		case r.Unchecked > 0:
			return exitWith(exitUnchecked)
		}
		return nil
	}
	return c
}

// pluginNamed is a file, or without one of that name a bundled plugin.
func pluginNamed(name string) config.Plugin {
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) && slices.Contains(config.BundledPlugins(), name) {
		return config.Plugin{Bundled: name}
	}
	return config.Plugin{Path: name}
}

// chosenCases reads --run. One that chooses nothing is a slip.
func chosenCases(text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, nil
	}
	only, err := regexp.Compile(text)
	if err != nil {
		return nil, usageError("--run: %w", err)
	}
	var names []string
	for _, c := range conformance.Cases() {
		if only.MatchString(c.Name) {
			return only, nil
		}
		names = append(names, c.Name)
	}
	return nil, usageError("--run %q matches no case; there are %s", text, strings.Join(names, ", "))
}

// checkedConfig reads --config.
func checkedConfig(path, sink string) (json.RawMessage, error) {
	switch {
	case path == "" && sink != "":
		return nil, usageError("--sink names a sink of an audit.toml: name that with --config")
	case path == "":
		return nil, nil
	case filepath.Ext(path) != ".toml":
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if !json.Valid(text) {
			return nil, &exitError{exitConfig, fmt.Errorf("%s is no JSON; an audit.toml is known by its name's ending", path)}
		}
		return text, nil
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range cfg.Sinks {
		if s.Name == sink || sink == "" && len(cfg.Sinks) == 1 {
			if s.Config == nil {
				return json.RawMessage("{}"), nil
			}
			return s.Config, nil
		}
		names = append(names, s.Name)
	}
	return nil, usageError("--sink %q: %s has %s", sink, path, strings.Join(names, ", "))
}

// ruleText is what abi/README.md says under the number of a rule, for somebody
// who has only the binary; "" if it says nothing.
func ruleText(rule string) string {
	text, err := fs.ReadFile(audithost.GuestSources, "abi/README.md")
	if err != nil {
		return ""
	}
	_, text, found := bytes.Cut(text, []byte("**"+rule+"**"))
	if !found {
		return ""
	}
	for _, end := range []string{"**R", "\n\n", "|\n"} {
		text, _, _ = bytes.Cut(text, []byte(end))
	}
	return strings.Trim(string(text), " \n-|")
}

// scorecard writes results as they come: marks on a terminal, words elsewhere.
type scorecard struct {
	w       io.Writer
	colours io.Writer // the terminal, for marks; nil if plain
	plain   bool
	spaced  bool     // the last line is empty
	left    []string // cases that were not run for another one's sake
	err     error    // the first of writing
}

// marks are those of a terminal, with their colour, and the words for elsewhere.
var marks = map[conformance.Status][2]string{
	conformance.Held:         {"\x1b[32m✓\x1b[0m", "ok  "},
	conformance.Broken:       {"\x1b[31m✗\x1b[0m", "FAIL"},
	conformance.Inapplicable: {"\x1b[2m·\x1b[0m", "n/a "},
	conformance.Unchecked:    {"\x1b[33m?\x1b[0m", "????"},
}

func (s *scorecard) print(format string, args ...any) {
	if _, err := fmt.Fprintf(s.w, format, args...); s.err == nil {
		s.err = err
	}
}

func (s *scorecard) mark(of conformance.Status) {
	if s.plain {
		s.print("%s", marks[of][1])
	} else if _, err := io.WriteString(s.colours, marks[of][0]); s.err == nil {
		s.err = err
	}
}

func (s *scorecard) result(r conformance.Result) {
	if r.After != "" {
		s.left = append(s.left, r.Case)
		return
	}
	s.spaced = false
	s.mark(r.Status)
	s.print(" %-3s  %-11s  %s\n", r.Rule, r.Case, r.Title)
	if r.Note != "" {
		s.indented("", r.Note)
	}
	if b := r.Breach; b != nil {
		s.indented("sent", b.Sent)
		s.indented("got", b.Got)
		s.indented("wanted", b.Wanted)
		s.indented("change", b.Change)
		if text := ruleText(r.Rule); text != "" {
			s.indented(r.Rule, text)
		}
		s.print("\n")
		s.spaced = true
	}
}

// indented writes a text below a result, broken into lines.
func (s *scorecard) indented(label, text string) {
	const width = 96
	margin := 12
	if !s.plain {
		margin -= 3
	}
	line := ""
	put := func() {
		s.print("%*s%-7s %s\n", margin, "", label, line)
		label, line = "", ""
	}
	if label == "" {
		put = func() {
			s.print("%*s%s\n", margin+13-2, "", line)
			line = ""
		}
	}
	for word := range strings.FieldsSeq(text) {
		word = visible.Line(word)
		if line != "" && len(line)+1+len(word) > width {
			put()
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	put()
}

func (s *scorecard) end(r *conformance.Report) error {
	if s.left != nil {
		s.mark(conformance.Unchecked)
		s.print(" without the above nothing can be said of\n")
		s.indented("", strings.Join(s.left, ", "))
		s.spaced = false
	}
	if !s.spaced {
		s.print("\n")
	}
	name := "a module without a manifest"
	if r.Plugin != "" {
		name = visible.Line(r.Plugin) + " " + visible.Line(r.Version)
	}
	s.print("%s, sha256 %s\n", name, r.Digest)
	s.print("%d held, %d broken, %d do not apply, %d could not be checked, %.1f s\n", r.Held, r.Breaches, r.Inapplicable, r.Unchecked, r.Took.Round(100*time.Millisecond).Seconds())
	if s.err != nil {
		return fmt.Errorf("write scorecard: %w", s.err)
	}
	return nil
}
