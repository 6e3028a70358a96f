package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
)

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if args == nil {
		args = []string{} // cobra would take those of the process
	}
	began := false
	root := newRoot()
	// Whatever a plugin or a client has put into a text, a terminal is not moved by it.
	out, words := visible.NewWriter(stdout), visible.NewWriter(stderr)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(words)
	root.SetArgs(args)
	profile := profileFlag(root)
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		began = true
		return profile.start()
	}
	err := root.ExecuteContext(ctx)
	if stopErr := profile.stop(); err == nil {
		err = stopErr
	}
	var exit *exitError
	if err != nil && !began && !errors.As(err, &exit) {
		err = &exitError{exitUsage, err}
	}
	err = errors.Join(err, out.Flush())
	code := report(err, words)
	_ = words.Flush() // there is nowhere left to say so
	return code
}

func newRoot() *cobra.Command {
	root := group("audit-host", "Keeps what a policy engine refused in a signed, hash-chained ledger",
		newInit(), newValidate(), newRun(), newReload(), newIngest(), newVerify(), newCanonicalize(), newTail(),
		group("dlq", "Look after the dead letters", newDLQList(), newDLQShow(), newDLQReplay(), newDLQPurge()),
		group("sink", "Look after the sinks", newSinkList(), newSinkResume(), newSinkForget()),
		group("ledger", "Look after the ledger", newAcceptHead()),
		group("queue", "Look after the queue on disk", newAcceptLoss()),
		group("key", "Make and show keys", newKeyNew(), newKeyPublic()),
		group("plugin", "Make plugins, look at them, pin them", newPluginNew(), newPluginManifest(), newPluginInspect(), newPluginCheck(), newPluginLock(), newPluginReplay()),
		newVersion(), newCompletion())
	root.Long = root.Short + `.

Data goes to stdout, words to stderr. Exit codes: 0 done, 1 failed, 2 usage,
3 verification found a break, 4 could not verify all that was asked, 5 dead
letters left, 78 configuration.`
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp())
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	shortUsage(root)
	return root
}

// shortUsage keeps "[flags]" out of the usage lines, which name those that
// matter.
func shortUsage(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	for _, sub := range c.Commands() {
		shortUsage(sub)
	}
}

// group is a command that only holds others.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short}
	c.AddCommand(commands...)
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return usageError("unknown command %q for %q: %s", args[0], c.CommandPath(), meant(args[0], names(c), c))
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return usageError("%s needs a command: %s; see %s --help", c.CommandPath(), strings.Join(names(c), ", "), c.CommandPath())
	}
	return c
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show what a command does",
		RunE: func(c *cobra.Command, args []string) error {
			target, rest, err := c.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return usageError("unknown command %q for %q: %s", rest[0], target.CommandPath(), meant(rest[0], names(target), target))
			}
			return target.Help()
		},
	}
}

func names(c *cobra.Command) []string {
	var list []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			list = append(list, sub.Name())
		}
	}
	return list
}

// meant suggests the known word that was probably meant. Without one it points
// to the help of c.
func meant(word string, known []string, c *cobra.Command) string {
	if near := config.Nearest(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return fmt.Sprintf("see %s --help", c.CommandPath())
}

func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	word := "" // of one letter is near to nothing
	if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
		word = "--" + unknown.GetSpecifiedName()
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
	return usageError("%w: %s", err, meant(word, known, c))
}

// arguments wants from least to most positional arguments.
func arguments(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageError("%s: an argument is missing; usage: %s", c.CommandPath(), c.UseLine())
		case len(args) > most:
			return usageError("%s: unexpected argument %q; usage: %s", c.CommandPath(), args[most], c.UseLine())
		}
		return nil
	}
}

// configFlag adds -c.
func configFlag(c *cobra.Command) *string {
	return c.Flags().StringP("config", "c", "audit.toml", "configuration `FILE`")
}

func jsonFlag(c *cobra.Command, usage string) *bool {
	return c.Flags().Bool("json", false, usage)
}

// loadConfig reads a configuration. All its errors exit with 78.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, &exitError{exitConfig, err}
	}
	return cfg, nil
}

// writeJSON writes v as one line.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}
