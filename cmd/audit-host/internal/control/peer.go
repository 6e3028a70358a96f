package control

import (
	"fmt"
	"log/slog"
	"net"
	"os"
)

// guarded serves the daemon's user and root only.
type guarded struct {
	*net.UnixListener
	log *slog.Logger
	// uid is peerUID but in tests.
	uid func(fd int) (uid int, known bool, err error)
}

// peer is a connection of somebody who may be here.
type peer struct {
	net.Conn
	uid int // -1 if the system does not tell
}

func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := g.who(c)
		if err == nil {
			return &peer{c, uid}, nil
		}
		g.log.Warn("control connection refused", slog.Any("error", err))
		_ = c.Close() // nothing was said on it
	}
}

// who returns the peer's user, or an error if it may not be here.
func (g *guarded) who(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask who it is: %w", err)
	}
	uid, known := -1, false
	var askErr error
	if err := raw.Control(func(fd uintptr) { uid, known, askErr = g.uid(int(fd)) }); err != nil {
		return 0, fmt.Errorf("ask who it is: %w", err)
	}
	switch {
	case askErr != nil:
		return 0, fmt.Errorf("ask who it is: %w", askErr)
	case !known:
		return -1, nil
	case uid != 0 && uid != os.Geteuid():
		return 0, fmt.Errorf("user %d is neither root nor the daemon's user %d", uid, os.Geteuid())
	}
	return uid, nil
}
