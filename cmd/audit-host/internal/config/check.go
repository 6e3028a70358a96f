package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/audit-host/audit-host/host/egress"
)

// check holds the keys against each other when all are read, and fills in what
// depends on others.
func (c *Config) check(t *table) {
	c.StateDir = absolute(t.c.dir, c.StateDir)
	if c.Queue.Directory == "" {
		c.Queue.Directory = filepath.Join(c.StateDir, "queue")
	}
	if c.DeadLetters.Path == "" {
		c.DeadLetters.Path = filepath.Join(c.StateDir, "dead-letters.db")
	}
	http, queue := t.sub("http"), t.sub("queue")
	c.HTTP.check(http)
	q, event := c.Queue, c.HTTP.MaxEvent
	clash(q.Backend == "memory" && q.MaxBytes < event, queue, "max_bytes", http, "max_event",
		"queue.max_bytes (%v) is less than http.max_event (%v): such an event could never be queued", q.MaxBytes, event)
	clash(q.Backend == "disk" && q.DiskBytes < LeastDisk(event), queue, "disk_bytes", http, "max_event",
		"queue.disk_bytes (%v) is too small for http.max_event (%v): at least %v are needed", q.DiskBytes, event, LeastDisk(event))
	c.Signing.check(t.sub("signing"))
	lines := map[string]int{} // of the names so far
	for i, at := range t.below["sink"] {
		s := &c.Sinks[i]
		s.check(at)
		clash(s.BatchBytes < event, at, "batch_bytes", http, "max_event",
			"batch_bytes (%v) is less than http.max_event (%v): such an event would fit no batch", s.BatchBytes, event)
		if first, taken := lines[s.Name]; taken {
			at.refuse("name", "", "the name %q is taken by the sink in line %d", s.Name, first)
		} else if s.Name != "" {
			lines[s.Name], _, _ = t.c.locate(at.at.kid("name").value)
		}
	}
	t.c.distinct(c.File)
}

// clash says that two accepted values contradict each other if they do. The place is
// that of the first if the file sets it, else that of the second.
func clash(they bool, a *table, keyA string, b *table, keyB, format string, args ...any) {
	if !they || a.faulty[keyA] || b.faulty[keyB] {
		return
	}
	if !a.set(keyA) {
		a, keyA = b, keyB
	}
	a.c.add(a.at.kid(keyA).value, "", format, args...)
}

func (h *HTTP) check(t *table) {
	if h.TokenFile != "" {
		var err error
		if h.Token, err = readToken(h.TokenFile); err != nil {
			t.refuse("token_file", "", "token_file: %v", err)
		}
	}
	host, err := splitAddress(h.Address)
	if err == nil && !loopback(host) && h.TokenFile == "" && !t.faulty["address"] && !t.faulty["token_file"] {
		t.refuse("address", "", "address %q can be reached from other machines and needs a bearer token: "+
			"set token_file, or listen on 127.0.0.1", h.Address)
	}
	clash(h.MaxEvent > h.MaxBody, t, "max_event", t, "max_body", "max_event (%v) is more than max_body (%v)", h.MaxEvent, h.MaxBody)
}

func (s *Signing) check(t *table) {
	for key, other := range map[string]string{"private_key": "public_key", "public_key": "private_key"} {
		if t.set(other) && !t.set(key) {
			t.missing(key, "%s is missing: [signing] needs both halves of the pair, or neither to run unsigned", key)
		}
	}
}

func (s *Sink) check(t *table) {
	s.MemoryLimit = (s.MemoryLimit + wasmPage - 1) / wasmPage * wasmPage
	clash(s.MemoryLimit <= s.BatchBytes, t, "memory_limit", t, "batch_bytes",
		"memory_limit (%v) must be more than batch_bytes (%v), since the guest holds a whole batch", s.MemoryLimit, s.BatchBytes)
	grant := t.sub("grant")
	if a := s.Grant.Append; a != nil {
		at := grant.sub("append")
		clash(a.Keep > 0 && a.MaxSize == 0, at, "keep", at, "max_size", "keep needs max_size: without it the file is never rotated")
	}
	if h := s.Grant.HTTP; h != nil {
		at := grant.sub("http")
		h.check(at)
		clash(h.Timeout >= s.Deadline, at, "timeout", t, "deadline",
			"timeout (%s) must be less than deadline (%s) of the sink, or a server that hangs costs the plugin its instance",
			short(h.Timeout), short(s.Deadline))
	}
	if g, at := s.Grant.SQL, grant.sub("sql"); g != nil {
		// A bundled plugin writes what the host was sent and no more, and the ledger is
		// not to end at a size that nobody chose; whatever else writes without a bound
		// has to be told to.
		if s.Plugin.Bundled == "" && !at.set("max_size") {
			g.MaxSize = GiB
		}
		if g.ReadOnly && s.Plugin.Bundled == "sink-sqlite" {
			at.refuse("read_only", "",
				"read_only leaves sink-sqlite nothing to do but wait: it writes; take it away, or the sink")
		}
	}
}

var secretName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func (h *HTTPGrant) check(t *table) {
	// A host rule is checked by the package that will enforce it.
	for i, at := range t.below["hosts"] {
		rule := h.Hosts[i].Rule()
		if _, err := egress.New(egress.Policy{Hosts: []egress.HostRule{rule}}); err != nil && len(at.faulty) == 0 {
			// Its number is one of this table alone.
			message := strings.TrimPrefix(err.Error(), fmt.Sprintf("http policy: host rule 1 (%q): ", rule.Host))
			found{at, "host", at.at, nil}.refuse("", " %q: %s", brief(rule.Host), message)
		}
	}
	secrets := t.sub("secrets")
	for _, s := range h.Secrets {
		if !secretName.MatchString(s.Name) {
			secrets.refuse(s.Name, "", "the name of a secret has 1 to 64 letters, digits, '.', '-', '_', not %q", brief(s.Name))
		}
		one := secrets.sub(s.Name)
		granted := slices.ContainsFunc(h.Hosts, func(h HTTPHost) bool { return h.Host == s.Host })
		if !granted && one.set("host") && !one.faulty["host"] && len(t.faulty) == 0 {
			one.refuse("host", "", "host %q of a secret is none of hosts: it is sent to that one only", brief(s.Host))
		}
	}
}

// owner is a key that names a file of its own.
type owner struct {
	t   *table
	row row
}

// companions are what SQLite keeps beside a database.
var companions = []string{"-wal", "-shm", "-journal"}

// distinct refuses a second key that names a file which is another's: a ledger that
// is also the dead letters, say.
func (c *checker) distinct(config string) {
	taken := map[string]string{config: "the configuration itself"}
	for _, o := range c.owners {
		key, name, where := o.row.name, join(o.t.name, o.row.name), ""
		path, _ := o.row.get().(file)
		if path == "" || o.t.faulty[key] {
			continue
		}
		if o.t.set(key) {
			line, _, _ := c.locate(o.t.at.kid(key).value)
			where = fmt.Sprintf(" in line %d", line)
		}
		for _, ending := range o.row.owned {
			if first, ok := taken[string(path)+ending]; ok {
				o.t.refuse(key, "", "%s is the same file as %s", name+ending, first)
				break
			}
			taken[string(path)+ending] = name + ending + where
		}
	}
}

// The functions below are of type check.

var sinkName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

func checkSinkName(name string) (suggestion, fault string) {
	if !sinkName.MatchString(name) {
		fault = fmt.Sprintf(" must be 1 to 32 of a-z, 0-9 and -, not %q", brief(name))
	}
	return "", fault
}

// checkPointer accepts the syntax of RFC 6901, section 3.
func checkPointer(p string) (suggestion, fault string) {
	if p != "" && p[0] != '/' {
		suggestion = "/" + strings.ReplaceAll(p, ".", "/")
	} else if !badEscape.MatchString(p) {
		return "", ""
	}
	return suggestion, fmt.Sprintf(": %q: a JSON pointer begins with / and has ~ only as ~0 or ~1 (RFC 6901)", brief(p))
}

var badEscape = regexp.MustCompile(`~([^01]|$)`)

func checkPattern(p string) (suggestion, fault string) {
	switch {
	case strings.ContainsAny(p, `/\`) || strings.ContainsFunc(p, isControl):
		return "", ` names files in the folder of path: it holds no / or \`
	case !strings.Contains(p, "{seq}") && !strings.Contains(p, "{time}"):
		return p + ".{seq}", " needs {seq} or {time}, or all rotated files would have one name"
	}
	return "", ""
}

func checkRange(text string) (suggestion, fault string) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return "", fmt.Sprintf(`: %q is no range of addresses such as "10.1.0.0/16"`, brief(text))
	}
	if p != p.Masked() {
		return p.Masked().String(), fmt.Sprintf(": %q does not begin with the range's first address", text)
	}
	return "", ""
}

func notEmpty(text string) (suggestion, fault string) {
	if text == "" {
		fault = " must not be empty; leave the key out to have the default"
	}
	return "", fault
}

func checkDatabase(name string) (suggestion, fault string) {
	if name == ":memory:" || strings.HasPrefix(name, "file:") {
		return "", fmt.Sprintf(" must be the path of a file, not %q", brief(name))
	}
	return notEmpty(name)
}

func checkAddress(address string) (suggestion, fault string) {
	if _, err := splitAddress(address); err != nil && address != "" {
		fault = ": " + err.Error()
	}
	return "", fault
}

// hostName is a name of RFC 1123 whose last label is not a number, so that a
// misspelt IPv4 address is not taken for one.
var hostName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// splitAddress checks host:port and returns the host, which is empty if all
// interfaces are meant.
func splitAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf(`%q is not of the form "127.0.0.1:8480"`, brief(address))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("the port %q is not a number from 0 to 65535", brief(port))
	}
	if host == "" || len(host) <= 253 && hostName.MatchString(host) {
		return host, nil
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return "", fmt.Errorf("%q is neither an IP address nor a host name", brief(host))
	}
	return host, nil
}

// loopback reports whether a listener on host is out of reach of other
// machines.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
