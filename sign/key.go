// Package sign signs events and keeps the keys for it.
//
// Keys are Ed25519 in PEM, the private half as PKCS #8 ("PRIVATE KEY"), the
// public half as SubjectPublicKeyInfo ("PUBLIC KEY"), as openssl writes and
// reads them. A key id is the first 16 bytes of the SHA-256 of the 32-byte
// public key, in lower-case hex.
//
// Guarantee: a private key whose file others can read, or whose public half
// does not belong to it, is never used. Not guaranteed: protection of the key
// against whoever runs as the same user.
package sign

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
)

// KeyID names a public key.
func KeyID(public ed25519.PublicKey) string {
	h := sha256.Sum256(public)
	return hex.EncodeToString(h[:16])
}

// CreateKeyPair makes a key pair and writes it to two new files, the private
// one with mode 0600. Neither may exist. If the second cannot be written the
// first is taken away again.
func CreateKeyPair(privateFile, publicFile string) (ed25519.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key pair: %w", err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	publicText, err := MarshalPublic(public)
	if err != nil {
		return nil, err
	}
	if err := writeNew(privateFile, pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: privateDER}), 0o600); err != nil {
		return nil, err
	}
	if err := writeNew(publicFile, publicText, 0o644); err != nil {
		return nil, errors.Join(err, os.Remove(privateFile))
	}
	return public, nil
}

// writeNew creates a file and makes its content durable before it returns: a
// ledger signed with a key that a power cut took back could not be continued.
func writeNew(name string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write key %s: %w", name, errors.Join(err, os.Remove(name)))
	}
	return nil
}

// MarshalPublic returns a public key as PEM.
func MarshalPublic(public ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

// ReadPublic reads a public key file.
func ReadPublic(name string) (ed25519.PublicKey, error) {
	der, err := readBlock(name, publicBlock)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("read public key %s: %w", name, err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("read public key %s: it is a %T, wanted Ed25519", name, key)
	}
	return public, nil
}

// ReadPrivate reads a private key file and checks its mode.
func ReadPrivate(name string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	// Windows has no such modes: Go reports 0666 for every writable file.
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("private key %s has mode %04o: others can read or change it; chmod 600 %s, and make a new pair if they may have read it", name, mode, name)
	}
	der, err := readBlock(name, privateBlock)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read private key %s: %w", name, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read private key %s: it is a %T, wanted Ed25519", name, key)
	}
	return private, nil
}

// ReadPair reads both halves and checks the private file's mode and that the
// halves belong together.
func ReadPair(privateFile, publicFile string) (ed25519.PrivateKey, error) {
	private, err := ReadPrivate(privateFile)
	if err != nil {
		return nil, err
	}
	public, err := ReadPublic(publicFile)
	if err != nil {
		return nil, err
	}
	own := private.Public().(ed25519.PublicKey)
	if !own.Equal(public) {
		return nil, fmt.Errorf("public key %s (key id %s) does not belong to private key %s (key id %s): put the matching halves together", publicFile, KeyID(public), privateFile, KeyID(own))
	}
	return private, nil
}

func readBlock(name, kind string) ([]byte, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("read key %s: no PEM block %q in it", name, kind)
	}
	return block.Bytes, nil
}
