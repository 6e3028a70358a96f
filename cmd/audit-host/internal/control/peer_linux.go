package control

import "golang.org/x/sys/unix"

// peerUID asks the kernel who has opened a connection.
func peerUID(fd int) (uid int, known bool, err error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, false, err
	}
	return int(c.Uid), true, nil
}
