package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"
	"slices"
	"testing"

	"filippo.io/edwards25519"

	"github.com/audit-host/audit-host/abi"
)

// signatures makes n valid ones of one key.
func signatures(key ed25519.PrivateKey, n int) []signed {
	public := newPublicKey(key.Public().(ed25519.PublicKey))
	list := make([]signed, n)
	for i := range list {
		digest := sha512.Sum512_256(fmt.Appendf(nil, "digest %d", i))
		list[i] = signed{&digest, ed25519.Sign(key, digest[:]), public}
	}
	return list
}

// The first bad signature is found wherever it stands, in batches of every kind
// of length, of one key and of several in turn.
func TestBadSignatureIsFound(t *testing.T) {
	keys := testKeys(2)
	var c checker
	for _, n := range []int{1, 2, checkTogether - 1, checkTogether, checkTogether + 1, 2*checkTogether + 3} {
		one := signatures(keys[0], n)
		mixed := slices.Clone(one)
		for i, s := range signatures(keys[1], n) {
			if i%3 == 1 {
				mixed[i] = s
			}
		}
		for name, list := range map[string][]signed{"one key": one, "two keys": mixed} {
			if at := c.bad(list); at != -1 {
				t.Fatalf("%s: of %d valid signatures number %d is called bad", name, n, at)
			}
			for _, at := range []int{0, n / 2, n - 1} {
				for _, b := range []int{0, 31, 32, 63} {
					spoilt := slices.Clone(list)
					for _, i := range []int{at, n - 1} { // and a later one
						spoilt[i].signature = bytes.Clone(list[i].signature)
						spoilt[i].signature[b] ^= 1
					}
					if got := c.bad(spoilt); got != at {
						t.Errorf("%s: byte %d of signature %d of %d was changed, %d is called bad", name, b, at, n, got)
					}
				}
			}
		}
	}
}

// Two signatures whose faults cancel each other out in a plain sum.
func TestFaultsDoNotCancelOut(t *testing.T) {
	list := signatures(testKeys(1)[0], 4)
	one, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		t.Fatal(err)
	}
	add := func(s *signed, change func(s *edwards25519.Scalar)) {
		scalar, err := edwards25519.NewScalar().SetCanonicalBytes(s.signature[32:])
		if err != nil {
			t.Fatal(err)
		}
		change(scalar)
		s.signature = append(bytes.Clone(s.signature[:32]), scalar.Bytes()...)
	}
	add(&list[1], func(s *edwards25519.Scalar) { s.Add(s, one) })
	add(&list[2], func(s *edwards25519.Scalar) { s.Subtract(s, one) })
	if at := new(checker).bad(list); at != 1 {
		t.Errorf("number %d is called bad, want 1", at)
	}
}

// lowOrder are the encodings of points of order 1, 2, 4 and 8, canonical.
func lowOrder(t *testing.T) []*edwards25519.Point {
	t.Helper()
	// A point times the order of the large subgroup is of low order.
	order := []byte{0xec, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 31: 0x10}
	minusOne, err := edwards25519.NewScalar().SetCanonicalBytes(order) // order - 1
	if err != nil {
		t.Fatal(err)
	}
	var found []*edwards25519.Point
	seen := map[string]bool{}
	for i := 0; len(found) < 8 && i < 1000; i++ {
		h := sha512.Sum512_256(fmt.Append(nil, i))
		p, err := new(edwards25519.Point).SetBytes(h[:])
		if err != nil {
			continue
		}
		q := new(edwards25519.Point).ScalarMult(minusOne, p)
		q.Add(q, p)
		if key := string(q.Bytes()); !seen[key] {
			seen[key] = true
			found = append(found, q)
		}
	}
	if len(found) != 8 {
		t.Fatalf("found %d points of low order", len(found))
	}
	return found
}

// Whoever has the private key can make signatures with a part of low order. They
// are what RFC 8032 makes of them, valid, whether alone or among others: a
// ledger must not verify today and break tomorrow.
func TestLowOrderPartsMakeNoDifference(t *testing.T) {
	key := testKeys(1)[0]
	h := sha512.Sum512(key.Seed())
	secret, err := edwards25519.NewScalar().SetBytesWithClamping(h[:32])
	if err != nil {
		t.Fatal(err)
	}
	public := newPublicKey(key.Public().(ed25519.PublicKey))
	var c checker
	differ := 0
	for i, low := range lowOrder(t) {
		digest := sha512.Sum512_256([]byte{byte(i)})
		var nonce, k edwards25519.Scalar
		uniform(&nonce, digest[:])
		r := new(edwards25519.Point).ScalarBaseMult(&nonce)
		sig := r.Add(r, low).Bytes()
		uniform(&k, slices.Concat(sig, public.encoded[:], digest[:]))
		sig = append(sig, k.MultiplyAdd(&k, secret, &nonce).Bytes()...)
		s := signed{&digest, sig, public}
		if !ed25519.Verify(key.Public().(ed25519.PublicKey), digest[:], sig) {
			differ++
		}
		if !c.valid(&s) {
			t.Errorf("low order %d: not valid alone", i)
		}
		for range 16 { // whatever the weights are
			if list := append(signatures(key, 5), s); !c.together(list) || c.bad(list) != -1 {
				t.Errorf("low order %d: not valid among others", i)
			}
		}
	}
	if differ != 7 {
		t.Errorf("%d of 8 differ from crypto/ed25519, want 7: this test tests nothing", differ)
	}
}

// Encodings that are not the one of RFC 8032 are refused, alone and together.
func TestEncodingsAreStrict(t *testing.T) {
	prime := append(append([]byte{0xed}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f)
	with := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	one := append([]byte{1}, make([]byte, 31)...)
	for name, c := range map[string]struct {
		point []byte
		want  bool
	}{
		"y = 1":                   {one, true},
		"y = 1, x = -0":           {with(one, 31, 0x80), false},
		"y = p - 1":               {with(prime, 0, 0xec), true},
		"y = p - 1, x = -0":       {with(with(prime, 0, 0xec), 31, 0xff), false},
		"y = p":                   {prime, false},
		"y = p + 1":               {with(prime, 0, 0xee), false},
		"y = p + 1, other x":      {with(with(prime, 0, 0xee), 31, 0xff), false},
		"y = 2, no x":             {append([]byte{2}, make([]byte, 31)...), false},
		"the base point":          {edwards25519.NewGeneratorPoint().Bytes(), true},
		"the base point, other x": {with(edwards25519.NewGeneratorPoint().Bytes(), 31, 0xe6), true},
	} {
		var p edwards25519.Point
		if got := decodePoint(&p, c.point); got != c.want {
			t.Errorf("%s: taken is %t, want %t", name, got, c.want)
		}
		if c.want && !bytes.Equal(p.Bytes(), c.point) {
			t.Errorf("%s: decoded to another point", name)
		}
	}
	// S and S + order are the same scalar; one is taken.
	s := signatures(testKeys(1)[0], 1)[0]
	order := []byte{0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 31: 0x10}
	carry, big := 0, bytes.Clone(s.signature)
	for i, b := range order {
		carry += int(big[32+i]) + int(b)
		big[32+i], carry = byte(carry), carry>>8
	}
	s.signature = big
	if c := new(checker); c.valid(&s) || c.together([]signed{s}) {
		t.Error("S beyond the group's order is taken")
	}
	for _, key := range []ed25519.PublicKey{nil, prime, one[:31]} {
		if newPublicKey(key) != nil {
			t.Errorf("%x is a public key", key)
		}
	}
}

// FuzzVerify holds checks of changed signatures against crypto/ed25519. A random
// change never makes a point of low order.
func FuzzVerify(f *testing.F) {
	f.Add(uint16(0), byte(1), false)
	f.Add(uint16(31), byte(0x80), true)
	f.Add(uint16(63), byte(0x10), true)
	f.Fuzz(func(t *testing.T, at uint16, change byte, digest bool) {
		key := testKeys(1)[0]
		list := signatures(key, 3)
		if digest {
			list[1].digest[int(at)%abi.HashSize] ^= change
		} else {
			list[1].signature[int(at)%abi.SignatureSize] ^= change
		}
		want := -1
		if !ed25519.Verify(key.Public().(ed25519.PublicKey), list[1].digest[:], list[1].signature) {
			want = 1
		}
		if got := new(checker).bad(list); got != want {
			t.Errorf("byte %d changed by %#x (of the digest: %t): bad is %d, want %d", at, change, digest, got, want)
		}
	})
}

// BenchmarkVerify checks signatures in batches, one by one, and with
// crypto/ed25519.
func BenchmarkVerify(b *testing.B) {
	key := testKeys(1)[0]
	public := key.Public().(ed25519.PublicKey)
	b.Run("std", func(b *testing.B) {
		s := signatures(key, 1)[0]
		for b.Loop() {
			ed25519.Verify(public, s.digest[:], s.signature)
		}
	})
	b.Run("single", func(b *testing.B) {
		s, c := signatures(key, 1)[0], new(checker)
		for b.Loop() {
			c.valid(&s)
		}
	})
	for _, n := range []int{8, 16, 24, 32, 48, 64, checkTogether} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			list, c := signatures(key, n), new(checker)
			for b.Loop() {
				c.together(list)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/signature")
		})
	}
}
