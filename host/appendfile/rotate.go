package appendfile

import (
	"fmt"
	"slices"
)

// rotate gives the file a rotated name and starts a new one. Where a crash or
// a power cut may stop it:
//
//	before the fsync     the file is as after any crash: synced records are
//	                     there, others perhaps
//	before the rename    all is on disk under the file's own name; the next
//	                     Append finds the file full and rotates it
//	before the folder's  a power cut may undo the rename, which is the case
//	fsync                before, or keep it, which is the case after
//	before the creation  all is on disk under the rotated name, and there is no
//	                     file: the next Open creates one
//	before the second    the new, empty file may vanish: the case before. The
//	fsync of the folder  old one cannot, its name is durable since the first
//
// A record is written to the new file only when all that has succeeded. At any
// of these points an error leaves the same states, and the next call goes on
// from there by the way that a start goes.
func (f *File) rotate() error {
	if err := f.flush(); err != nil {
		return err
	}
	to, err := f.nextName()
	if err != nil {
		return err
	}
	// Windows renames closed files only.
	f.most = f.size
	f.giveUp()
	if err := f.v.Rename(f.name, to); err != nil {
		return fmt.Errorf("rename to %s: %w", to, err)
	}
	f.again = false
	f.size, f.synced = 0, 0
	// connect syncs the folder before it creates the file and after.
	return f.connect()
}

// rotated lists the rotated files, the oldest first.
func (f *File) rotated() ([]rotatedFile, error) {
	names, err := f.v.Names()
	if err != nil {
		return nil, fmt.Errorf("list the folder: %w", err)
	}
	return f.pattern.pick(names), nil
}

// nextName returns the name that the file gets now. No file has it: names are
// made by the holder of the lock only, and grow. Somebody else who could slip
// a file in between could as well remove what is there.
func (f *File) nextName() (string, error) {
	files, err := f.rotated()
	if err != nil {
		return "", err
	}
	var last rotatedFile
	if len(files) > 0 {
		last = files[len(files)-1]
	}
	name := f.pattern.next(last, f.now())
	if len(name) > maxName {
		return "", fmt.Errorf("name of the rotated file: %q is longer than %d bytes; shorten the pattern", name, maxName)
	}
	return name, nil
}

// prune removes the oldest rotated files beyond the bounds. Only names that
// the pattern makes are looked at, and regular files only. That one cannot be
// removed is no reason to refuse records: it is logged and tried again when
// the file is rotated or opened next.
func (f *File) prune() {
	if f.o.Keep == 0 && f.o.MaxTotal == 0 {
		return
	}
	files, err := f.rotated()
	if err != nil {
		f.o.Log.Warn("rotated files not counted", "file", f.o.Path, "error", err)
		return
	}
	var total int64
	var sizes []int64
	files = slices.DeleteFunc(files, func(file rotatedFile) bool {
		info, err := f.v.Lstat(file.name)
		if err != nil || !info.Mode().IsRegular() {
			return true
		}
		sizes = append(sizes, info.Size())
		total += info.Size()
		return false
	})
	for i, file := range files {
		tooMany := f.o.Keep > 0 && len(files)-i > f.o.Keep
		tooMuch := f.o.MaxTotal > 0 && total > f.o.MaxTotal-f.o.MaxSize
		if !tooMany && !tooMuch {
			return
		}
		if err := f.v.Remove(file.name); err != nil {
			f.o.Log.Warn("rotated file not removed", "file", f.o.Path, "rotated", file.name, "error", err)
			continue
		}
		total -= sizes[i]
		f.o.Log.Info("rotated file removed", "file", f.o.Path, "rotated", file.name, "size", sizes[i])
	}
}
