package ingest

import (
	"log/slog"
	"net/http"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// throttle lets one warning a second through: when a queue is full, a line for
// each request would fill the disk that the events need.
type throttle struct {
	rate   rate.Sometimes
	missed atomic.Int64 // since the last one that got through
}

// due says whether a warning may be written now, and how many were not since
// the last.
func (t *throttle) due() (missed int64, ok bool) {
	t.missed.Add(1)
	t.rate.Do(func() { missed, ok = t.missed.Swap(0)-1, true })
	return missed, ok
}

func (t *throttle) warn(r *http.Request, log *slog.Logger, text string, attrs ...slog.Attr) {
	missed, ok := t.due()
	if !ok {
		return
	}
	attrs = append(attrs, slog.String("from", r.RemoteAddr))
	if missed > 0 {
		attrs = append(attrs, slog.Int64("and_not_shown", missed))
	}
	log.LogAttrs(r.Context(), slog.LevelWarn, text, attrs...)
}
