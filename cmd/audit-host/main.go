// Command audit-host takes the refusals of a policy engine, keeps them, and
// lands them in a signed, hash-chained ledger through WebAssembly sinks.
//
// Data goes to stdout and words to stderr. The exit codes are those of the
// constants in exit.go. Each command has a file of its own; what several of
// them need stands in the packages under internal:
//
//   - config reads audit.toml
//   - ingest takes events over HTTP and as JSON Lines
//   - pipeline builds queue, sinks and recorder of a configuration
//   - metrics shows them to Prometheus
//   - audit verifies a ledger
package main

import (
	"context"
	"os"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
