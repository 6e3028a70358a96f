package seal

import (
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"
	"sync"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"

	"github.com/audit-host/audit-host/abi"
)

// signTogether is how many signatures share what can be shared. Each
// signature needs an inversion in the field, to bring its point R = (X : Y : Z)
// to the affine form that is written down. Montgomery's trick
// inverts the product of all Z and takes the single inverses out of it with
// three multiplications each. Past 32 the gain is below 1 %.
const signTogether = 32

// signer makes Ed25519 signatures (RFC 8032, 5.1.6), the same byte for byte as
// crypto/ed25519 does, several at a time. What depends on the key or on a nonce
// is computed in constant time, as there: the arithmetic is that of
// filippo.io/edwards25519, from which the standard library's was taken.
type signer struct {
	public [ed25519.PublicKeySize]byte
	prefix [32]byte
	secret edwards25519.Scalar
	works  sync.Pool // of *signWork
}

// signWork is the memory of one call of sign.
type signWork struct {
	nonces   [signTogether]edwards25519.Scalar
	points   [signTogether][3]field.Element // X, Y, Z
	products [signTogether]field.Element    // of all Z up to this one
	point    edwards25519.Point
	k        edwards25519.Scalar
	buf      [32 + 32 + abi.HashSize]byte
}

func newSigner(key ed25519.PrivateKey) *signer {
	s := &signer{}
	h := sha512.Sum512(key.Seed())
	copy(s.public[:], key[ed25519.SeedSize:])
	copy(s.prefix[:], h[32:])
	if _, err := s.secret.SetBytesWithClamping(h[:32]); err != nil {
		panic(fmt.Sprintf("seal: 32 bytes are no scalar: %v", err))
	}
	return s
}

// sign signs up to signTogether digests. Signature i is written to out[64*i:].
func (s *signer) sign(digests []*[abi.HashSize]byte, out []byte) {
	w, _ := s.works.Get().(*signWork)
	if w == nil {
		w = &signWork{}
	}
	defer s.works.Put(w)
	var product field.Element
	product.One()
	for i, digest := range digests {
		// r = SHA-512(prefix ‖ M), R = r·B
		b := append(append(w.buf[:0], s.prefix[:]...), digest[:]...)
		uniform(&w.nonces[i], b)
		w.point.ScalarBaseMult(&w.nonces[i])
		x, y, z, _ := w.point.ExtendedCoordinates()
		w.points[i] = [3]field.Element{*x, *y, *z}
		product.Multiply(&product, z)
		w.products[i] = product
	}
	var inverse field.Element // of the product of all Z up to i
	inverse.Invert(&product)
	for i := len(digests) - 1; i >= 0; i-- {
		p := &w.points[i]
		z := inverse // becomes 1/Z of i
		if i > 0 {
			z.Multiply(&inverse, &w.products[i-1])
			inverse.Multiply(&inverse, &p[2])
		}
		sig := out[abi.SignatureSize*i : abi.SignatureSize*(i+1)]
		p[0].Multiply(&p[0], &z)
		p[1].Multiply(&p[1], &z)
		copy(sig, p[1].Bytes())
		sig[31] |= byte(p[0].IsNegative() << 7)

		// k = SHA-512(R ‖ A ‖ M), S = k·s + r
		b := append(append(append(w.buf[:0], sig[:32]...), s.public[:]...), digests[i][:]...)
		uniform(&w.k, b)
		copy(sig[32:], w.k.MultiplyAdd(&w.k, &s.secret, &w.nonces[i]).Bytes())
	}
}

// uniform sets s to SHA-512(b) modulo the group's order.
func uniform(s *edwards25519.Scalar, b []byte) {
	h := sha512.Sum512(b)
	if _, err := s.SetUniformBytes(h[:]); err != nil {
		panic(fmt.Sprintf("seal: 64 bytes are no scalar: %v", err))
	}
}
