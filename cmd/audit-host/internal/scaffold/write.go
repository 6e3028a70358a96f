package scaffold

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Write makes the folder p.Name in dir, which has to exist, and returns its path
// and the paths of the files in it, in order. What has that name already is
// refused.
func (p Project) Write(dir string) (folder string, names []string, err error) {
	files, err := p.files()
	if err != nil {
		return "", nil, err
	}
	folder = filepath.Join(dir, p.Name)
	return folder, slices.Sorted(maps.Keys(files)), place(folder, files)
}

// place writes files into a new folder. They are written into one beside it,
// which gets the name when all are there: after an error nothing is left, and
// after the program was killed at most a folder whose name begins with a dot.
func place(folder string, files map[string][]byte) (err error) {
	if _, err := os.Lstat(folder); err == nil {
		return fmt.Errorf("%s is there already: choose another name, or another --dir", folder)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for %s: %w", folder, err)
	}
	dir, name := filepath.Split(folder)
	if dir == "" {
		dir = "." // or it would be the system's folder for temporary files
	}
	part, err := os.MkdirTemp(dir, "."+name+"-")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make folder in %s: %w; make that one first", dir, fs.ErrNotExist)
	} else if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part))
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeFile(filepath.Join(part, filepath.FromSlash(name)), files[name]); err != nil {
			return err
		}
	}
	// It was made for its owner alone.
	if err := os.Chmod(part, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.Rename(part, folder); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	return nil
}

func writeFile(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	mode := fs.FileMode(0o644)
	if strings.HasSuffix(name, ".sh") {
		mode = 0o755
	}
	if err := os.WriteFile(name, text, mode); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}
