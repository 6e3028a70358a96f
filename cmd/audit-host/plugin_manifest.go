package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
)

func newPluginManifest() *cobra.Command {
	return &cobra.Command{
		Use:   "manifest MANIFEST.json FILE.wasm",
		Short: "Put a plugin's manifest into its module",
		Long: `Checks a manifest and puts it into the custom section audit.manifest of a
WebAssembly module, in place of one that is there. The file is replaced at once,
or left as it was after an error.

A manifest is a JSON object: name (a-z, 0-9, -), version, capabilities (what the
plugin asks for: sql, append, http, kv, now, random), idempotent (whether an
event that comes twice is stored once), config_schema (JSON Schema).`,
		Args: arguments(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			text, wasm := args[0], args[1]
			if strings.HasSuffix(text, ".wasm") && strings.HasSuffix(wasm, ".json") {
				return usageError("the manifest comes first: %s %s %s", c.CommandPath(), wasm, text)
			}
			m, err := manifest.SetFile(wasm, text, knownCapabilities)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s is %s %s, capabilities: %s\n", wasm, m.Name, visible.Word(m.Version), listOf(m.Capabilities))
			return nil
		},
	}
}

// knownCapabilities refuses what this host can't grant: mostly a slip.
func knownCapabilities(m manifest.Manifest) error {
	for _, name := range m.Capabilities {
		if slices.Contains(abi.Capabilities(), name) {
			continue
		}
		hint := "there are " + strings.Join(abi.Capabilities(), ", ")
		if near := config.Nearest(name, abi.Capabilities()); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return fmt.Errorf("capability %q is unknown: %s", name, hint)
	}
	return nil
}
