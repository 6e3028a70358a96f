package lockfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
)

// grants writes what a sink is granted, a line for each key, with paths
// relative to the configuration. Of a secret it is the file and the host, not
// the value, which may change without asking.
func grants(cfg *config.Config, g config.Grant) []string {
	list := []string{}
	add := func(key string, value any) { list = append(list, fmt.Sprintf("%s = %v", key, value)) }
	path := func(p string) string {
		if p == "" {
			return `""`
		}
		return fmt.Sprintf("%q", relative(cfg, p))
	}
	if g.Now {
		add("now", true)
	}
	if g.Random {
		add("random", true)
	}
	if s := g.SQL; s != nil {
		add("sql.database", path(s.Database))
		add("sql.create", s.Create)
		add("sql.read_only", s.ReadOnly)
		add("sql.busy_timeout", s.BusyTimeout)
		add("sql.time_limit", s.TimeLimit)
		add("sql.max_sql", s.MaxSQL)
		add("sql.max_result", s.MaxResult)
		if s.MaxSize > 0 {
			add("sql.max_size", s.MaxSize)
		}
	}
	if a := g.Append; a != nil {
		add("append.path", path(a.Path))
		add("append.max_size", a.MaxSize)
		add("append.keep", a.Keep)
		add("append.pattern", fmt.Sprintf("%q", a.Pattern))
	}
	if h := g.HTTP; h != nil {
		for _, o := range h.Hosts {
			port := ""
			if o.Port != 0 {
				port = fmt.Sprintf(":%d", o.Port)
			}
			add("http.hosts", fmt.Sprintf("%s %s://%s%s%s", strings.Join(o.Methods, ","), o.Scheme, o.Host, port, o.Path))
		}
		for _, p := range h.AllowPrivate {
			add("http.allow_private", p)
		}
		add("http.timeout", h.Timeout)
		add("http.max_request", h.MaxRequest)
		add("http.max_response", h.MaxResponse)
		add("http.ca_file", path(h.CAFile))
		for _, s := range h.Secrets {
			add("http.secrets."+s.Name, path(s.File)+" for "+s.Host)
		}
	}
	if k := g.KV; k != nil {
		add("kv.max_keys", k.MaxKeys)
		add("kv.max_bytes", k.MaxBytes)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
