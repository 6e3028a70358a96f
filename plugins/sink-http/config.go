package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/audit-host/audit-host/plugins/shape"
)

// Formats of a request.
const (
	ndjson        = "ndjson"
	splunk        = "splunk"
	elasticsearch = "elasticsearch"
	loki          = "loki"
)

var formats = []string{ndjson, splunk, elasticsearch, loki}

// config is what audit.toml has under config for this sink.
type config struct {
	URL    string `json:"url"`
	Format string `json:"format"`
	Method string `json:"method"`
	// Shape of an event, see package plugins/shape; Source is that of
	// CloudEvents and of Splunk.
	Shape   string            `json:"shape"`
	Source  string            `json:"source"`
	Headers map[string]string `json:"headers"`
	// Index is that of Elasticsearch, where it is needed, or of Splunk;
	// SourceType is Splunk's. Labels are Loki's.
	Index      string            `json:"index"`
	SourceType string            `json:"sourcetype"`
	Labels     map[string]string `json:"labels"`
}

// readConfig returns the configuration, or what is wrong with it.
func readConfig(text []byte) (config, string) {
	c := config{Format: ndjson, Method: "POST", Shape: shape.Event, Source: "audit-host"}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, err.Error()
	}
	choice := func(name, value string, list []string) string {
		return name + " is " + strconv.Quote(value) + "; wanted one of " + strings.Join(list, ", ")
	}
	switch {
	case c.URL == "":
		return c, "url is missing: where the collector takes events, which [sink.grant.http] has to grant too"
	case !strings.HasPrefix(c.URL, "https://") && !strings.HasPrefix(c.URL, "http://"):
		return c, "url is " + strconv.Quote(c.URL) + "; it begins with https:// or http://"
	case !slices.Contains(formats, c.Format):
		return c, choice("format", c.Format, formats)
	case !slices.Contains(shape.Shapes(), c.Shape):
		return c, choice("shape", c.Shape, shape.Shapes())
	case c.Method != "POST" && c.Method != "PUT":
		return c, choice("method", c.Method, []string{"POST", "PUT"})
	case c.Format == elasticsearch && c.Index == "":
		return c, "index is missing: elasticsearch needs one, an index or a data stream"
	case c.Source == "":
		return c, "source is empty; leave it out for audit-host"
	case c.Index != "" && c.Format != elasticsearch && c.Format != splunk:
		return c, "index is for elasticsearch and splunk only"
	case c.SourceType != "" && c.Format != splunk:
		return c, "sourcetype is for splunk only"
	case c.Labels != nil && c.Format != loki:
		return c, "labels are for loki only"
	}
	for name, value := range c.Headers {
		switch {
		case name == "" || strings.ContainsAny(name, ":\r\n ") || strings.ContainsAny(value, "\r\n"):
			return c, "header " + strconv.Quote(name) + ": a name has no blank and no colon, and neither has a line break"
		case strings.EqualFold(name, "Content-Type"), strings.EqualFold(name, "Idempotency-Key"):
			return c, "header " + name + " is set by the plugin"
		}
	}
	return c, ""
}

// fields are the configured headers, in an order of their own.
func (c *config) fields() [][2]string {
	var list [][2]string
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		list = append(list, [2]string{name, c.Headers[name]})
	}
	return list
}

func (c *config) contentType() string {
	switch c.Format {
	case splunk, loki:
		return "application/json"
	}
	return "application/x-ndjson"
}

// target is the URL. Of an answer of Elasticsearch's only what is looked at is
// asked for: it names each event otherwise.
func (c *config) target() string {
	if c.Format == elasticsearch && !strings.Contains(c.URL, "?") {
		return c.URL + "?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
	}
	return c.URL
}
