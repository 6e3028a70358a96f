package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/audit-host/audit-host/host/egress"
)

// AppendGrant is the capability to append lines to one file.
type AppendGrant struct {
	Path    string
	MaxSize Size // the file is rotated before it grows beyond it; 0 never
	Keep    int  // rotated files that stay; 0 all
	Pattern string
}

// HTTPGrant is the capability to make requests of some hosts.
type HTTPGrant struct {
	Hosts        []HTTPHost // at least one
	AllowPrivate []string   // address ranges in CIDR form
	Timeout      time.Duration
	MaxRequest   Size
	MaxResponse  Size
	CAFile       string // PEM; empty means the system's authorities
	Secrets      []HTTPSecret
}

// HTTPHost grants requests to one origin.
type HTTPHost struct {
	Scheme, Host string
	Port         int // 0 is that of the scheme
	Methods      []string
	Path         string // and what lies below it; empty means all
}

// HTTPSecret is a value that the host puts into headers of requests to Host.
// The value is not here: [ReadSecret] reads it when the sink is opened.
type HTTPSecret struct{ Name, File, Host string }

// KVGrant is the capability to keep a small store.
type KVGrant struct {
	MaxKeys  int
	MaxBytes Size
}

// defaultHTTP returns a grant of which only the hosts are missing.
func defaultHTTP() *HTTPGrant {
	return &HTTPGrant{Timeout: egress.DefaultTimeout, MaxRequest: egress.DefaultMaxRequest, MaxResponse: egress.DefaultMaxResponse}
}

// grants reads the capabilities with keys of their own, but for sql.
func (c *checker) grants(grant, sink *table, dir string, s *Sink) {
	c.appendGrant(grant, dir, s)
	c.httpGrant(grant, sink, dir, s)
	kv := grant.table("kv")
	granted := &KVGrant{MaxKeys: 1024, MaxBytes: MiB}
	kv.number("max_keys", 1, 1<<20, &granted.MaxKeys)
	kv.size("max_bytes", KiB, 64*MiB, &granted.MaxBytes)
	if grant.set("kv") {
		s.Grant.KV = granted
	}
}

func (c *checker) appendGrant(grant *table, dir string, s *Sink) {
	t := grant.table("append")
	g := &AppendGrant{Pattern: "{name}.{seq}"}
	t.path("path", dir, &g.Path)
	if t.set("path") {
		c.claim(t, "path", g.Path)
	}
	t.size("max_size", 0, unlimited, &g.MaxSize)
	t.number("keep", 0, 1_000_000, &g.Keep)
	if at, ok := either(t, "keep", t, "max_size"); ok && g.Keep > 0 && g.MaxSize == 0 {
		c.add(at.value, "", "keep needs max_size: without it the file is never rotated")
	}
	if t.text("pattern", &g.Pattern) {
		switch {
		case strings.ContainsAny(g.Pattern, `/\`) || strings.ContainsFunc(g.Pattern, isControl):
			t.refuse("pattern", t.at.kid("pattern"), "", "pattern names files in the folder of path: it holds no / or \\")
		case !strings.Contains(g.Pattern, "{seq}") && !strings.Contains(g.Pattern, "{time}"):
			t.refuse("pattern", t.at.kid("pattern"), g.Pattern+".{seq}", "pattern needs {seq} or {time}, or all rotated files would have one name")
		}
	}
	if grant.set("append") {
		s.Grant.Append = g
		if !t.set("path") && !grant.faulty["append"] {
			t.missing("path", "path is missing: [sink.grant.append] grants one file")
		}
	}
}

func (c *checker) httpGrant(grant, sink *table, dir string, s *Sink) {
	t := grant.table("http")
	g := defaultHTTP()
	hosts := t.tableArray("hosts")
	for _, h := range hosts {
		g.Hosts = append(g.Hosts, c.httpHost(h))
	}
	t.texts("allow_private", func(text string) (string, error) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return "", fmt.Errorf("%q is no range of addresses such as \"10.1.0.0/16\"", brief(text))
		}
		if p != p.Masked() {
			return p.Masked().String(), fmt.Errorf("%q does not begin with the range's first address", text)
		}
		return "", nil
	}, &g.AllowPrivate)
	t.duration("timeout", moment, &g.Timeout)
	t.size("max_request", KiB, GiB, &g.MaxRequest)
	t.size("max_response", KiB, GiB, &g.MaxResponse)
	t.optionalPath("ca_file", dir, &g.CAFile)
	c.secrets(t, hosts, dir, g)
	if !grant.set("http") {
		return
	}
	s.Grant.HTTP = g
	if len(hosts) == 0 && !grant.faulty["http"] && !t.faulty["hosts"] {
		t.missing("hosts", `hosts is missing: [sink.grant.http] grants requests to some, hosts = [{ host = "collector.example", methods = ["POST"] }]`)
	}
	if at, ok := either(t, "timeout", sink, "deadline"); ok && g.Timeout >= s.Deadline {
		c.add(at.value, "", "timeout (%s) must be less than deadline (%s) of the sink, or a server that hangs costs the plugin its instance",
			short(g.Timeout), short(s.Deadline))
	}
}

// httpHost reads one host rule and has it checked by the package that will
// enforce it.
func (c *checker) httpHost(t *table) HTTPHost {
	h := HTTPHost{Scheme: "https"}
	t.choice("scheme", []string{"https", "http"}, &h.Scheme)
	t.text("host", &h.Host)
	t.number("port", 1, 1<<16-1, &h.Port)
	t.texts("methods", func(string) (string, error) { return "", nil }, &h.Methods)
	t.text("path", &h.Path)
	if !t.set("host") {
		t.missing("host", "host is missing: an exact name or an IP address")
	}
	if len(t.faulty) == 0 {
		if _, err := egress.New(egress.Policy{Hosts: []egress.HostRule{h.Rule()}}); err != nil {
			// Its number is one of this table alone.
			message := strings.TrimPrefix(err.Error(), fmt.Sprintf("http policy: host rule 1 (%q): ", h.Host))
			t.refuse("host", t.at, "", "host %q: %s", brief(h.Host), message)
		}
	}
	return h
}

// Rule returns the rule that enforces h, without its secrets.
func (h HTTPHost) Rule() egress.HostRule {
	return egress.HostRule{Scheme: h.Scheme, Host: h.Host, Port: uint16(h.Port), Methods: h.Methods, PathPrefix: h.Path}
}

var secretName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// secrets reads a table whose keys are the secrets' names.
func (c *checker) secrets(http *table, hosts []*table, dir string, g *HTTPGrant) {
	t := http.table("secrets")
	names := []string{}
	for name := range t.values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		s := HTTPSecret{Name: name}
		one := t.table(name)
		if t.faulty[name] {
			continue
		}
		if !secretName.MatchString(name) {
			t.refuse(name, t.at.kid(name), "", "the name of a secret has 1 to 64 letters, digits, '.', '-', '_', not %q", brief(name))
		}
		one.path("file", dir, &s.File)
		if one.text("host", &s.Host) && len(http.faulty) == 0 &&
			!slices.ContainsFunc(g.Hosts, func(h HTTPHost) bool { return h.Host == s.Host }) {
			one.refuse("host", one.at.kid("host"), "", "host %q of a secret is none of hosts: it is sent to that one only", brief(s.Host))
		}
		for _, key := range []string{"file", "host"} {
			if !one.set(key) {
				one.missing(key, "%s is missing: a secret has a file, whose first line is its value, and the host that it is sent to", key)
			}
		}
		g.Secrets = append(g.Secrets, s)
	}
}

// ReadSecret returns the first line of a file that only its owner, or its group,
// may read.
func ReadSecret(path string) (string, error) { return firstLine(path, "secret") }

// KVPath is the file of a sink's kv store.
func (c *Config) KVPath(sink string) string { return filepath.Join(c.StateDir, "kv", sink+".db") }

// grants writes what grants reads.
func (w *renderer) grants(g Grant) {
	if a := g.Append; a != nil {
		w.table("[sink.grant.append]")
		w.key("path", a.Path)
		w.key("max_size", a.MaxSize)
		w.key("keep", a.Keep)
		w.key("pattern", a.Pattern)
	}
	if h := g.HTTP; h != nil {
		w.table("[sink.grant.http]")
		w.key("allow_private", h.AllowPrivate)
		w.key("timeout", h.Timeout)
		w.key("max_request", h.MaxRequest)
		w.key("max_response", h.MaxResponse)
		w.key("ca_file", h.CAFile)
		for _, host := range h.Hosts {
			w.table("[[sink.grant.http.hosts]]")
			w.key("scheme", host.Scheme)
			w.key("host", host.Host)
			if host.Port != 0 {
				w.key("port", host.Port)
			}
			w.key("methods", host.Methods)
			w.key("path", host.Path)
		}
		if len(h.Secrets) > 0 {
			w.table("[sink.grant.http.secrets]")
		}
		for _, s := range h.Secrets {
			fmt.Fprintf(w, "%s = {file = %s, host = %s}\n", quote(s.Name), quote(s.File), quote(s.Host))
		}
	}
	if k := g.KV; k != nil {
		w.table("[sink.grant.kv]")
		w.key("max_keys", k.MaxKeys)
		w.key("max_bytes", k.MaxBytes)
	}
}
