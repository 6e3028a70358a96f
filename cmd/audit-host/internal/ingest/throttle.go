package ingest

import (
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// throttle lets one warning a second through: when a queue is full, a line for
// each request would fill the disk that the events need.
type throttle struct {
	mu     sync.Mutex
	next   time.Time // guarded by mu
	missed int       // guarded by mu; since the last one that got through
}

// due says whether a warning may be written now, and how many were not since
// the last.
func (t *throttle) due() (missed int, ok bool) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		t.missed++
		return 0, false
	}
	missed, t.missed, t.next = t.missed, 0, now.Add(time.Second)
	return missed, true
}

func (t *throttle) warn(r *http.Request, log *slog.Logger, text string, attrs ...slog.Attr) {
	missed, ok := t.due()
	if !ok {
		return
	}
	attrs = append(attrs, slog.String("from", r.RemoteAddr))
	if missed > 0 {
		attrs = append(attrs, slog.Int("and_not_shown", missed))
	}
	log.LogAttrs(r.Context(), slog.LevelWarn, text, attrs...)
}
