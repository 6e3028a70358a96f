package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Defaults of [CrashOptions].
const (
	DefaultCrashesKept  = 8
	DefaultCrashesBytes = 64 << 20
)

// CrashOptions bounds what is kept.
type CrashOptions struct {
	// Keep is how many bundles of each sink are kept, MaxBytes how many bytes
	// all bundles and the plugins beside them may have. The oldest go first.
	Keep     int
	MaxBytes int64
}

// Crashes is a folder of crash bundles. All its methods may be called
// concurrently; the folder belongs to one process.
//
// Guarantee: a file appears under its name when it is whole and on disk, with
// mode 0600. Not guaranteed: that a crash leaves a bundle; a disk that is full
// leaves a line in the log.
type Crashes struct {
	dir string
	o   CrashOptions

	mu   sync.Mutex
	last time.Time // of the last bundle: names ascend
}

// partPrefix begins the names of files that are being written.
const partPrefix = ".part-"

// OpenCrashes opens the folder, and makes it with mode 0700 if it is not there.
func OpenCrashes(dir string, o CrashOptions) (*Crashes, error) {
	if o.Keep <= 0 {
		o.Keep = DefaultCrashesKept
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultCrashesBytes
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open crash bundles: %w", err)
	}
	c := &Crashes{dir: dir, o: o}
	left, err := filepath.Glob(filepath.Join(dir, partPrefix+"*"))
	for _, path := range left { // of a process that was killed
		err = errors.Join(err, os.Remove(path))
	}
	if err == nil {
		err = c.prune("")
	}
	if err != nil {
		return nil, fmt.Errorf("open crash bundles: %w", err)
	}
	return c, nil
}

// bundleTime is the layout of the time that a bundle's name begins with: names
// in order are bundles in order.
const bundleTime = "20060102T150405.000000000Z"

// put writes a bundle and, if it is not there yet, the plugin beside it. It
// returns the bundle's path.
func (c *Crashes) put(b *Bundle, wasm []byte) (string, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.Time = b.Time.UTC(); !b.Time.After(c.last) {
		b.Time = c.last.Add(time.Nanosecond)
	}
	c.last = b.Time
	if int64(len(data)) > c.o.MaxBytes {
		return "", fmt.Errorf("it has %d bytes, all bundles may have %d; raise max_bytes in [crashes]", len(data), c.o.MaxBytes)
	}
	name := fmt.Sprintf("%s-%s-%.12s.json", b.Time.Format(bundleTime), safeName(b.Sink), b.Plugin.Digest)
	// The plugin is larger than most bundles: it must not push them out.
	if module := b.Plugin.Digest + ".wasm"; int64(len(wasm)) <= c.o.MaxBytes/2 {
		if _, err := os.Stat(filepath.Join(c.dir, module)); errors.Is(err, fs.ErrNotExist) {
			if err := c.write(module, wasm); err != nil {
				return "", err
			}
		}
	}
	if err := c.write(name, data); err != nil {
		return "", err
	}
	return filepath.Join(c.dir, name), c.prune(name)
}

// write makes a file that is whole or not there.
func (c *Crashes) write(name string, data []byte) error {
	f, err := os.CreateTemp(c.dir, partPrefix) // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(c.dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// stored is a bundle in the folder.
type stored struct {
	name, sink, digest string
	size               int64
}

// prune removes what is beyond the bounds, the oldest bundle first, but not the
// one of that name, and plugins of which no bundle is left.
func (c *Crashes) prune(keep string) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var bundles []stored
	modules := map[string]int64{}
	total, perSink := int64(0), map[string]int{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // not of our making
		}
		if digest, ok := strings.CutSuffix(e.Name(), ".wasm"); ok && len(digest) == 64 {
			modules[digest] = info.Size()
			total += info.Size()
		} else if b, ok := parseBundleName(e.Name()); ok {
			b.size = info.Size()
			total += b.size
			perSink[b.sink]++
			bundles = append(bundles, b)
		}
	}
	slices.SortFunc(bundles, func(a, b stored) int { return strings.Compare(a.name, b.name) })
	var errs []error
	for i := 0; i < len(bundles); {
		b := bundles[i]
		if b.name == keep || perSink[b.sink] <= c.o.Keep && total <= c.o.MaxBytes {
			i++
			continue
		}
		errs = append(errs, os.Remove(filepath.Join(c.dir, b.name)))
		bundles = slices.Delete(bundles, i, i+1)
		total -= b.size
		perSink[b.sink]--
		total -= c.dropModules(bundles, modules, &errs)
	}
	c.dropModules(bundles, modules, &errs)
	return errors.Join(errs...)
}

// dropModules removes the plugins that no bundle names and returns their bytes.
func (c *Crashes) dropModules(bundles []stored, modules map[string]int64, errs *[]error) (freed int64) {
	for digest, size := range modules {
		if !slices.ContainsFunc(bundles, func(b stored) bool { return b.digest == digest[:len(b.digest)] }) {
			*errs = append(*errs, os.Remove(filepath.Join(c.dir, digest+".wasm")))
			delete(modules, digest)
			freed += size
		}
	}
	return freed
}

// parseBundleName takes apart TIME-SINK-DIGEST.json.
func parseBundleName(name string) (stored, bool) {
	rest, ok := strings.CutSuffix(name, ".json")
	if !ok || len(rest) < len(bundleTime)+1+1+12 {
		return stored{}, false
	}
	at, digest := rest[:len(bundleTime)], rest[len(rest)-12:]
	if _, err := time.Parse(bundleTime, at); err != nil {
		return stored{}, false
	}
	return stored{name: name, sink: strings.Trim(rest[len(bundleTime):len(rest)-12], "-"), digest: digest}, true
}

// safeName makes a part of a file's name of a sink's.
func safeName(sink string) string {
	s := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, strings.ToLower(sink))
	return s[:min(len(s), 32)]
}

// PluginOf returns the module that a bundle is about, from beside it or from
// where it came from; it has the right digest.
func PluginOf(bundle string, b *Bundle) ([]byte, error) {
	var errs []error
	for _, path := range []string{filepath.Join(filepath.Dir(bundle), filepath.Base(b.Plugin.Digest)+".wasm"), b.Plugin.File} {
		if path == "" {
			continue
		}
		wasm, err := os.ReadFile(path)
		if err == nil {
			if err = b.fits(wasm); err == nil {
				return wasm, nil
			}
			err = fmt.Errorf("%s: %w", path, err)
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("find the plugin of the bundle: %w", errors.Join(errs...))
}
