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
	list := g.Lines(func(path string) string { return relative(cfg, path) })
	if h := g.HTTP; h != nil {
		for _, o := range h.Hosts {
			port := ""
			if o.Port != 0 {
				port = fmt.Sprintf(":%d", o.Port)
			}
			list = append(list, fmt.Sprintf("http.hosts = %s %s://%s%s%s", strings.Join(o.Methods, ","), o.Scheme, o.Host, port, o.Path))
		}
		for _, s := range h.Secrets {
			list = append(list, fmt.Sprintf("http.secrets.%s = %q for %s", s.Name, relative(cfg, s.File), s.Host))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
