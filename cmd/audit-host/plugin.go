package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
	"github.com/audit-host/audit-host/host"
)

func newPluginInspect() *cobra.Command {
	c := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a plugin is and what it asks for, without running it",
		Long: `Shows the manifest, the capabilities, imports and exports of a WebAssembly module
and whether it fits the ABI. FILE may be the name of a bundled plugin. Exits
with 1 if the module does not fit.`,
		Args: arguments(1, 1),
	}
	asJSON := jsonFlag(c, "write one JSON object")
	c.RunE = func(c *cobra.Command, args []string) error {
		wasm, err := pipeline.ReadPlugin(pluginNamed(args[0]))
		if err != nil {
			return err
		}
		in, err := host.Inspect(c.Context(), wasm, host.InspectOptions{})
		if err != nil {
			return err
		}
		if *asJSON {
			err = writeJSON(c.OutOrStdout(), in)
		} else {
			err = describePlugin(c.OutOrStdout(), in)
		}
		if err == nil && !in.Fits {
			err = exitWith(exitFailed)
		}
		return err
	}
	return c
}

// describePlugin writes what people want to know of a plugin.
func describePlugin(w io.Writer, in *host.Inspection) error {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s %s\n", what+":", fmt.Sprintf(format, args...))
	}
	if m := in.Manifest; m != nil {
		line("plugin", "%s %s", m.Name, visible.Word(m.Version))
		line("idempotent", "%v", m.Idempotent)
	}
	line("sha256", "%s", in.Digest)
	line("size", "%d bytes, %d functions, %d bytes when metered", in.Size, in.Functions, in.MeteredSize)
	line("abi", "%s", listOf(in.ABI))
	line("capabilities", "%s", listOf(in.Capabilities))
	limit := "no limit of its own"
	if in.MemoryMax > 0 {
		limit = fmt.Sprintf("at most %d", in.MemoryMax)
	}
	line("memory", "%d bytes, %s", in.MemoryMin, limit)
	for _, s := range in.Imports {
		line("import", "%s.%s %s", visible.Word(s.Module), visible.Word(s.Name), s.Type)
	}
	for _, s := range in.Exports {
		line("export", "%s %s", visible.Word(s.Name), s.Type)
	}
	if in.Fits {
		line("fits", "yes")
	} else {
		line("fits", "NO: %s", in.Problem)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func listOf[T any](list []T) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(list), "[]")
}
