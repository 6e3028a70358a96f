package sign

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

// many makes n different events.
func many(n int) []*abi.Event {
	list := make([]*abi.Event, n)
	for i := range list {
		e := event()
		e.ID = fmt.Sprint("id-", i)
		list[i] = &e
	}
	return list
}

func testKeys(n int) (keys []ed25519.PrivateKey) {
	for i := range n {
		keys = append(keys, ed25519.NewKeyFromSeed(binary.BigEndian.AppendUint64(make([]byte, 24), uint64(i))))
	}
	return keys
}

func TestSealingFromManyGoroutines(t *testing.T) {
	key := testKeys(1)[0]
	s := NewSealer(key)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := range 20 {
				events := many(n)
				s.Seal(events...)
				for _, e := range events {
					if !ed25519.Verify(key.Public().(ed25519.PublicKey), e.Digest[:], e.Signature) {
						t.Errorf("event %s of %d has a bad signature", e.ID, n)
					}
				}
			}
		})
	}
	wg.Wait()
}

// One allocation an event, its signature's; none without a key.
func TestSealAllocations(t *testing.T) {
	const n = 32
	for name, c := range map[string]struct {
		s    *Sealer
		want float64
	}{"signed": {NewSealer(testKeys(1)[0]), n}, "unsigned": {NewSealer(nil), 0}} {
		events := many(n)
		c.s.Seal(events...)
		if got := testing.AllocsPerRun(20, func() { c.s.Seal(events...) }); got != c.want {
			t.Errorf("%s: sealing %d events allocates %v times, want %v", name, len(events), got, c.want)
		}
	}
}

// BenchmarkSeal seals an event of 400 bytes.
func BenchmarkSeal(b *testing.B) {
	s, e := NewSealer(testKeys(1)[0]), event()
	e.Payload = bytes.Repeat([]byte("x"), 400)
	for b.Loop() {
		s.Seal(&e)
	}
}
