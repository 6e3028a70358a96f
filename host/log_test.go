package host

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// countingHandler counts log lines and keeps them.
type countingHandler struct {
	mu    sync.Mutex
	lines []string
	bytes int
}

func (h *countingHandler) logger() *slog.Logger { return slog.New(h) }

func (h *countingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *countingHandler) WithGroup(string) slog.Handler            { return h }

func (h *countingHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Level.String() + " " + r.Message)
	size := 0
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(" " + a.String())
		if s, ok := a.Value.Any().(string); ok {
			size += strings.Count(s, "\uFFFD") + len(strings.ReplaceAll(s, "\uFFFD", ""))
		}
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines, h.bytes = append(h.lines, b.String()), h.bytes+size
	return nil
}

func (h *countingHandler) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines, h.bytes = nil, 0
}

func (h *countingHandler) count() (lines, bytes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.lines), h.bytes
}

// has tells whether a line holds all of the texts.
func (h *countingHandler) has(texts ...string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.lines {
		all := true
		for _, t := range texts {
			all = all && strings.Contains(l, t)
		}
		if all {
			return true
		}
	}
	return false
}

// hookLogger calls hook for every debug line, before it is kept.
func hookLogger(h *countingHandler, hook func()) *slog.Logger {
	return slog.New(hookHandler{h, hook})
}

type hookHandler struct {
	*countingHandler
	hook func()
}

func (h hookHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelDebug && r.Message == "plugin" {
		h.hook()
	}
	return h.countingHandler.Handle(ctx, r)
}
