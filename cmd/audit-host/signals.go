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
//
// The order matters: the signals are given up before anybody can see that the
// context is done. The other way round a second signal could come in between,
// be taken for the first, and be forgotten. One that came so soon after the
// first that it was caught too is sent again.
func untilSignal(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	caught := make(chan os.Signal, 2)
	signal.Notify(caught, os.Interrupt, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-caught:
			signal.Stop(caught) // nothing comes into the channel after this
			select {
			case second := <-caught:
				sendAgain(second)
			default:
			}
			cancel()
		case <-ctx.Done():
			signal.Stop(caught)
		}
	}()
	return ctx, func() {
		cancel()
		<-ended
	}
}

// sendAgain ends this process by a signal.
func sendAgain(s os.Signal) {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(s)
	}
	if err != nil {
		os.Exit(exitFailed) // Windows has no such call for an interrupt
	}
}
