package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitBroken      = 3  // verification found a break
	exitUnchecked   = 4  // nothing is broken, but not all that was asked could be verified
	exitDeadLetters = 5  // done, but some events are dead letters
	exitConfig      = 78 // EX_CONFIG of sysexits.h
)

// exitError ends the command with a code other than exitFailed.
type exitError struct {
	code int
	err  error // nil if everything was said already
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitWith ends the command with a code and no further word.
func exitWith(code int) error {
	if code == exitDone {
		return nil
	}
	return &exitError{code: code}
}

func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// report says what went wrong and returns the exit code.
func report(err error, stderr io.Writer) int {
	var exit *exitError
	var problems *config.Problems
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &problems):
		// Each problem begins with its place, as a compiler's do.
		fmt.Fprintln(stderr, problems)
		return exitConfig
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintf(stderr, "audit-host: %v\n", exit.err)
		}
		return exit.code
	}
	fmt.Fprintf(stderr, "audit-host: %v\n", err)
	return exitFailed
}
