package sign

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"fmt"

	"filippo.io/edwards25519"

	"github.com/audit-host/audit-host/abi"
)

// checkTogether is how many signatures are checked in one equation. More gain
// little, and one that is bad costs a second look at all of them.
const checkTogether = 128

// publicKey is a key that signatures are checked with.
type publicKey struct {
	encoded  [ed25519.PublicKeySize]byte
	negative edwards25519.Point // -A
}

// newPublicKey decodes a key. What is not the encoding of a point verifies
// nothing, and is nil.
func newPublicKey(key ed25519.PublicKey) *publicKey {
	var a edwards25519.Point
	if len(key) != ed25519.PublicKeySize || !decodePoint(&a, key) {
		return nil
	}
	p := &publicKey{encoded: [ed25519.PublicKeySize]byte(key)}
	p.negative.Negate(&a)
	return p
}

// decodePoint decodes as RFC 8032, 5.1.3 demands: the library takes, besides,
// encodings with a y of the field's order or more and a negative zero for x.
func decodePoint(p *edwards25519.Point, b []byte) bool {
	var y [32]byte
	copy(y[:], b)
	y[31] &= 0x7f
	low, rest := y[0], true
	for _, c := range y[1:31] {
		rest = rest && c == 0xff
	}
	big := rest && y[31] == 0x7f
	negative := b[31]&0x80 != 0
	if big && (low >= 0xed || low == 0xec && negative) || negative && y == [32]byte{1} {
		return false
	}
	_, err := p.SetBytes(b)
	return err == nil
}

// signed is a signature that is to be checked.
type signed struct {
	digest    *[abi.HashSize]byte
	signature []byte // of abi.SignatureSize
	key       *publicKey
}

// checker has the memory for checking signatures. It is used by one goroutine.
//
// A signature is valid if [8][S]B = [8]R + [8][k]A holds, R and A are decoded
// strictly and S is below the group's order: that is RFC 8032, 5.1.7.
// crypto/ed25519 leaves out the [8], which the RFC permits. Only who has the
// private key can make a signature about which the two differ, and a batch can
// be checked with the [8] only; so it is in both equations here, and a
// signature does not become valid or invalid by its company.
type checker struct {
	scalars  [checkTogether + 2]edwards25519.Scalar
	points   [checkTogether + 2]edwards25519.Point
	scalarAt [checkTogether + 2]*edwards25519.Scalar
	pointAt  [checkTogether + 2]*edwards25519.Point
	weights  [16 * checkTogether]byte
	k, z, s  edwards25519.Scalar
	wide     [32]byte
}

// bad returns the index of the first signature that is not valid, -1 if all are.
func (c *checker) bad(list []signed) int {
	for first := 0; first < len(list); {
		n := 1
		for n < checkTogether && first+n < len(list) && list[first+n].key == list[first].key {
			n++
		}
		// Valid ones always satisfy the equation: if it fails, one of them is bad.
		if run := list[first : first+n]; !c.together(run) {
			for i := range run {
				if !c.valid(&run[i]) {
					return first + i
				}
			}
		}
		first += n
	}
	return -1
}

// together tells whether all of up to checkTogether signatures of one key are
// valid: with random weights z of 128 bits,
//
//	[8]( [Σ z·S]B - Σ [z]R - [Σ z·k]A ) = 0
//
// holds for valid ones always, and else with a chance of 2^-128.
func (c *checker) together(list []signed) bool {
	_, _ = rand.Read(c.weights[:16*len(list)]) // never fails
	sumS, sumK := &c.scalars[len(list)], &c.scalars[len(list)+1]
	*sumS, *sumK = edwards25519.Scalar{}, edwards25519.Scalar{}
	for i := range list {
		if !c.open(&list[i], &c.points[i]) {
			return false
		}
		c.wide = [32]byte{}
		copy(c.wide[:], c.weights[16*i:16*i+16])
		if _, err := c.z.SetCanonicalBytes(c.wide[:]); err != nil {
			panic(fmt.Sprintf("sign: 128 bits are no scalar: %v", err))
		}
		sumS.MultiplyAdd(&c.z, &c.s, sumS)
		sumK.MultiplyAdd(&c.z, &c.k, sumK)
		c.points[i].Negate(&c.points[i])
		c.scalars[i] = c.z
	}
	n := len(list) + 2
	c.points[n-2] = *edwards25519.NewGeneratorPoint()
	c.points[n-1] = list[0].key.negative
	for i := range n {
		c.scalarAt[i], c.pointAt[i] = &c.scalars[i], &c.points[i]
	}
	var sum edwards25519.Point
	sum.VarTimeMultiScalarMult(c.scalarAt[:n], c.pointAt[:n])
	return sum.MultByCofactor(&sum).Equal(edwards25519.NewIdentityPoint()) == 1
}

// valid tells whether one signature is valid.
func (c *checker) valid(s *signed) bool {
	var r, sum edwards25519.Point
	if !c.open(s, &r) {
		return false
	}
	sum.VarTimeDoubleScalarBaseMult(&c.k, &s.key.negative, &c.s)
	sum.Subtract(&sum, &r)
	return sum.MultByCofactor(&sum).Equal(edwards25519.NewIdentityPoint()) == 1
}

// open decodes a signature: r is R, and c.s and c.k are S and the hash k.
func (c *checker) open(s *signed, r *edwards25519.Point) bool {
	if !decodePoint(r, s.signature[:32]) {
		return false
	}
	if _, err := c.s.SetCanonicalBytes(s.signature[32:]); err != nil {
		return false
	}
	var buf [32 + 32 + abi.HashSize]byte
	copy(buf[:32], s.signature)
	copy(buf[32:64], s.key.encoded[:])
	copy(buf[64:], s.digest[:])
	uniform(&c.k, buf[:])
	return true
}

// uniform sets s to SHA-512(b) modulo the group's order.
func uniform(s *edwards25519.Scalar, b []byte) {
	h := sha512.Sum512(b)
	if _, err := s.SetUniformBytes(h[:]); err != nil {
		panic(fmt.Sprintf("sign: 64 bytes are no scalar: %v", err))
	}
}
