// Command add-manifest appends a plugin's manifest to its module: Go's linker
// writes no custom sections.
//
//	add-manifest manifest.json plugin.wasm
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/audit-host/audit-host/abi/manifest"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "usage: add-manifest MANIFEST.json PLUGIN.wasm (the module is replaced)")
		return 2
	}
	if err := add(args[0], args[1]); err != nil {
		fmt.Fprintf(stderr, "add-manifest: %v\n", err)
		return 1
	}
	return 0
}

func add(manifestFile, module string) error {
	text, err := os.ReadFile(manifestFile)
	if err != nil {
		return err
	}
	wasm, err := os.ReadFile(module)
	if err != nil {
		return err
	}
	out, err := manifest.Append(wasm, text)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", module, manifestFile, err)
	}
	tmp := module + ".tmp"
	if err := os.WriteFile(tmp, out, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, module)
}
