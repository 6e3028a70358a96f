// Command bench measures audit-host beside its peers, in one run on one
// machine, so that the ratios mean something even where the numbers do not:
//
//	make bench            # from the root of the repository
//	go run . -rounds 5 -only 'ingest|cgo'
//
// Every round runs every measurement once, one after the other, so that what
// else the machine does hits all of them alike. Printed are name=value lines
// with the median of the rounds, and a table with median, lowest, highest,
// what it is worth against a peer (the median of the ratios of each round),
// and the processors that others used meanwhile: a figure with more than a few
// tenths there is worth little, its ratio still something.
//
// Everything is made in a temporary folder on the disk of -dir, and removed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what the measurements share.
type bench struct {
	dir    string  // of this run, on the disk that is measured
	binary string  // audit-host
	cache  string  // compiled plugins
	events int     // in an ingested file
	start  float64 // what an ingest of one event takes of a processor, in seconds
	// Files of events, made once.
	minted, random string
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := flags.Int("rounds", 3, "how often each measurement runs")
	only := flags.String("only", "", "run the measurements whose name matches this `regexp`")
	list := flags.Bool("list", false, "list the measurements and end")
	parent := flags.String("dir", "", "measure the disk of this `folder`; the default is that of temporary files")
	binary := flags.String("binary", "", "this `audit-host` instead of the one of this working tree")
	events := flags.Int("events", 100_000, "in an ingested file")
	curves := flags.Bool("curves", false, "the scaling curves instead; takes many minutes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	all := measurements()
	if *curves {
		all = scaling()
	}
	var chosen []measurement
	for _, m := range all {
		if match.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	if *list {
		for _, m := range chosen {
			fmt.Printf("%-28s %s\n", m.name, m.about)
		}
		return nil
	}
	if len(chosen) == 0 || *rounds < 1 {
		return fmt.Errorf("nothing to measure: no name matches %q, or no rounds", *only)
	}

	b := &bench{events: *events, binary: *binary}
	if b.dir, err = os.MkdirTemp(*parent, "audit-host-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	fmt.Printf("# %s, %s/%s, %d processors, %s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), time.Now().Format(time.DateOnly))
	r := results{}
	for round := range *rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d, load %s\n", round+1, *rounds, loadAverage())
		for _, m := range chosen {
			if err := r.measure(ctx, b, m, round); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	r.print(os.Stdout)
	return nil
}
