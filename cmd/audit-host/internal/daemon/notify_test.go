//go:build unix

package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A service manager that reads nothing holds up neither start nor stop.
func TestNotifyNobodyReads(t *testing.T) {
	name := filepath.Join(t.TempDir(), "n")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	ended := make(chan error)
	go func() {
		var err error
		for range 1 << 16 { // more than a socket holds
			if err = notify("READY=1"); err != nil {
				break
			}
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("told a socket that nobody reads: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for whoever reads the socket")
	}
}
