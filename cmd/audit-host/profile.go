package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"

	"github.com/spf13/cobra"
)

// profile writes a CPU profile of any command to the file of the hidden flag
// --cpuprofile: docs/performance.md says what was found that way.
type profile struct {
	path *string
	file *os.File
}

func profileFlag(root *cobra.Command) *profile {
	p := &profile{path: root.PersistentFlags().String("cpuprofile", "", "write a CPU profile to `FILE`")}
	_ = root.PersistentFlags().MarkHidden("cpuprofile") // fails only for a flag that is not there
	return p
}

func (p *profile) start() (err error) {
	if *p.path == "" {
		return nil
	}
	if p.file, err = os.Create(*p.path); err != nil {
		return fmt.Errorf("write CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(p.file); err != nil {
		return errors.Join(fmt.Errorf("write CPU profile: %w", err), p.file.Close())
	}
	return nil
}

// stop completes the profile.
func (p *profile) stop() error {
	if p.file == nil {
		return nil
	}
	pprof.StopCPUProfile()
	if err := p.file.Close(); err != nil {
		return fmt.Errorf("write CPU profile: %w", err)
	}
	return nil
}
