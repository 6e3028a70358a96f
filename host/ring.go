package host

// stderrSize is how much of a guest's standard error is kept, in bytes.
const stderrSize = 8 << 10

// ring keeps the beginning and the end of what was written to it: a Go
// guest's panic begins with its message, and the end tells what came last.
type ring struct {
	head, tail []byte
	dropped    bool
}

func (r *ring) Write(p []byte) (int, error) {
	n := len(p)
	if room := stderrSize/2 - len(r.head); room > 0 {
		k := min(room, len(p))
		r.head, p = append(r.head, p[:k]...), p[k:]
	}
	if over := len(p) - stderrSize/2; over > 0 {
		p, r.dropped = p[over:], true
	}
	r.tail = append(r.tail, p...)
	if over := len(r.tail) - stderrSize/2; over > 0 {
		r.tail = append(r.tail[:0], r.tail[over:]...)
		r.dropped = true
	}
	return n, nil
}

func (r *ring) String() string {
	if r.dropped {
		return string(r.head) + "\n[…]\n" + string(r.tail)
	}
	return string(r.head) + string(r.tail)
}
