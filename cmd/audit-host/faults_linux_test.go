package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/audit-host/audit-host/internal/sqlite"
)

// apart is a configuration whose ledger lies in a folder of its own.
func apart(t *testing.T) (config, folder string) {
	t.Helper()
	config = home(t, `database = "ledger.db"`, `database = "apart/ledger.db"`)
	folder = filepath.Join(filepath.Dir(config), "apart")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return config, folder
}

// moveIn puts the ledger into its folder.
func moveIn(t *testing.T, config, folder string) {
	t.Helper()
	copyFile(t, ledgerOf(config), filepath.Join(folder, "ledger.db"))
}

// tmpfs mounts a file system in memory over a folder; only root can.
func tmpfs(t *testing.T, folder, options string) {
	t.Helper()
	if err := syscall.Mount("none", folder, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// With a real disk that is full, and with one that is read-only. They need root,
// as CI has it; without, the same is shown by faults put into the host
// (TestDatabaseDiskFull) and the plugin (TestWhatWaitingMendsKeepsTheBatch).
func TestLedgerOnABadDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("not root: no file systems are mounted")
		return
	}
	t.Run("full", func(t *testing.T) {
		config, folder := apart(t)
		tmpfs(t, folder, "size=2m")
		moveIn(t, config, folder)
		d := serve(t, config)
		d.post(t, "ledger", several("a", 20))
		filler := filepath.Join(folder, "filler")
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		f.Close()
		d.taken(t, "b", 500)
		d.told(t, "disk_full", "free some space on its disk")
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		d.awaitLine(t, "the ledger takes events again")
		d.post(t, "ledger", refusal("last"))
		d.stop(t, 0)
		if v := verified(t, config); v.Rows != 521 {
			t.Errorf("%d rows", v.Rows)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		config, folder := apart(t)
		tmpfs(t, folder, "size=8m")
		moveIn(t, config, folder)
		remount := func(flags uintptr) {
			t.Helper()
			if err := syscall.Mount("none", folder, "tmpfs", syscall.MS_REMOUNT|flags, "size=8m"); err != nil {
				t.Fatal(err)
			}
		}
		remount(syscall.MS_RDONLY)
		d := serve(t, config)
		d.taken(t, "a", 20)
		d.told(t, "read_only", "make the ledger and its folder writable")
		remount(0)
		d.awaitLine(t, "the ledger takes events again")
		d.post(t, "ledger", refusal("last"))
		d.stop(t, 0)
		if v := verified(t, config); v.Rows != 21 {
			t.Errorf("%d rows", v.Rows)
		}
	})
}

// Files and folders that the daemon's user may not write, or not read. Root may
// do everything, so that as root the daemon is somebody else.
func TestLedgerWithoutPermission(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, folder os.FileMode
		fault, says  string // "" : refused at the start with the text
	}{
		"file read-only":   {0o444, 0o755, "no_access", "make the ledger and its folder writable"},
		"folder read-only": {0o644, 0o555, "read_only", "make the ledger and its folder writable"},
		"file not ours":    {0o000, 0o755, "", "permission denied"},
		"folder not ours":  {0o644, 0o000, "", "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			config, folder := apart(t)
			moveIn(t, config, folder)
			ledger := filepath.Join(folder, "ledger.db")
			exe := filepath.Join(filepath.Dir(config), "audit-host")
			copyFile(t, os.Getenv(binary), exe)
			if err := os.Chmod(exe, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "run", "-c", config)
			if os.Geteuid() == 0 {
				const nobody = 65534
				// What is compiled is shared with other tests, and not to be given away.
				if err := os.RemoveAll(filepath.Join(filepath.Dir(config), "state")); err != nil {
					t.Fatal(err)
				}
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
				for dir := filepath.Dir(config); strings.HasPrefix(dir, os.TempDir()+string(filepath.Separator)); dir = filepath.Dir(dir) {
					if err := os.Chmod(dir, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				err := filepath.WalkDir(filepath.Dir(config), func(path string, e os.DirEntry, err error) error {
					if err != nil {
						return err
					}
					return os.Lchown(path, nobody, nobody)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			harm := func(file, folderMode os.FileMode) {
				t.Helper()
				if err := os.Chmod(ledger, file); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(folder, folderMode); err != nil {
					t.Fatal(err)
				}
			}
			harm(c.file, c.folder)
			t.Cleanup(func() { _ = os.Chmod(folder, 0o755) }) // so that it can be removed
			if c.fault == "" {
				out, err := cmd.CombinedOutput()
				if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), c.says) {
					t.Errorf("%v: %s", err, out)
				}
				return
			}
			d := spawnCommand(t, cmd)
			d.taken(t, "a", 20)
			d.told(t, c.fault, c.says)
			if err := os.Chmod(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			harm(0o644, 0o755)
			d.awaitLine(t, "the ledger takes events again")
			d.post(t, "ledger", refusal("last"))
			d.signal(t, syscall.SIGTERM)
			if st := d.status(); st.ExitStatus() != 0 {
				t.Errorf("status %v", st)
			}
			if v := verified(t, config); v.Rows != 21 {
				t.Errorf("%d rows", v.Rows)
			}
		})
	}
}

// holdLog keeps a running daemon from writing back what it commits from now on, as it
// does when nothing is committed for a while: a reader stands in the way.
func holdLog(t *testing.T, ledger string) (release func()) {
	t.Helper()
	r, err := sqlite.OpenReader(t.Context(), ledger)
	if err != nil || !r.Live {
		t.Fatal("no reader beside the daemon", err)
	}
	return func() {
		t.Helper()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The log is cut while the ledger is open. The rows that were in it alone are
// missing, so nothing is appended; with both files back all is well.
func TestLedgerLosesItsLog(t *testing.T) {
	for name, harm := range map[string]func(wal string) error{
		"emptied":   func(wal string) error { return os.Truncate(wal, 0) },
		"shortened": func(wal string) error { return os.Truncate(wal, 10_000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := home(t, `#drain_timeout = "5s"`, `drain_timeout = "500ms"`)
			ledger := ledgerOf(config)
			d := serve(t, config)
			d.post(t, "ledger", several("aa", 20))
			release := holdLog(t, ledger)
			for i := range 4 {
				d.post(t, "ledger", several("a"+string(rune('b'+i)), 20))
			}
			d.remembered(t, 100)
			copyFile(t, ledger, ledger+".right")
			copyFile(t, ledger+"-wal", ledger+".right-wal")
			if err := harm(ledger + "-wal"); err != nil {
				t.Fatal(err)
			}
			release()
			d.taken(t, "b", 10)
			d.told(t, "went_back", "audit-host ledger accept-head")
			d.stop(t, exitFailed)
			if err := os.Remove(ledger + "-shm"); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			copyFile(t, ledger+".right", ledger)
			copyFile(t, ledger+".right-wal", ledger+"-wal")
			d = serve(t, config)
			d.post(t, "ledger", refusal("last"))
			d.stop(t, 0)
			if got := ids(t, config); len(got) != 111 || got[110] != "last" || got[100] != "b0" {
				t.Errorf("%d rows: %q", len(got), got)
			}
			verified(t, config)
		})
	}
}

// The connection that has a removed log open writes it back, and nothing is missing.
func TestRemovedLogIsWrittenBack(t *testing.T) {
	t.Parallel()
	config := home(t)
	ledger := ledgerOf(config)
	d := serve(t, config)
	d.post(t, "ledger", refusal("a"))
	release := holdLog(t, ledger)
	d.post(t, "ledger", several("a", 99))
	d.remembered(t, 100)
	release()
	if err := os.Remove(ledger + "-wal"); err != nil {
		t.Fatal(err)
	}
	d.post(t, "ledger", refusal("b"))
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != 101 {
		t.Errorf("%d rows", v.Rows)
	}
}

// A crash and the loss of the log come before a head is remembered, so that
// nothing says what the ledger had. The queue says how far it had come, and
// delivers again what is missing.
func TestLedgerLosesItsLogBeforeItsHead(t *testing.T) {
	for name, harm := range map[string]func(wal string) error{
		"removed": os.Remove,
		"emptied": func(wal string) error { return os.Truncate(wal, 0) },
		"a bit": func(wal string) error {
			b, err := os.ReadFile(wal)
			if err != nil {
				return err
			}
			b[5000] ^= 1
			return os.WriteFile(wal, b, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := home(t)
			ledger := ledgerOf(config)
			c := spawn(t, config)
			var want []string
			release := func() {}
			for i := range 5 {
				if i == 1 {
					for c.pending(t) > 0 {
					}
					release = holdLog(t, ledger)
				}
				list, body := numbered(string(rune('a'+i)), 20)
				if n, err := postQuietly(c.url, body); err != nil || n != 20 {
					t.Fatalf("%d, %v", n, err)
				}
				want = append(want, list...)
			}
			for c.pending(t) > 0 {
			}
			c.signal(t, syscall.SIGKILL)
			<-c.done
			release()
			for _, file := range []string{ledger + "-shm", filepath.Join(filepath.Dir(config), "state", "ledger-head.json")} {
				if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			if err := harm(ledger + "-wal"); err != nil {
				t.Fatal(err)
			}
			if before := ids(t, config); len(before) >= 100 {
				t.Fatalf("%d rows are left of 100: nothing was lost", len(before))
			}
			d := serve(t, config)
			d.post(t, "ledger", refusal("last"))
			if log := d.stop(t, 0); !strings.Contains(log, "the ledger ends before its place in the queue") {
				t.Errorf("not told:\n%s", log)
			}
			if got := ids(t, config); !slices.Equal(got, append(want, "last")) {
				t.Errorf("%d rows: %q", len(got), got)
			}
			verified(t, config)
			// The ledger is where its place is: nothing comes again.
			d = serve(t, config)
			if log := d.stop(t, 0); strings.Contains(log, "the ledger ends before") {
				t.Errorf("told again:\n%s", log)
			}
		})
	}
}

// A damaged page is refused at the start, and at run as soon as it is read.
func TestLedgerWithADamagedPage(t *testing.T) {
	t.Parallel()
	config := home(t)
	ledger := ledgerOf(config)
	d := serve(t, config)
	d.post(t, "ledger", several("a", 200))
	d.stop(t, 0)
	right, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte(nil), right...)
	for i := 4096; i < len(broken); i++ {
		broken[i] = 0xff
	}
	if err := os.WriteFile(ledger, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := must(t, exitFailed, "", "run", "-c", config); !strings.Contains(r.stderr, "malformed") && !strings.Contains(r.stderr, "damaged") {
		t.Errorf("%s", r.stderr)
	}
	if err := os.WriteFile(ledger, right, 0o600); err != nil {
		t.Fatal(err)
	}
	d = serve(t, config)
	// The plugin has not opened it yet.
	if err := os.WriteFile(ledger, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	d.taken(t, "b", 10)
	d.told(t, "corrupt", "check it with audit-host verify, restore a backup")
	if err := os.WriteFile(ledger, right, 0o600); err != nil {
		t.Fatal(err)
	}
	d.awaitLine(t, "the ledger takes events again")
	d.post(t, "ledger", refusal("last"))
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != 211 {
		t.Errorf("%d rows", v.Rows)
	}
}
