package event

import (
	"fmt"
	"strconv"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// TypeGap is the event type of a gap record. Types that begin with "audit." are
// the host's own; whoever takes events from clients refuses them.
const TypeGap = "audit.gap"

// HostAgent is the agent of events that the host makes about itself.
const HostAgent = "audit-host"

// Gap tells that events were refused because the queue was full: how many, by
// which source, from when to when. It stands in the ledger as an event like any
// other, signed and chained, so that a gap is no silence.
type Gap struct {
	Sources []GapSource // at least one, each with its own name
	// Recovered tells that the counts are those that a process before this one
	// wrote down before it was killed: there may have been more.
	Recovered bool
}

// GapSource is what one source was refused. Count is how often: a client that
// repeats an event is counted each time.
type GapSource struct {
	Source      string
	Count       uint64
	First, Last time.Time
}

// Event makes the event, stamped with o's time and id. The action has the sums
// over all sources:
//
//	{"first", "kind": "audit.gap", "last", "recovered"?, "refused", "sources": {NAME: {"first", "last", "refused"}}}
func (g Gap) Event(o Options) (abi.Event, error) {
	if len(g.Sources) == 0 {
		return abi.Event{}, fmt.Errorf("make event of a gap: it has no sources")
	}
	all := GapSource{First: g.Sources[0].First, Last: g.Sources[0].Last}
	for _, s := range g.Sources {
		all.Count += s.Count
		if s.First.Before(all.First) {
			all.First = s.First
		}
		if s.Last.After(all.Last) {
			all.Last = s.Last
		}
	}
	action, err := appendGap([]byte(`{"kind":"audit.gap",`), all)
	if err != nil {
		return abi.Event{}, err
	}
	if g.Recovered {
		action = append(action, `,"recovered":true`...)
	}
	action = append(action, `,"sources":{`...)
	for i, s := range g.Sources {
		if i > 0 {
			action = append(action, ',')
		}
		action = append(appendString(action, s.Source), `:{`...)
		if action, err = appendGap(action, s); err != nil {
			return abi.Event{}, err
		}
		action = append(action, '}')
	}
	action = append(action, `}}`...)
	d := Decision{Kind: KindWarn, RuleID: "queue_full",
		Reason: fmt.Sprintf("%d events were refused because the queue was full", all.Count)}
	e, err := New(HostAgent, RawAction(action), d, o)
	e.EventType = TypeGap
	return e, err
}

func appendGap(dst []byte, s GapSource) ([]byte, error) {
	for _, t := range []struct {
		name string
		at   time.Time
	}{{`"first":"`, s.First}, {`"last":"`, s.Last}} {
		m, reason := momentOf(t.at)
		if reason != "" {
			return dst, fmt.Errorf("make event of a gap: the time of a refusal %s", reason)
		}
		dst = append(m.append(append(dst, t.name...)), `",`...)
	}
	return strconv.AppendUint(append(dst, `"refused":`...), s.Count, 10), nil
}
