package sqlite

import (
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// snapshotVFS reads a database and its log as they lie there: no lock, no
// shared memory, no file made or changed, whatever the folder permits. SQLite
// then keeps the index of the log in its own heap. It is for databases that
// nobody writes; whoever uses it checks afterwards that nobody did.
const snapshotVFS = "audit-snapshot"

func vfsURI(path, vfs string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: "vfs=" + vfs}
	return u.String()
}

type snapshotFS struct{}

func (snapshotFS) FullPathname(name string) (string, error) {
	if runtime.GOOS == "windows" {
		name = strings.TrimPrefix(name, "/")
	}
	return name, nil
}

func (snapshotFS) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	if flags&(vfs.OPEN_MAIN_DB|vfs.OPEN_WAL) == 0 {
		return nil, flags, sqlite3.CANTOPEN
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && flags&vfs.OPEN_WAL != 0 {
		f, err = nil, nil // no log is an empty one
	}
	if err != nil {
		return nil, flags, vfs.SystemError(err, sqlite3.CANTOPEN)
	}
	return &snapshotFile{f: f}, flags&^(vfs.OPEN_READWRITE|vfs.OPEN_CREATE) | vfs.OPEN_READONLY, nil
}

func (snapshotFS) Delete(string, bool) error { return sqlite3.READONLY }

func (snapshotFS) Access(name string, flags vfs.AccessFlag) (bool, error) {
	_, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && flags != vfs.ACCESS_READWRITE, err
}

type snapshotFile struct{ f *os.File }

func (s *snapshotFile) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

func (s *snapshotFile) ReadAt(p []byte, off int64) (int, error) {
	if s.f == nil {
		return 0, io.EOF
	}
	return s.f.ReadAt(p, off)
}

func (s *snapshotFile) Size() (int64, error) {
	if s.f == nil {
		return 0, nil
	}
	info, err := s.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (s *snapshotFile) WriteAt([]byte, int64) (int, error) { return 0, sqlite3.READONLY }
func (s *snapshotFile) Truncate(int64) error               { return sqlite3.READONLY }
func (s *snapshotFile) Sync(vfs.SyncFlag) error            { return nil }
func (s *snapshotFile) Lock(vfs.LockLevel) error           { return nil }
func (s *snapshotFile) Unlock(vfs.LockLevel) error         { return nil }
func (s *snapshotFile) CheckReservedLock() (bool, error)   { return false, nil }
func (s *snapshotFile) SectorSize() int                    { return 0 }
func (s *snapshotFile) DeviceCharacteristics() vfs.DeviceCharacteristic {
	return vfs.IOCAP_SUBPAGE_READ
}
