package event

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/audit-host/audit-host/abi"
)

// What may become of a plugin. The event type is TypePlugin and the word.
const (
	PluginLoaded     = "loaded"
	PluginTrapped    = "trapped"
	PluginParked     = "parked"
	PluginResumed    = "resumed"
	PluginDeadLetter = "dead_letter"
	PluginRolledBack = "rolled_back"
)

// TypePlugin begins the types of events about plugins: audit.plugin.loaded and
// the others.
const TypePlugin = "audit.plugin."

// IsPlugin tells whether an event is about a plugin.
func IsPlugin(e *abi.Event) bool { return strings.HasPrefix(e.EventType, TypePlugin) }

// maxPluginDetail bounds the detail of a Plugin event in bytes.
const maxPluginDetail = 512

// Plugin is what became of a plugin, so that the ledger says which code handled
// what. Its members stand in the event's action, as a JSON object of kind
// "audit.plugin".
type Plugin struct {
	What   string `json:"what"` // one of the words above
	Sink   string `json:"sink"`
	Name   string `json:"plugin,omitempty"` // by its manifest
	Digest string `json:"sha256"`           // of its file
	// Version is by its manifest; Outcome, Detail and Events tell of a crash or
	// of dead letters, Detail why a sink is parked.
	Version string `json:"version,omitempty"`
	Outcome string `json:"outcome,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Events  int    `json:"events,omitempty"`
	// Suppressed is how many events of this type and sink were not made since
	// the last one, because there were too many.
	Suppressed int `json:"suppressed,omitempty"`
}

// Event makes the event, stamped with o's time and id.
func (p Plugin) Event(o Options) (abi.Event, error) {
	d := Decision{Kind: KindWarn, RuleID: "plugin_" + p.What}
	switch p.What {
	case PluginLoaded, PluginResumed:
		d = Decision{Kind: KindAllow}
	case PluginTrapped:
		d.Reason = fmt.Sprintf("the plugin of sink %s crashed: %s", p.Sink, p.Outcome)
	case PluginParked:
		d.Reason = fmt.Sprintf("sink %s delivers nothing until it is resumed", p.Sink)
	case PluginRolledBack:
		d.Reason = fmt.Sprintf("the new plugin of sink %s crashed on probation, the one before is back: %s", p.Sink, p.Outcome)
	case PluginDeadLetter:
		d.Reason = fmt.Sprintf("%d events of sink %s became dead letters", p.Events, p.Sink)
	default:
		return abi.Event{}, fmt.Errorf("make event of a plugin: %q is nothing that becomes of one", p.What)
	}
	if len(p.Detail) > maxPluginDetail {
		p.Detail = p.Detail[:maxPluginDetail]
	}
	p.Detail = strings.ToValidUTF8(p.Detail, "\uFFFD")
	action, err := json.Marshal(struct {
		Kind string `json:"kind"`
		Plugin
	}{"audit.plugin", p})
	if err != nil {
		return abi.Event{}, fmt.Errorf("make event of a plugin: %w", err)
	}
	e, err := New(HostAgent, RawAction(action), d, o)
	e.EventType = TypePlugin + p.What
	return e, err
}
