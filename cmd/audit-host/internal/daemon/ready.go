package daemon

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/queue"
)

// tooOld is the age of an event in hand beyond which a required sink does not
// count as working.
const tooOld = time.Minute

// ready tells whether events can be recorded now, and what is not as it should
// be. What concerns an optional sink is told and does no harm. Unless told is set
// a reason is of our own words and names alone: the text of a plugin may hold an
// event, and that of a database what a plugin has put there.
func ready(p *pipeline.Pipeline, now time.Time, told bool) (ok bool, reasons []string) {
	ok = true
	why := func(text, instead string) string {
		if told {
			return text
		}
		return instead
	}
	add := func(harm bool, format string, args ...any) {
		ok = ok && !harm
		reasons = append(reasons, fmt.Sprintf(format, args...))
	}
	if !p.Recorder.IsOpen() {
		add(true, "the queue is closed")
	}
	if err := p.Queue.Watermarks().Failure; err != nil {
		add(true, "the queue can't write: %v", err)
	}
	for _, text := range p.Absent {
		// Like a ledger that takes nothing: acknowledged events wait for an operator.
		add(true, "%s", text)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Missing)) {
		add(false, "sink %s (optional) could not be loaded: %s", name, why(p.Missing[name], listTells))
	}
	for _, u := range p.Unclaimed() {
		// Like one that is parked: nothing is committed without a required one.
		add(u.Required, "the queue keeps %d events for sink %s, which is not configured: %s", u.Pending, u.Name, u.Mend())
	}
	metrics := p.Recorder.Metrics()
	for i := range metrics.Sinks {
		if harm, reason := trouble(&metrics.Sinks[i], now, why); reason != "" {
			add(harm, "%s", reason)
		}
	}
	for _, s := range p.PluginStates() {
		if s.RolledBack != "" {
			add(false, "sink %s: its new plugin was taken back at %s, the one before goes on: %s", s.Sink, s.RolledBackAt.UTC().Format(time.RFC3339), why(s.RolledBack, listTells))
		}
	}
	if l := p.Ledger(); l.Trouble.Fault != "" {
		// A lock is somebody else at work. The rest is nothing that goes by itself.
		add(l.Trouble.Fault != pipeline.FaultLocked || now.Sub(l.Trouble.Since) >= tooOld,
			"the ledger takes nothing for %v, its events are kept (%s): %s", now.Sub(l.Trouble.Since).Round(time.Second), l.Trouble.Fault, why(l.Trouble.Text, "the log tells why"))
	} else if l.Unsaved != "" {
		add(false, "the ledger's head can't be remembered: %s", why(l.Unsaved, "the log tells why"))
	}
	if err := p.Reachable(); err != nil {
		add(true, "the ledger can't be read: %s", why(err.Error(), "audit-host verify tells why"))
	}
	return ok, reasons
}

// listTells stands for a text that is not told to everybody.
const listTells = "audit-host sink list tells why"

// trouble says what keeps a sink from working; "" if nothing does. why chooses
// between the text of the sink and ours.
func trouble(m *queue.SinkMetrics, now time.Time, why func(text, instead string) string) (harm bool, reason string) {
	name := "sink " + m.Name
	if !m.Required {
		name += " (optional)"
	}
	instead := listTells
	if m.LastOutcome != abi.OK {
		instead = m.LastOutcome.String() + ", " + listTells
	}
	age := time.Duration(0)
	if !m.Oldest.IsZero() {
		age = now.Sub(m.Oldest).Round(time.Second)
	}
	switch {
	case m.Parked != "":
		return m.Required, fmt.Sprintf("%s is parked, its events are kept: %s; mend it, then: audit-host sink resume %s", name, why(m.Parked, instead), m.Name)
	case m.State == queue.Stopped:
		return m.Required, name + " has stopped"
	case age >= tooOld:
		return m.Required, fmt.Sprintf("%s is %s, its oldest event is %v old: %s", name, m.State, age, why(m.LastError, instead))
	case m.State == queue.Waiting || m.State == queue.Bisecting:
		return false, fmt.Sprintf("%s is %s: %s", name, m.State, why(m.LastError, instead))
	}
	return false, ""
}
