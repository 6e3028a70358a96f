package pipeline

import (
	"fmt"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/event"
)

// refusedOf begins the name that stands for a sink's in the dead letters of what
// came in a format and no event could be made of. No sink can have it.
const refusedOf = "ingest/"

// RefusedSink is that name.
func RefusedSink(format string) string { return refusedOf + format }

// Revive returns a function that reads the text of a letter of a [RefusedSink]
// again, with the present configuration. recorded tells whether the configuration
// records such decisions. An id or a time that the text lacks is the letter's:
// reading it twice gives the same event.
func Revive(cfg *config.Config) (func(*deadletter.Letter) (e abi.Event, recorded bool, err error), error) {
	parsers := map[string]event.Parse{}
	for _, f := range event.Formats {
		var err error
		if parsers[RefusedSink(f.Name)], err = compile(cfg, f); err != nil {
			return nil, err
		}
	}
	records := Recorded(cfg)
	return func(l *deadletter.Letter) (abi.Event, bool, error) {
		parse, known := parsers[l.Sink]
		switch {
		case !known:
			return abi.Event{}, false, fmt.Errorf("this audit-host reads no format %q", strings.TrimPrefix(l.Sink, refusedOf))
		case len(l.Raw) > int(cfg.HTTP.MaxEvent):
			return abi.Event{}, false, fmt.Errorf("it has %d bytes, at most %v are taken (http.max_event)", len(l.Raw), cfg.HTTP.MaxEvent)
		}
		o := EventOptions(cfg)
		o.NewID = func() (string, error) { return l.Event.ID, nil }
		o.Now = func() time.Time { return l.FailedAt }
		e, decision, err := parse(l.Raw, o)
		if err != nil {
			return abi.Event{}, false, err
		}
		return e, records(decision.Kind), nil
	}, nil
}

// Revivable says why a letter could not be replayed with a configuration, however
// well its sink is; nil if it could. recorded is false for what would be resolved
// without being recorded.
func Revivable(cfg *config.Config, revive func(*deadletter.Letter) (abi.Event, bool, error), l *deadletter.Letter) (recorded bool, err error) {
	if strings.HasPrefix(l.Sink, refusedOf) {
		_, recorded, err := revive(l)
		return recorded, err
	}
	for _, s := range cfg.Sinks {
		if s.Name != l.Sink {
			continue
		}
		e := l.Event
		if l.Raw != nil {
			if e, err = abi.DecodeRecord(e.ID, e.Seq, l.Raw); err != nil {
				return true, err
			}
		}
		return true, event.Check(e, EventOptions(cfg))
	}
	return true, fmt.Errorf("no sink named %q is configured", l.Sink)
}
