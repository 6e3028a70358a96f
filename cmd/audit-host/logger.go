package main

import (
	"io"
	"log/slog"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
)

// newLogger writes to stderr in the form that the configuration asks for.
func newLogger(cfg config.Log, stderr io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(stderr, o))
	}
	return slog.New(slog.NewTextHandler(stderr, o))
}
