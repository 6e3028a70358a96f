package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/plugins/bundled"
)

// replayJSON is the end of a replay for machines.
type replayJSON struct {
	Bundle       string `json:"bundle"`
	Same         bool   `json:"same"`
	Unreplayable string `json:"unreplayable,omitempty"`
	Diverged     string `json:"diverged,omitempty"`
	Crash        endOf  `json:"crash"`
	Replay       endOf  `json:"replay"`
}

// endOf is how a crash, or its replay, ended.
type endOf struct {
	Outcome  string `json:"outcome"`
	Export   string `json:"export"`
	Detail   string `json:"detail"`
	Trace    string `json:"trace,omitempty"`
	Stderr   string `json:"stderr,omitempty"`
	FuelLeft int64  `json:"fuel_left"`
}

func newPluginReplay() *cobra.Command {
	c := &cobra.Command{
		Use:   "replay BUNDLE [--plugin FILE] [-c FILE] [--log]",
		Short: "Run a plugin's crash again, from its bundle",
		Long: `Runs the calls that ended in a crash again. Clock, randomness and the answers of
the host come from the bundle: the plugin is granted nothing, and touches no
file, database or network. Bundles lie in <state_dir>/crashes, with the plugin
beside them. Exits with 0 if it is the same crash, with 1 if it is another end,
and with 4 if it is another end and the bundle does not hold all of what led to
the crash.`,
		Args: arguments(1, 1),
	}
	module := c.Flags().String("plugin", "", "the plugin's `FILE`, if it is not beside the bundle")
	path := c.Flags().StringP("config", "c", "", "take the sink's configuration from `FILE`: the bundle has no secrets")
	logged := c.Flags().Bool("log", false, "write what the plugin logs to stderr")
	asJSON := jsonFlag(c, "write one JSON object")
	c.RunE = func(c *cobra.Command, args []string) error {
		b, err := host.ReadBundle(args[0])
		if err != nil {
			return err
		}
		wasm, err := replayedPlugin(args[0], *module, b)
		if err != nil {
			return err
		}
		o := host.ReplayOptions{}
		if *logged {
			o.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
		if *path != "" {
			if o.Config, err = configOf(*path, b.Sink); err != nil {
				return err
			}
		}
		r, err := host.Replay(c.Context(), b, wasm, o)
		if err != nil {
			return err
		}
		if *asJSON {
			err = writeJSON(c.OutOrStdout(), replayJSON{
				Bundle: args[0], Same: r.Same, Unreplayable: b.Unreplayable, Diverged: r.Diverged,
				Crash:  endOf{b.Outcome, b.Export, b.Detail, b.Trace, b.Stderr, b.FuelLeft},
				Replay: endOf{r.Outcome.String(), r.Export, r.Detail, r.Trace, r.Stderr, r.FuelLeft},
			})
		} else {
			err = describeReplay(c.OutOrStdout(), b, &r, o.Config != nil)
		}
		switch {
		case err != nil:
			return err
		case r.Same:
			return nil
		case b.Unreplayable != "" || r.Diverged != "" || len(b.Redacted) > 0 && o.Config == nil:
			return exitWith(exitUnchecked)
		}
		return exitWith(exitFailed)
	}
	return c
}

// replayedPlugin finds the module of a bundle.
func replayedPlugin(bundle, file string, b *host.Bundle) ([]byte, error) {
	if file != "" {
		wasm, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read plugin: %w", err)
		}
		return wasm, nil
	}
	wasm, err := host.PluginOf(bundle, b)
	if err != nil && slices.Contains(bundled.Names(), b.Plugin.Name) {
		// One that came with the host; the replay checks that it is the same.
		if own, err := bundled.Read(b.Plugin.Name); err == nil {
			return own, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w; name its file with --plugin", err)
	}
	return wasm, nil
}

// configOf returns what a configuration hands to the plugin of a sink.
func configOf(path, sink string) (json.RawMessage, error) {
	cfg, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(cfg.Sinks, func(s config.Sink) bool { return s.Name == sink })
	if i < 0 {
		return nil, fmt.Errorf("%s has no sink %s, whose plugin crashed", path, visible.Word(sink))
	}
	return cfg.Sinks[i].Config, nil
}

// describeReplay writes both ends and whether they are the same.
func describeReplay(w io.Writer, b *host.Bundle, r *host.Replayed, configured bool) error {
	var out strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&out, "%-8s %s\n", what+":", fmt.Sprintf(format, args...))
	}
	line("plugin", "%s %s, sha256 %s", visible.Line(b.Plugin.Name), visible.Line(b.Plugin.Version), visible.Line(b.Plugin.Digest))
	line("sink", "%s", visible.Line(b.Sink))
	line("crash", "%s in %s at %s: %s", visible.Line(b.Outcome), visible.Line(b.Export), b.Time.Format(time.RFC3339), visible.Line(first(b.Detail)))
	line("replay", "%s in %s: %s", r.Outcome, visible.Line(r.Export), visible.Line(first(r.Detail)))
	switch {
	case r.Same && r.FuelLeft == b.FuelLeft:
		line("same", "yes, with the same fuel left (%d)", r.FuelLeft)
	case r.Same:
		line("same", "yes, with %d fuel left instead of %d", r.FuelLeft, b.FuelLeft)
	default:
		line("same", "NO")
	}
	if r.Diverged != "" {
		line("note", "%s", visible.Line(r.Diverged))
	}
	if b.Unreplayable != "" {
		line("note", "%s", visible.Line(b.Unreplayable))
	}
	if len(b.Redacted) > 0 && !configured {
		line("note", "the plugin got its configuration without %s; name the configuration with -c", visible.Line(strings.Join(b.Redacted, ", ")))
	}
	for _, text := range []string{r.Trace, r.Stderr} {
		if text != "" {
			out.WriteByte('\n')
		}
		for l := range strings.Lines(text) {
			out.WriteString("  " + visible.Line(strings.TrimRight(l, "\n")) + "\n")
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// first is the first line of a text.
func first(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
