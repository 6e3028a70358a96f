// Command add-manifest puts a plugin's manifest into its module, in place of
// one that is there: Go's linker writes no custom sections.
//
//	add-manifest manifest.json plugin.wasm
//
// It is for builds in a checkout of this module; "audit-host plugin manifest" does the
// same where there is only the binary.
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
	if _, err := manifest.SetFile(args[1], args[0]); err != nil {
		fmt.Fprintf(stderr, "add-manifest: %v\n", err)
		return 1
	}
	return 0
}
