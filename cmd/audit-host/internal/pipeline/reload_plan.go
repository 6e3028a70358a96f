package pipeline

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/lockfile"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/sign"
)

// change is a sink that differs.
type change struct {
	seat *seat
	next member
	wasm []byte
	swap bool // else only how it is served
}

// fixed lists what differs outside of the sinks.
func (p *Pipeline) fixed(cfg *config.Config) ([]string, error) {
	if _, err := Routes(cfg, p.Recorder); err != nil {
		return nil, err
	}
	list := p.cfg.Fixed(cfg)
	if !cfg.Signing.Enabled() {
		return list, nil
	}
	pub, err := sign.ReadPair(cfg.Signing.PrivateKey, cfg.Signing.PublicKey)
	if err != nil {
		return nil, err
	}
	if id := keyID(pub); p.keyID != "" && id != p.keyID && cfg.Signing == p.cfg.Signing {
		list = append(list, fmt.Sprintf("signing: the key %s is now %s", p.keyID, id))
	}
	return list, nil
}

// changes compares the sinks with what runs.
func (p *Pipeline) changes(cfg *config.Config, plugins map[string]plugin) (list []change, fixed []string, err error) {
	ledger := ledgerOf(cfg)
	moved := ledger != ledgerOf(p.cfg)
	if moved {
		fixed = append(fixed, fmt.Sprintf("the ledger: %s is now %s", ledgerOf(p.cfg), ledger))
	}
	for _, s := range p.cfg.Sinks {
		if !slices.ContainsFunc(cfg.Sinks, func(n config.Sink) bool { return n.Name == s.Name }) {
			fixed = append(fixed, "sink "+s.Name+": it is not there any more")
		}
	}
	var failed []error
	for _, s := range cfg.Sinks {
		i := slices.IndexFunc(p.seats, func(o *seat) bool { return o.name == s.Name })
		if i < 0 {
			what := "it is new"
			if _, known := p.Missing[s.Name]; known {
				what = "it was left out at the start"
			}
			fixed = append(fixed, "sink "+s.Name+": "+what)
			continue
		}
		if err := plugins[s.Name].err; err != nil {
			failed = append(failed, fmt.Errorf("sink %s: %w", s.Name, err)) // optional, but it runs
			continue
		}
		c, err := p.compare(p.seats[i], cfg, s, plugins[s.Name].wasm)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		for _, began := range p.cfg.Sinks {
			if began.Name != s.Name {
				continue
			}
			for _, d := range began.Fixed(s) {
				fixed = append(fixed, "sink "+s.Name+": "+d)
			}
		}
		// A ledger that moves has a head, a place in the queue and readers of its
		// own: neither the old nor the new one is touched.
		if c != nil && !(moved && (s.Name == ledger.sink || s.Name == ledgerOf(p.cfg).sink)) {
			list = append(list, *c)
		}
	}
	return list, fixed, errors.Join(failed...)
}

// place is where the ledger is.
type place struct{ sink, database string }

func (l place) String() string {
	if l.sink == "" {
		return "none"
	}
	return l.database + " of sink " + l.sink
}

func ledgerOf(cfg *config.Config) place {
	s, ok := cfg.Ledger()
	if !ok {
		return place{}
	}
	return place{s.Name, s.Grant.SQL.Database}
}

// compare returns what differs for a sink; nil if nothing does.
func (p *Pipeline) compare(s *seat, cfg *config.Config, want config.Sink, wasm []byte) (*change, error) {
	mark, err := stampOf(want)
	if err != nil {
		return nil, err
	}
	id, err := host.Identify(wasm)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", want.Name, err)
	}
	now := s.seated()
	c := &change{seat: s, next: member{cfg: want, stamp: mark}, wasm: wasm}
	c.swap = id.Digest != now.sink.Digest() || mark != now.stamp || !reflect.DeepEqual(want.OfPlugin(), now.cfg.OfPlugin())
	if !c.swap && tuning(want, "") == tuning(now.cfg, "") {
		return nil, nil
	}
	return c, nil
}

// stamp is a digest of the files that a sink's grants name.
type stamp [sha256.Size]byte

// stampOf reads them: a secret that was rotated is a change.
func stampOf(s config.Sink) (stamp, error) {
	if s.Grant.HTTP == nil {
		return stamp{}, nil
	}
	h := sha256.New()
	for _, secret := range s.Grant.HTTP.Secrets {
		value, err := config.ReadSecret(secret.File)
		if err != nil {
			return stamp{}, fmt.Errorf("sink %s: grant http: secret %s: %w", s.Name, secret.Name, err)
		}
		sum := sha256.Sum256([]byte(value))
		h.Write(sum[:])
	}
	if file := s.Grant.HTTP.CAFile; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return stamp{}, fmt.Errorf("sink %s: grant http: ca_file: %w", s.Name, err)
		}
		h.Write(pem)
	}
	return stamp(h.Sum(nil)), nil
}

// Watched are the files of which a change may be meant to be followed: the lock,
// if it exists, and the plugins' files. Without a lock there are none.
func Watched(cfg *config.Config) []string {
	lock := lockfile.Path(cfg)
	if _, err := os.Stat(lock); err != nil {
		return nil
	}
	files := []string{lock}
	for _, s := range cfg.Sinks {
		if s.Plugin.Path != "" && !slices.Contains(files, s.Plugin.Path) {
			files = append(files, s.Plugin.Path)
		}
	}
	return files
}
