package daemon

import (
	"fmt"
	"net"
	"os"
	"time"
)

// notify tells a service manager how far the daemon is, if there is one that
// wants to know (sd_notify(3), Type=notify).
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] == '@' {
		name = "\x00" + name[1:] // an abstract name of Linux
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("open NOTIFY_SOCKET: %w", err)
	}
	defer c.Close()
	// Whoever should read it may hang, and a stop must not.
	if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("write to NOTIFY_SOCKET: %w", err)
	}
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("write to NOTIFY_SOCKET: %w", err)
	}
	return nil
}
