// Package compiled lets tests share compiled code. A plugin costs a second to
// compile, under the race detector ten times that, and every test has a state
// directory of its own.
package compiled

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/audit-host/audit-host/plugins/bundled"
)

// Check says what to do if the bundled plugins are not built.
func Check() error {
	for _, name := range bundled.Names() {
		if _, err := bundled.Read(name); err != nil {
			return fmt.Errorf("%w\nThese tests need the plugins: run \"make plugins\" first", err)
		}
	}
	return nil
}

// Share gives a state directory, which is made, the code that another one has.
// Entries of the cache are written once and never changed, so that a link is
// enough.
func Share(from, to string) error {
	source, target := filepath.Join(from, "cache"), filepath.Join(to, "cache")
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(source)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Link(filepath.Join(source, e.Name()), filepath.Join(target, e.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
