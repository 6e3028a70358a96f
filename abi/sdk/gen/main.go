// Command gen writes the part of each SDK that holds the ABI's names and
// numbers, from the constants and signatures of package abi:
//
//	c/audit_host_abi.h  rust/src/abi.rs  as/abi.ts  zig/abi.zig
//
// It is run by go generate in the folder above. A test writes the files in
// memory and compares them with those that are there.
package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "usage: gen FOLDER (the folder of the SDKs)")
		return 2
	}
	files := files()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(args[0], filepath.FromSlash(name)), files[name], 0o644); err != nil {
			fmt.Fprintf(stderr, "gen: %v\n", err)
			return 1
		}
	}
	return 0
}
