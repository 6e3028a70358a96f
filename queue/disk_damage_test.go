package queue_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/audit-host/audit-host/queue"
)

// written is a log as a process left it that died: several segments, and mark
// files of two moments.
type written struct {
	files   map[string][]byte
	oldMark []byte           // the mark as it was before anything was written
	ids     []string         // all of them durable
	ends    map[string]int64 // of segments, where their last frame ends
	last    int64            // where the last frame of the last segment begins
	before  []string         // the events before that frame
	newest  string           // the last segment
}

// writeLog writes batches of those sizes, each as a frame of one and one of the
// rest.
func writeLog(t *testing.T, batches ...int) (w written) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { w = writeLogInBubble(t, batches) })
	return w
}

func writeLogInBubble(t *testing.T, batches []int) written {
	s, disk := memSite()
	q, err := s.open(tinyDisk())
	if err != nil {
		t.Fatal(err)
	}
	w := written{ends: map[string]int64{}, oldMark: disk.files()["durable"]}
	c, err := q.Consumer(t.Context(), "sink", queue.ConsumerOptions{Required: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range batches {
		var r queue.Receipt
		release := s.now.stall()
		for range n {
			id := fmt.Sprintf("e%04d", len(w.ids))
			w.ids = append(w.ids, id)
			if r, err = q.Submit(sized(id)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the first one is on its way, and hangs
		}
		release()
		if err := r.Wait(t.Context(), queue.Durable); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	s.crash(q)
	w.files = disk.files()
	for name, data := range w.files {
		if strings.HasSuffix(name, ".seg") {
			at := int64(512)
			for at+48 <= int64(len(data)) && binary.LittleEndian.Uint32(data[at:]) != 0 {
				if w.newest <= name {
					w.newest, w.last = name, at
					w.before = w.ids[:binary.LittleEndian.Uint64(data[at+16:])-1]
				}
				at += 48 + int64(binary.LittleEndian.Uint32(data[at+4:]))
			}
			w.ends[name] = at
		}
	}
	return w
}

// readAll opens the files and reads everything. An error of opening or reading
// is returned with what came before it.
func (w written) readAll(t *testing.T, files map[string][]byte) (ids []string, err error) {
	t.Helper()
	s, disk := memSite()
	disk.setFiles(files)
	q, err := s.open(tinyDisk())
	if err != nil {
		return nil, err
	}
	defer closeNow(t, q)
	c, err := q.Consumer(t.Context(), "sink", queue.ConsumerOptions{Required: true})
	if err != nil {
		return nil, err
	}
	for end := q.Watermarks().Durable; queue.Seq(len(ids)) < end; {
		b, err := c.Next(t.Context(), 0, 0)
		if err != nil {
			return ids, err
		}
		for _, x := range b.Events {
			if !bytes.Equal(x.Payload, sized(x.ID).Payload) {
				t.Fatalf("event %s was delivered with another payload", x.ID)
			}
			ids = append(ids, x.ID)
		}
	}
	return ids, nil
}

func (w written) copy() map[string][]byte {
	out := map[string][]byte{}
	for name, data := range w.files {
		out[name] = bytes.Clone(data)
	}
	return out
}

// isPrefix says whether ids are the first of those written.
func (w written) isPrefix(ids []string) bool {
	if len(ids) > len(w.ids) {
		return false
	}
	for i, id := range ids {
		if id != w.ids[i] {
			return false
		}
	}
	return true
}

// Of 1,000 bit flips anywhere in acknowledged data all are refused, with the
// segment and the offset; nothing wrong is ever delivered. Once with what a dead
// process left, once with the mark lost, as after a power cut, when every flip
// hits the last frame, the one that could also be torn.
func TestDiskBitFlips(t *testing.T) {
	const flips = 1000
	w := writeLog(t, 1, 3, 2, 1, 5, 1, 4, 2, 6, 1, 3)
	if len(w.ends) < 3 {
		t.Fatalf("%d segments: too few to prove anything", len(w.ends))
	}
	segments := make([]string, 0, len(w.ends))
	for name := range w.ends {
		segments = append(segments, name)
	}
	for _, markLost := range []bool{false, true} {
		t.Run(fmt.Sprint("mark_lost=", markLost), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 1000))
			refused := 0
			for range flips {
				bad := w.copy()
				name := segments[rng.IntN(len(segments))]
				at := rng.Int64N(w.ends[name])
				if markLost {
					bad["durable"] = w.oldMark
					name = w.newest
					at = w.last + rng.Int64N(w.ends[name]-w.last)
				}
				bad[name][at] ^= 1 << rng.IntN(8)
				ids, err := w.readAll(t, bad)
				if !w.isPrefix(ids) {
					t.Fatalf("%s, byte %d: delivered %q", name, at, ids)
				}
				if errors.Is(err, queue.ErrDamaged) && strings.Contains(err.Error(), name) && strings.Contains(err.Error(), "offset ") {
					refused++
				} else {
					t.Errorf("%s, byte %d: %d events, error %v", name, at, len(ids), err)
				}
			}
			t.Logf("%d of %d bit flips refused, with segment and offset", refused, flips)
			if refused != flips {
				t.Errorf("%d of %d bit flips refused", refused, flips)
			}
		})
	}
}

// The last frame is lost in every way that an interrupted write has: cut at
// every byte, or without any one sector, or any of 500 sets of sectors. With the
// mark lost, the log ends before it; with the mark there, it is refused, for
// then it was acknowledged.
func TestDiskTornLastFrame(t *testing.T) {
	w := writeLog(t, 2, 1, 1, 4)
	before := w.before
	data, end := w.files[w.newest], w.ends[w.newest]
	if end-w.last < 3*512 {
		t.Fatalf("the last frame has %d bytes: too few to prove anything", end-w.last)
	}
	check := func(what string, torn []byte) {
		t.Helper()
		files := w.copy()
		files[w.newest] = torn
		if _, err := w.readAll(t, files); !errors.Is(err, queue.ErrDamaged) {
			t.Errorf("%s, with the mark: %v, want a refusal", what, err)
		}
		files["durable"] = w.oldMark
		ids, err := w.readAll(t, files)
		if err != nil || len(ids) != len(before) || !w.isPrefix(ids) {
			t.Errorf("%s: %d events, %v; want the %d before it", what, len(ids), err, len(before))
		}
	}
	for n := w.last; n < end; n++ {
		torn := bytes.Clone(data)
		clear(torn[n:])
		check(fmt.Sprintf("zeros from byte %d", n-w.last), torn)
		if n%7 == 0 {
			check(fmt.Sprintf("cut at byte %d", n-w.last), torn[:n])
		}
	}
	first, last := w.last/512, (end-1)/512
	lose := func(torn []byte, sector int64) {
		clear(torn[max(sector*512, w.last):min((sector+1)*512, end)])
	}
	for sector := first; sector <= last; sector++ {
		torn := bytes.Clone(data)
		lose(torn, sector)
		check(fmt.Sprintf("without sector %d", sector-first), torn)
	}
	rng := rand.New(rand.NewPCG(512, 512))
	for i := range 500 {
		torn := bytes.Clone(data)
		lose(torn, first+rng.Int64N(last-first+1))
		for sector := first; sector <= last; sector++ {
			if rng.IntN(2) == 0 {
				lose(torn, sector)
			}
		}
		check(fmt.Sprintf("sectors, set %d", i), torn)
	}
}

// What is left of a torn frame is gone for good: the frame that takes its place
// may be shorter, and the next opening must not find the rest behind it.
func TestDiskTornFrameLeavesNothing(t *testing.T) {
	w := writeLog(t, 2, 1, 1, 4)
	end := w.ends[w.newest]
	for sector := w.last / 512; sector <= (end-1)/512; sector++ {
		files := w.copy()
		files["durable"] = w.oldMark
		clear(files[w.newest][max(sector*512, w.last):min((sector+1)*512, end)])
		s, disk := memSite()
		disk.setFiles(files)
		q := mustOpen(t, s, tinyDisk())
		if _, err := queue.SubmitWait(t.Context(), q, queue.Event{ID: "x"}, queue.Durable); err != nil {
			t.Fatal(err)
		}
		s.crash(q)
		q, err := s.open(tinyDisk())
		if err != nil {
			t.Fatalf("sector %d lost, a short frame written: %v", sector, err)
		}
		if n := q.Watermarks().Durable; int(n) != len(w.before)+1 {
			t.Errorf("sector %d lost, a short frame written: %d events, want %d", sector, n, len(w.before)+1)
		}
		closeNow(t, q)
	}
}

// A frame that is not the last one was acknowledged, whatever the mark says: one
// that is zeros altogether is damage, not the end of the log.
func TestDiskZeroedFrames(t *testing.T) {
	w := writeLog(t, 1, 1, 2, 1, 1)
	if len(w.ends) != 1 {
		t.Fatalf("%d segments, want one", len(w.ends))
	}
	data := w.files[w.newest]
	for at := int64(512); at < w.ends[w.newest]; {
		size := 48 + int64(binary.LittleEndian.Uint32(data[at+4:]))
		for _, markLost := range []bool{false, true} {
			bad := w.copy()
			clear(bad[w.newest][at : at+size])
			if markLost {
				if at+size == w.ends[w.newest] {
					continue // two faults at once: not told from one that was never written
				}
				bad["durable"] = w.oldMark
			}
			_, err := w.readAll(t, bad)
			if !errors.Is(err, queue.ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprint("offset ", at)) {
				t.Errorf("frame at %d zeroed, mark lost %v: %v, want a refusal that names the offset", at, markLost, err)
			}
		}
		at += size
	}
}

// A client can't make a payload that looks like a frame: the salt is not known
// outside. If it could, a torn frame would be taken for damage.
func TestDiskPayloadThatLooksLikeAFrame(t *testing.T) {
	w := writeLog(t, 1, 1)
	whole := w.files[w.newest][512:w.ends[w.newest]]
	s, disk := memSite()
	q, err := s.open(tinyDisk())
	if err != nil {
		t.Fatal(err)
	}
	mark := disk.files()["durable"]
	for i := range 8 { // at every alignment
		r, err := q.Submit(queue.Event{ID: "trick", Payload: append(make([]byte, i), whole[:min(len(whole), 1900)]...)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Wait(t.Context(), queue.Durable); err != nil {
			t.Fatal(err)
		}
		s.crash(q)
		files := disk.files()
		files["durable"] = mark
		for name, data := range files { // tear the last frame: its first sector is lost
			if strings.HasSuffix(name, ".seg") {
				at := 512
				for {
					next := at + 48 + int(binary.LittleEndian.Uint32(data[at+4:]))
					if next+48 > len(data) || binary.LittleEndian.Uint32(data[next:]) == 0 {
						break
					}
					at = next
				}
				clear(data[at : (at/512+1)*512])
			}
		}
		disk.setFiles(files)
		if q, err = s.open(tinyDisk()); err != nil {
			t.Fatalf("payload shifted by %d: %v", i, err)
		}
		if n := q.Watermarks().Durable; n != 0 {
			t.Fatalf("%d events, want none", n)
		}
	}
	closeNow(t, q)
}

// A frame that is right in itself, but stands in another's place, is refused: a
// disk that wrote to the wrong sectors is damage too.
func TestDiskMisplacedFrame(t *testing.T) {
	s, disk := memSite()
	q := mustOpen(t, s, tinyDisk())
	if err := mustConsumer(t, q, "sink").Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		ev := queue.Event{ID: fmt.Sprint("e", i), Payload: make([]byte, 100)}
		if _, err := queue.SubmitWait(t.Context(), q, ev, queue.Durable); err != nil {
			t.Fatal(err)
		}
	}
	s.crash(q)
	w := written{files: disk.files()}
	size := 48 + 104 + 8 // of each frame
	for from := range 6 {
		for to := range 6 {
			if from == to {
				continue
			}
			files := w.copy()
			for name, data := range files {
				if strings.HasSuffix(name, ".seg") {
					if got := 48 + int(binary.LittleEndian.Uint32(data[512+4:])); got != size {
						t.Fatalf("frames of %d bytes, want %d", got, size)
					}
					copy(data[512+to*size:][:size], w.files[name][512+from*size:])
				}
			}
			if _, err := w.readAll(t, files); !errors.Is(err, queue.ErrDamaged) {
				t.Errorf("frame %d in the place of %d: %v, want a refusal", from, to, err)
			}
		}
	}
}

// An opening that is refused changes nothing: whoever looks at the directory
// afterwards finds what was wrong.
func TestDiskRefusalChangesNothing(t *testing.T) {
	w := writeLog(t, 2, 1, 1, 4)
	torn := w.copy()
	torn["durable"] = w.oldMark
	clear(torn[w.newest][w.last+100:])
	flipped := w.copy()
	flipped[w.newest][600] ^= 4
	for _, x := range []struct {
		name    string
		files   map[string][]byte
		atLeast int
	}{
		{"torn behind the ledger", torn, len(w.ids)},
		{"damaged", flipped, 0},
	} {
		s, disk := memSite()
		disk.setFiles(x.files)
		before := disk.files()
		o := tinyDisk()
		o.AtLeast = queue.Seq(x.atLeast)
		if _, err := s.open(o); !errors.Is(err, queue.ErrDamaged) && !errors.Is(err, queue.ErrBehind) {
			t.Errorf("%s: %v, want a refusal", x.name, err)
		}
		after := disk.files()
		for name, data := range before {
			if !bytes.Equal(after[name], data) {
				t.Errorf("%s: %s was changed", x.name, name)
			}
		}
		if len(after) != len(before) {
			t.Errorf("%s: %d files, there were %d", x.name, len(after), len(before))
		}
	}
}
