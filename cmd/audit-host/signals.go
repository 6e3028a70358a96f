package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// untilSignal returns a context that is done at the first SIGINT or SIGTERM.
// From then on the signals do what they do without us, so that a second one
// ends the process at once, whatever hangs.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	undo := context.AfterFunc(ctx, stop)
	return ctx, func() { undo(); stop() }
}
