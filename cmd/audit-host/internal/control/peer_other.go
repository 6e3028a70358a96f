//go:build !linux && !darwin && !freebsd

package control

// peerUID has nobody to ask here: the modes of socket and directory have to do.
func peerUID(int) (uid int, known bool, err error) { return 0, false, nil }
