package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/scaffold"
)

func newPluginNew() *cobra.Command {
	languages, grants := scaffold.Languages(), scaffold.Grants()
	c := &cobra.Command{
		Use:   "new NAME --lang " + strings.Join(languages, "|") + " [--grant " + strings.Join(grants, "|") + "] [--dir DIR]",
		Short: "Make a folder with a new sink plugin",
		Long: `Makes the folder NAME: a sink that works as it is, the SDK of its language, a
manifest, build.sh, an audit.toml that runs it, and a README. Nothing is fetched;
building needs the language's compiler and this program, and no network.

The examples: append writes lines into a file, http posts batches to a URL, sql
keeps events in a table of its own.`,
		Args: arguments(1, 1),
	}
	language := c.Flags().String("lang", "", "`LANG`uage of the sink: "+strings.Join(languages, ", "))
	grant := c.Flags().String("grant", grants[0], "what the example writes to, a `GRANT`: "+strings.Join(grants, ", "))
	dir := c.Flags().String("dir", ".", "make the folder NAME in `DIR`")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *language == "" {
			return usageError("--lang is missing: one of %s", strings.Join(languages, ", "))
		}
		for _, f := range []struct {
			flag, value string
			known       []string
		}{{"--lang", *language, languages}, {"--grant", *grant, grants}} {
			if !slices.Contains(f.known, f.value) {
				return usageError("%s %q is none of %s: %s", f.flag, f.value, strings.Join(f.known, ", "), meant(nicknamed(f.value), f.known, c))
			}
		}
		p := scaffold.Project{Name: args[0], Language: *language, Grant: *grant, Version: scaffold.ModuleVersion(readBuildInfo().Version)}
		folder, names, err := p.Write(*dir)
		if err != nil {
			return err
		}
		return tellNew(c.ErrOrStderr(), folder, names)
	}
	return c
}

// nicknames are other names of languages and grants.
var nicknames = map[string]string{
	"golang": "go", "cpp": "c", "c++": "c", "rs": "rust", "assemblyscript": "as", "typescript": "as", "ts": "as", "javascript": "as", "js": "as",
	"file": "append", "https": "http", "sqlite": "sql", "database": "sql",
}

func nicknamed(word string) string {
	if name, ok := nicknames[strings.ToLower(word)]; ok {
		return name
	}
	return word
}

// tellNew says what was made, the files of folders as the folder alone.
func tellNew(w io.Writer, folder string, names []string) error {
	var short []string
	for _, name := range names {
		if top, _, deep := strings.Cut(name, "/"); deep {
			name = top + "/"
		}
		if !slices.Contains(short, name) {
			short = append(short, name)
		}
	}
	_, err := fmt.Fprintf(w, "made %s: %s\nnext: cd %s && sh build.sh; README.md in it says how to check and run it\n",
		folder, strings.Join(short, ", "), filepath.ToSlash(folder))
	return err
}
