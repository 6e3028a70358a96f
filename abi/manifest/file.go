package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SetFile puts the manifest of the file text into the file module, as [Set]
// does, and returns what it says. Each of checks may refuse the manifest. The
// module is replaced by rename: whoever reads it meanwhile sees the old one or
// the new one, and after an error it is as it was. A link is followed.
func SetFile(module, text string, checks ...func(Manifest) error) (Manifest, error) {
	said, err := os.ReadFile(text)
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	m, err := Parse(said)
	for _, check := range checks {
		if err == nil {
			err = check(m)
		}
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", text, err)
	}
	file, err := filepath.EvalSymlinks(module)
	if err != nil {
		return Manifest{}, fmt.Errorf("read module: %w", err)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		return Manifest{}, fmt.Errorf("read module: %w", err)
	}
	out, err := Set(wasm, said)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", module, err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return Manifest{}, fmt.Errorf("read module: %w", err)
	}
	if err := replace(file, out, info.Mode().Perm()); err != nil {
		return Manifest{}, fmt.Errorf("write module: %w", err)
	}
	return m, nil
}

// replace writes a file beside the other and gives it that one's name. It is
// not synced: what a power cut takes, a build makes again.
func replace(file string, content []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
