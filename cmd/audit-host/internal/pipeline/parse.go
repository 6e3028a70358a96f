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

// ParseNative reads native events within the configuration's limits.
func ParseNative(cfg *config.Config) ingest.Parse {
	o := EventOptions(cfg)
	return func(raw []byte) (abi.Event, string, error) {
		e, d, err := event.ParseNative(raw, o)
		if err == nil && strings.HasPrefix(e.EventType, hostTypes) {
			return e, d.Kind, fmt.Errorf("read event: event_type: types that begin with %s are those of audit-host itself; choose another", hostTypes)
		}
		return e, d.Kind, blame(err)
	}
}

// ParseOPA reads elements of OPA's decision log by the configuration's
// pointers.
func ParseOPA(cfg *config.Config) (ingest.Parse, error) {
	p := cfg.HTTP.OPA
	mapping, err := event.CompileOPA(event.OPAPointers{Agent: p.Agent, Decision: p.Decision, Rule: p.Rule, Reason: p.Reason})
	if err != nil {
		return nil, fmt.Errorf("%s: [http.opa]: %w", cfg.File, err)
	}
	o := EventOptions(cfg)
	return func(raw []byte) (abi.Event, string, error) {
		e, d, err := event.ParseOPA(raw, mapping, o)
		return e, d.Kind, blame(err)
	}, nil
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
