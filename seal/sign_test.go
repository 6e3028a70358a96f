package seal

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
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

// Signatures made together are those of crypto/ed25519, byte for byte, however
// many there are and whatever memory they are made in.
func TestSignaturesAreThoseOfTheStandardLibrary(t *testing.T) {
	for _, key := range testKeys(8) {
		s := NewSealer(key)
		for _, n := range []int{1, 2, 3, signTogether - 1, signTogether, signTogether + 1, 2*signTogether + 5} {
			events := many(n)
			s.Seal(events...)
			for i, e := range events {
				if want := ed25519.Sign(key, e.Digest[:]); !bytes.Equal(e.Signature, want) {
					t.Fatalf("signature %d of %d is %x, want %x", i, n, e.Signature, want)
				}
			}
		}
	}
}

// FuzzSign compares any key and digests with crypto/ed25519.
func FuzzSign(f *testing.F) {
	f.Add(make([]byte, 32), uint64(0), uint8(1))
	f.Add(bytes.Repeat([]byte{0xff}, 32), uint64(1), uint8(7))
	f.Fuzz(func(t *testing.T, seed []byte, source uint64, n uint8) {
		if len(seed) != ed25519.SeedSize {
			return
		}
		key, random := ed25519.NewKeyFromSeed(seed), rand.New(rand.NewPCG(source, 1))
		digests := make([]*[abi.HashSize]byte, 1+int(n)%signTogether)
		for i := range digests {
			digests[i] = new([abi.HashSize]byte)
			for j := range digests[i] {
				digests[i][j] = byte(random.Uint32())
			}
		}
		out := make([]byte, abi.SignatureSize*len(digests))
		newSigner(key).sign(digests, out)
		for i, d := range digests {
			if want := ed25519.Sign(key, d[:]); !bytes.Equal(out[64*i:64*(i+1)], want) {
				t.Fatalf("signature %d of %d is %x, want %x", i, len(digests), out[64*i:64*(i+1)], want)
			}
		}
	})
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

// One allocation for the signatures of all events of a call, none without a key.
func TestSealAllocations(t *testing.T) {
	for name, c := range map[string]struct {
		s    *Sealer
		want float64
	}{"signed": {NewSealer(testKeys(1)[0]), 1}, "unsigned": {NewSealer(nil), 0}} {
		events := many(signTogether)
		c.s.Seal(events...)
		if got := testing.AllocsPerRun(20, func() { c.s.Seal(events...) }); got != c.want {
			t.Errorf("%s: sealing %d events allocates %v times, want %v", name, len(events), got, c.want)
		}
	}
}

// BenchmarkSeal seals events of 400 bytes, with crypto/ed25519 for comparison.
func BenchmarkSeal(b *testing.B) {
	key := testKeys(1)[0]
	b.Run("std", func(b *testing.B) {
		digest := make([]byte, abi.HashSize)
		for b.Loop() {
			ed25519.Sign(key, digest)
		}
	})
	for _, n := range []int{1, 8, signTogether} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, events := NewSealer(key), many(n)
			for _, e := range events {
				e.Payload = bytes.Repeat([]byte("x"), 400)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Seal(events...)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}
