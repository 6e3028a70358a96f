package control

import (
	"fmt"
	"net"
	"os"
)

// guarded finds out who opens a connection.
type guarded struct {
	*net.UnixListener
	// uid is peerUID but in tests.
	uid func(fd int) (uid int, known bool, err error)
}

// peer is a connection with whoever has opened it.
type peer struct {
	net.Conn
	uid     int   // -1 if the system does not tell
	refused error // why it is not served; nil for the daemon's user and root
}

func (g *guarded) Accept() (net.Conn, error) {
	c, err := g.AcceptUnix()
	if err != nil {
		return nil, err
	}
	uid, err := g.who(c)
	return &peer{c, uid, err}, nil
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
