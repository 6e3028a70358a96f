package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/abi"
)

// sqliteVersion is that of the SQLite inside go-sqlite3; a test compares them.
const sqliteVersion = "3.51.3"

// buildInfo says what this binary is made of.
type buildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"` // empty if it was not built in a checkout
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	ABI      int    `json:"abi"`
	SQLite   string `json:"sqlite"`
	Binding  string `json:"go_sqlite3"`
	Wazero   string `json:"wazero"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		ABI: abi.Version, SQLite: sqliteVersion, Binding: "unknown", Wazero: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	for _, d := range info.Deps {
		switch d.Path {
		case "github.com/ncruces/go-sqlite3":
			b.Binding = d.Version
		case "github.com/tetratelabs/wazero":
			b.Wazero = d.Version
		}
	}
	return b
}

func newVersion() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the version of audit-host and of what it is made of",
		Args:  arguments(0, 0),
	}
	asJSON := jsonFlag(c, "write one JSON object")
	c.RunE = func(c *cobra.Command, _ []string) error {
		b := readBuildInfo()
		if *asJSON {
			return writeJSON(c.OutOrStdout(), b)
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "audit-host %s (%s, %s)\nABI %d, SQLite %s (go-sqlite3 %s) on wazero %s\n",
			b.Version, b.Go, b.Platform, b.ABI, b.SQLite, b.Binding, b.Wazero)
		return err
	}
	return c
}
