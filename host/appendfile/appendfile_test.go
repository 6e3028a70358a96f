package appendfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func openFile(t *testing.T, o Options) *File {
	t.Helper()
	f, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func names(t *testing.T, dir string) (n []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n = append(n, e.Name())
	}
	return n
}

func TestAppendAcrossOpens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	want := ""
	for i := range 3 {
		f := openFile(t, Options{Path: path})
		for j := range 3 {
			r := fmt.Sprintf("record %d.%d\n", i, j)
			want += r
			must(t, f.Append([]byte(r)))
			must(t, f.Sync())
		}
		must(t, f.Close())
	}
	if got := read(t, path); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	info, err := os.Stat(path)
	must(t, err)
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func TestClosed(t *testing.T) {
	f := openFile(t, Options{Path: filepath.Join(t.TempDir(), "audit.log")})
	must(t, f.Close())
	for call, err := range map[string]error{"Append": f.Append([]byte("x\n")), "Sync": f.Sync(), "Close": f.Close()} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close: %v", call, err)
		}
	}
}

func TestRecordIsLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	f := openFile(t, Options{Path: path})
	for _, r := range []string{"", "no newline", "one\ntwo"} {
		if err := f.Append([]byte(r)); !errors.Is(err, ErrRecord) {
			t.Errorf("Append(%q): %v", r, err)
		}
	}
	must(t, f.Append([]byte("one\ntwo\n")))
	if got := read(t, path); got != "one\ntwo\n" {
		t.Errorf("got %q", got)
	}
}

// TestRotation: a record never straddles two files, the one that is too long
// for any has one of its own, and the bounds remove the oldest only.
func TestRotation(t *testing.T) {
	for _, c := range []struct {
		name   string
		o      Options
		length []int
		want   []int // sizes of the rotated files that stay, then of the file
	}{
		{"never", Options{}, []int{90, 90, 90}, []int{270}},
		{"exactly full", Options{MaxSize: 100}, []int{50, 50, 1}, []int{100, 1}},
		{"does not fit", Options{MaxSize: 100}, []int{50, 51, 49, 1}, []int{50, 100, 1}},
		{"longer than a file", Options{MaxSize: 100}, []int{10, 300, 10}, []int{10, 300, 10}},
		{"longer than a file, first", Options{MaxSize: 100}, []int{300, 10}, []int{300, 10}},
		{"keep", Options{MaxSize: 10, Keep: 2}, []int{6, 7, 8, 9, 10}, []int{8, 9, 10}},
		{"total", Options{MaxSize: 10, MaxTotal: 25}, []int{6, 7, 8, 9}, []int{7, 8, 9}},
		{"total tight", Options{MaxSize: 10, MaxTotal: 10}, []int{6, 7, 8}, []int{8}},
		{"by time", Options{MaxSize: 10, Keep: 2, Pattern: "{time}.{name}"}, []int{6, 7, 8, 9}, []int{7, 8, 9}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.o.Path = filepath.Join(dir, "audit.log")
			write(t, filepath.Join(dir, "audit.log.1"), "not ours")
			write(t, filepath.Join(dir, "audit.log.0000001"), "not ours")
			write(t, filepath.Join(dir, "xaudit.log.000001"), "not ours")
			must(t, os.Mkdir(filepath.Join(dir, "audit.log.000000"), 0o700))
			f := openFile(t, c.o)
			for i, n := range c.length {
				must(t, f.Append([]byte(strings.Repeat(string(rune('a'+i)), n-1)+"\n")))
			}
			must(t, f.Sync())
			var got []int
			for _, r := range f.pattern.pick(names(t, dir)) {
				if r.name != "audit.log.000000" {
					got = append(got, len(read(t, filepath.Join(dir, r.name))))
				}
			}
			got = append(got, len(read(t, c.o.Path)))
			if !slices.Equal(got, c.want) {
				t.Errorf("sizes %v, want %v; files %v", got, c.want, names(t, dir))
			}
			for _, other := range []string{"audit.log.1", "audit.log.0000001", "xaudit.log.000001"} {
				if read(t, filepath.Join(dir, other)) != "not ours" {
					t.Errorf("%s was touched", other)
				}
			}
		})
	}
}

func TestRotationNeverReplaces(t *testing.T) {
	dir := t.TempDir()
	o := Options{Path: filepath.Join(dir, "audit.log"), MaxSize: 4, Pattern: "{name}.{time}"}
	f := openFile(t, o)
	// The clock stands still, and then is put back.
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.now = func() time.Time { clock = clock.Add(-time.Hour); return clock }
	for i := range 5 {
		must(t, f.Append(fmt.Appendf(nil, "%d\n", 100+i)))
	}
	must(t, f.Close())
	all := ""
	for _, r := range f.pattern.pick(names(t, dir)) {
		all += read(t, filepath.Join(dir, r.name))
	}
	if all += read(t, o.Path); all != "100\n101\n102\n103\n104\n" {
		t.Errorf("by the order of names: %q in %v", all, names(t, dir))
	}
}

func TestPruningThatFailsIsSaid(t *testing.T) {
	m := newMemory()
	v := &faulty{volume: m, ask: func(op string) (bool, error) {
		if op == "remove" {
			return false, errFault
		}
		return false, nil
	}}
	var log bytes.Buffer
	o := Options{Path: "/x/audit.log", MaxSize: 2, Keep: 1, Log: slog.New(slog.NewTextHandler(&log, nil))}
	f, err := open(o, func(string) (volume, error) { return v, nil })
	must(t, err)
	for range 4 {
		must(t, f.Append([]byte("x\n")))
	}
	must(t, f.Close())
	if !strings.Contains(log.String(), "rotated file not removed") {
		t.Errorf("log: %s", log.String())
	}
}

// TestTornLine: what a crash left of a record stays, on a line of its own.
func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	write(t, path, "whole\n{\"torn")
	var log bytes.Buffer
	f := openFile(t, Options{Path: path, Log: slog.New(slog.NewTextHandler(&log, nil))})
	must(t, f.Append([]byte("next\n")))
	must(t, f.Sync())
	if got := read(t, path); got != "whole\n{\"torn\nnext\n" {
		t.Errorf("got %q", got)
	}
	if !strings.Contains(log.String(), "torn last line ended") {
		t.Errorf("log: %s", log.String())
	}
}

// TestReplaced: whatever somebody does to the open file, it is noticed before
// the next record, the record is not written, and the call after it goes on
// with what is there.
func TestReplaced(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, dir, path string)
		want string
	}{
		{"removed", func(t *testing.T, _, path string) { must(t, os.Remove(path)) }, "new\n"},
		{"renamed", func(t *testing.T, _, path string) { must(t, os.Rename(path, path+".moved")) }, "new\n"},
		{"replaced", func(t *testing.T, _, path string) {
			must(t, os.Rename(path, path+".moved"))
			write(t, path, "theirs\n")
		}, "theirs\nnew\n"},
		{"cut", func(t *testing.T, _, path string) { must(t, os.Truncate(path, 0)) }, "new\n"},
		{"written to", func(t *testing.T, _, path string) { write(t, path, "old\ntheirs\n") }, "old\ntheirs\nnew\n"},
		{"folder moved", func(t *testing.T, dir, _ string) {
			must(t, os.Rename(dir, dir+".moved"))
			must(t, os.Mkdir(dir, 0o700))
		}, "new\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			must(t, os.Mkdir(dir, 0o700))
			path := filepath.Join(dir, "audit.log")
			f := openFile(t, Options{Path: path})
			must(t, f.Append([]byte("old\n")))
			c.do(t, dir, path)
			if err := f.Append([]byte("new\n")); !errors.Is(err, ErrReplaced) {
				t.Fatalf("Append: %v", err)
			}
			must(t, f.Append([]byte("new\n")))
			// The old record was never synced and nobody knows where it is.
			if err := f.Sync(); !errors.Is(err, ErrUnsynced) || !errors.Is(err, ErrReplaced) {
				t.Errorf("Sync: %v", err)
			}
			must(t, f.Sync())
			if got := read(t, path); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestReplacedBeforeSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	f := openFile(t, Options{Path: path})
	must(t, f.Append([]byte("record\n")))
	must(t, os.Remove(path))
	if err := f.Sync(); !errors.Is(err, ErrReplaced) || !errors.Is(err, ErrUnsynced) {
		t.Fatalf("Sync of a removed file: %v", err)
	}
	must(t, f.Append([]byte("record\n")))
	must(t, f.Sync())
	if got := read(t, path); got != "record\n" {
		t.Errorf("got %q", got)
	}
}

func TestFolderRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	must(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "audit.log")
	f := openFile(t, Options{Path: path})
	must(t, os.RemoveAll(dir))
	if err := f.Append([]byte("x\n")); !errors.Is(err, ErrReplaced) {
		t.Fatalf("Append: %v", err)
	}
	if err := f.Append([]byte("x\n")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Append without a folder: %v", err)
	}
	must(t, os.Mkdir(dir, 0o700))
	must(t, f.Append([]byte("x\n")))
}

// TestRefusesToOpen: what is not a regular file that lies in the folder under
// its own name is not opened, and not touched.
func TestRefusesToOpen(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "theirs")
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("inside"), "theirs")
	must(t, os.Symlink(outside, at("link out")))
	must(t, os.Symlink("inside", at("link in")))
	must(t, os.Symlink(filepath.Join(dir, "nothing"), at("link to nothing")))
	must(t, os.Mkdir(at("folder"), 0o700))
	for _, path := range []string{at("link out"), at("link in"), at("link to nothing"), at("folder"), at("no/such/folder"), "", dir + "/"} {
		if f, err := Open(Options{Path: path}); err == nil {
			t.Errorf("%q was opened", path)
			f.Close()
		}
	}
	write(t, at("file"), "")
	must(t, os.Symlink("inside", at("file.lock")))
	if _, err := Open(Options{Path: at("file")}); err == nil {
		t.Error("a lock that is a link was taken")
	}
	for _, path := range []string{outside, at("inside")} {
		if got := read(t, path); got != "theirs" {
			t.Errorf("%s: %q", path, got)
		}
	}
	if _, err := os.Lstat(at("nothing")); err == nil {
		t.Error("a file was created through a link")
	}
}

func TestLinkPutInPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "theirs\n")
	f := openFile(t, Options{Path: path})
	must(t, os.Rename(path, path+".moved"))
	must(t, os.Symlink(outside, path))
	for range 3 {
		if err := f.Append([]byte("x\n")); err == nil {
			t.Error("appended through a link")
		}
	}
	if got := read(t, outside); got != "theirs\n" {
		t.Errorf("outside: %q", got)
	}
	must(t, os.Remove(path))
	must(t, f.Append([]byte("x\n")))
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	f := openFile(t, Options{Path: path, MaxSize: 4})
	for range 3 {
		if _, err := Open(Options{Path: path}); !errors.Is(err, ErrLocked) {
			t.Fatalf("second Open: %v", err)
		}
		must(t, f.Append([]byte("xxx\n"))) // rotates; the lock stays
	}
	must(t, f.Close())
	openFile(t, Options{Path: path})
}

func TestOptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log.000001")
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{MaxSize: -1}, "negative"},
		{Options{Keep: 1}, "without MaxSize"},
		{Options{MaxTotal: 1}, "without MaxSize"},
		{Options{MaxSize: 10, MaxTotal: 9}, "at least"},
		{Options{Pattern: "{name}"}, "needs {seq} or {time}"},
		{Options{Pattern: "{seq}{seq}"}, "twice"},
		{Options{Pattern: "{time}-{time}"}, "twice"},
		{Options{Pattern: "../{seq}"}, "'/' is not allowed"},
		{Options{Pattern: `..\{seq}`}, "is not allowed"},
		{Options{Pattern: "{seq}{pid}"}, "'{' is not allowed"},
		{Options{Pattern: "{seq} "}, "' ' is not allowed"},
		{Options{Pattern: "{seq}\x00"}, "is not allowed"},
		{Options{Pattern: "audit.log.{seq}"}, "own name"},
		{Options{Pattern: "{seq}" + strings.Repeat("x", 250)}, "more than 255 bytes"},
	} {
		c.o.Path = path
		f, err := Open(c.o)
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	if n := names(t, filepath.Dir(path)); len(n) > 0 {
		t.Errorf("a refused Open left %v", n)
	}
}

// FuzzPattern: every name that an accepted pattern makes is one plain name, is
// known again, and the next one comes after it.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{DefaultPattern, "{time}.{name}", "{seq}{time}", "0{seq}0", "{name}{seq}", ".{seq}"} {
		f.Add(s, "audit.log", int64(1e18))
	}
	f.Fuzz(func(t *testing.T, text, name string, at int64) {
		// Every other byte can stand in a name, a backslash too where it separates nothing.
		if name == "" || strings.ContainsAny(name, "/\x00") {
			return
		}
		p, err := parsePattern(text, name)
		if err != nil {
			return
		}
		var all []string
		var last rotatedFile
		for range 3 {
			next := p.next(last, time.Unix(0, at))
			got := p.pick([]string{next})
			if len(got) != 1 || strings.ContainsAny(next, "/\x00") || next == name || len(next) > maxName {
				t.Fatalf("pattern %q makes %q: %v", text, next, got)
			}
			last = got[0]
			all = append(all, next)
		}
		slices.Reverse(all)
		order := p.pick(all)
		slices.Reverse(all)
		for i := range all {
			if order[i].name != all[i] {
				t.Fatalf("pattern %q: order %v of %v", text, order, all)
			}
		}
	})
}

// TestSwappedWhileOpening: between the look at the name and the open somebody
// puts a link, or another file, in its place.
func TestSwappedWhileOpening(t *testing.T) {
	for _, op := range []string{"open", "stat"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "audit.log")
		write(t, path, "ours\n")
		write(t, filepath.Join(dir, "inside"), "theirs")
		swapped := false
		mount := func(dir string) (volume, error) {
			v, err := mountDisk(dir)
			return &faulty{volume: v, ask: func(o string) (bool, error) {
				if o == op && !swapped {
					swapped = true
					must(t, os.Rename(path, path+".moved"))
					must(t, os.Symlink("inside", path))
				}
				return false, nil
			}}, err
		}
		if f, err := open(Options{Path: path}, mount); !errors.Is(err, ErrReplaced) {
			t.Errorf("swapped before %s: %v", op, err)
			if err == nil {
				f.Close()
			}
		}
		if got := read(t, filepath.Join(dir, "inside")); !swapped || got != "theirs" {
			t.Errorf("swapped before %s: %v, the other file has %q", op, swapped, got)
		}
	}
}

// BenchmarkAppend is a record of 400 bytes, checks included, without and with
// its own fsync.
func BenchmarkAppend(b *testing.B) {
	record := []byte(strings.Repeat("x", 399) + "\n")
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%v", sync), func(b *testing.B) {
			f, err := Open(Options{Path: filepath.Join(b.TempDir(), "audit.log"), MaxSize: 64 << 20, Keep: 1})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(record)))
			for b.Loop() {
				if err := f.Append(record); err != nil {
					b.Fatal(err)
				}
				if sync {
					if err := f.Sync(); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := f.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
