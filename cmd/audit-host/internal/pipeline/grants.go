package pipeline

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/lockfile"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
)

// grant fills in what a sink is granted.
func grant(cfg *config.Config, s config.Sink, o *host.Options) error {
	g := s.Grant
	o.Now, o.Random = g.Now, g.Random
	if q := g.SQL; q != nil {
		o.SQL = &host.SQLGrant{Database: q.Database, Create: q.Create, ReadOnly: q.ReadOnly, BusyTimeout: q.BusyTimeout, TimeLimit: q.TimeLimit,
			MaxSQL: int(q.MaxSQL), MaxResult: int(q.MaxResult), MaxSize: int64(q.MaxSize)}
	}
	if a := g.Append; a != nil {
		o.Append = &appendfile.Options{Path: a.Path, MaxSize: int64(a.MaxSize), Keep: a.Keep, Pattern: a.Pattern, Log: o.Log.With(slog.String("sink", o.Name))}
	}
	if g.HTTP != nil {
		p, err := policy(g.HTTP)
		if err != nil {
			return fmt.Errorf("sink %s: grant http: %w", s.Name, err)
		}
		o.HTTP = p
	}
	if k := g.KV; k != nil {
		o.KV = &host.KVGrant{Path: cfg.KVPath(s.Name), MaxKeys: k.MaxKeys, MaxBytes: int64(k.MaxBytes)}
		if err := os.MkdirAll(filepath.Dir(o.KV.Path), 0o700); err != nil {
			return fmt.Errorf("sink %s: grant kv: %w", s.Name, err)
		}
	}
	return nil
}

// policy makes the policy that enforces a grant. This is where the values of
// secrets enter the process.
func policy(h *config.HTTPGrant) (*egress.Policy, error) {
	p := &egress.Policy{Timeout: h.Timeout, MaxRequest: int64(h.MaxRequest), MaxResponse: int64(h.MaxResponse),
		// A sink's calls run one after the other, and so do its requests.
		Concurrency: 1, Secrets: map[string]egress.Secret{}}
	for _, host := range h.Hosts {
		r := host.Rule()
		for _, s := range h.Secrets {
			if s.Host == host.Host {
				r.Secrets = append(r.Secrets, s.Name)
			}
		}
		p.Hosts = append(p.Hosts, r)
	}
	for _, text := range h.AllowPrivate {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		p.Private = append(p.Private, prefix)
	}
	for _, s := range h.Secrets {
		value, err := config.ReadSecret(s.File)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", s.Name, err)
		}
		p.Secrets[s.Name] = egress.NewSecret(value)
	}
	if h.CAFile != "" {
		pem, err := os.ReadFile(h.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		p.RootCAs = x509.NewCertPool()
		if !p.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate in PEM", h.CAFile)
		}
	}
	return p, nil
}

// plugin is a module as it was read, or why it could not be.
type plugin struct {
	wasm []byte
	err  error
}

// readPlugins reads the plugins of all sinks, by the sinks' names, and compares
// them with the lock file if there is one: what is compared is what is loaded.
func readPlugins(cfg *config.Config) (map[string]plugin, error) {
	plugins := map[string]plugin{}
	for _, s := range cfg.Sinks {
		var p plugin
		if p.wasm, p.err = ReadPlugin(s.Plugin); p.err != nil && s.Required {
			return nil, fmt.Errorf("sink %s: %w", s.Name, p.err)
		}
		plugins[s.Name] = p
	}
	path := lockfile.Path(cfg)
	locked, err := lockfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return plugins, nil
	} else if err != nil {
		return nil, err
	}
	now := &lockfile.Lock{}
	for _, s := range cfg.Sinks {
		if plugins[s.Name].err != nil {
			locked.Forget(s.Name) // optional, and left out
			continue
		}
		pin, err := lockfile.Pin(cfg, s, plugins[s.Name].wasm)
		if err != nil {
			return nil, err
		}
		now.Plugins = append(now.Plugins, pin)
	}
	if d := lockfile.Compare(locked, now); d != nil {
		return nil, &lockfile.Mismatch{Path: path, Config: cfg.File, Differences: d}
	}
	return plugins, nil
}

// Egress is what the http capability of a sink has done.
type Egress struct {
	Sink string
	egress.Counters
}

// Egress lists the sinks that have the http capability.
func (p *Pipeline) Egress() []Egress {
	var list []Egress
	for _, s := range p.seats {
		if n := s.numbers(); n.asked {
			list = append(list, Egress{s.name, n.egress})
		}
	}
	return list
}
