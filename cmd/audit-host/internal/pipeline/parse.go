package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// EventOptions are the limits of events in a configuration.
func EventOptions(cfg *config.Config) event.Options {
	return event.Options{MaxPayload: int(cfg.HTTP.MaxEvent)}
}

// Recorded tells whether the configuration records events with a decision.
func Recorded(cfg *config.Config) func(decision string) bool {
	return func(decision string) bool { return slices.Contains(cfg.Record.Decisions, decision) }
}

// hostTypes begins the types of the events that audit-host makes about itself.
const hostTypes = "audit."

// Routes are the formats of [event.Formats] as the HTTP server serves them.
func Routes(cfg *config.Config, r *queue.Recorder) ([]ingest.Route, error) {
	var list []ingest.Route
	for _, f := range event.Formats {
		parse, err := Parser(cfg, f)
		if err != nil {
			return nil, err
		}
		list = append(list, ingest.Route{Format: f, Intake: r.From(f.Source), Parse: parse})
	}
	return list, nil
}

// Parser reads elements of a format within the configuration's limits and by its
// pointers.
func Parser(cfg *config.Config, f event.Format) (ingest.Parse, error) {
	parse, err := compile(cfg, f)
	if err != nil {
		return nil, err
	}
	o := EventOptions(cfg)
	return func(raw []byte) (abi.Event, string, error) {
		e, d, err := parse(raw, o)
		if err == nil && strings.HasPrefix(e.EventType, hostTypes) {
			return e, d.Kind, fmt.Errorf("read event: event_type: types that begin with %s are those of audit-host itself; choose another", hostTypes)
		}
		return e, d.Kind, blame(err)
	}, nil
}

// compile makes a format's parser. [http.opa] is the one table of pointers that
// the configuration has.
func compile(cfg *config.Config, f event.Format) (event.Parse, error) {
	p := f.Pointers
	if f.Name == "opa" {
		p = event.Pointers(cfg.HTTP.OPA)
	}
	parse, err := f.Compile(p)
	if err != nil {
		return nil, fmt.Errorf("%s: [http.%s]: %w", cfg.File, f.Name, err)
	}
	return parse, nil
}

// blame marks an error that is not the text's fault: it must not be refused for
// good.
func blame(err error) error {
	var fault *event.Error
	if err != nil && !errors.As(err, &fault) {
		return fmt.Errorf("%w: %w", ingest.ErrNotNow, err)
	}
	return err
}
