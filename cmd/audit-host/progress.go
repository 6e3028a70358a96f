package main

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
)

// progress shows how far a long command is, on a terminal only.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress starts a bar up to total, or a spinner if total is 0. Bytes says
// that bytes are counted and not rows.
func newProgress(stderr io.Writer, what string, total int64, bytes bool) progress {
	f := visible.Terminal(stderr)
	if f == nil {
		return progress{}
	}
	if total <= 0 {
		total = -1
	}
	options := []progressbar.Option{
		progressbar.OptionSetWriter(f), progressbar.OptionSetDescription(what), progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100 * time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true),
	}
	if bytes {
		options = append(options, progressbar.OptionShowBytes(true))
	} else {
		options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("rows"))
	}
	return progress{progressbar.NewOptions64(total, options...)}
}

// set moves the bar to n. What the terminal answers does not matter.
func (p progress) set(n int64) {
	if p.bar != nil {
		_ = p.bar.Set64(n)
	}
}

// end takes the bar away.
func (p progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
