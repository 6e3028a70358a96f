package sign

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

func pair(t *testing.T) (private, public string) {
	t.Helper()
	d := t.TempDir()
	private, public = filepath.Join(d, "audit.key"), filepath.Join(d, "audit.pub")
	if _, err := CreateKeyPair(private, public); err != nil {
		t.Fatal(err)
	}
	return private, public
}

func TestPairRoundTrip(t *testing.T) {
	private, public := pair(t)
	key, err := ReadPair(private, public)
	if err != nil {
		t.Fatal(err)
	}
	want, err := ReadPublic(public)
	if err != nil || !want.Equal(key.Public()) {
		t.Fatalf("public half differs: %v", err)
	}
	before, _ := os.ReadFile(private)
	if _, err := CreateKeyPair(private, public); err == nil {
		t.Fatal("an existing pair was overwritten")
	}
	if after, _ := os.ReadFile(private); !bytes.Equal(before, after) {
		t.Fatal("a refused CreateKeyPair changed the private key")
	}
}

func TestCreateLeavesNoHalf(t *testing.T) {
	private, public := filepath.Join(t.TempDir(), "k"), filepath.Join(t.TempDir(), "k.pub")
	if err := os.WriteFile(public, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateKeyPair(private, public); err == nil {
		t.Fatal("an existing public half was overwritten")
	}
	if _, err := os.Stat(private); !os.IsNotExist(err) {
		t.Fatalf("half a pair is left: %v", err)
	}
}

func TestLooseModeIsRefusedWithTheMend(t *testing.T) {
	private, public := pair(t)
	if runtime.GOOS == "windows" {
		return // no such modes there, see ReadPair
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o666} {
		if err := os.Chmod(private, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPair(private, public); err == nil || !strings.Contains(err.Error(), "chmod 600 "+private) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestForeignHalvesAreRefused(t *testing.T) {
	private, public := pair(t)
	_, other := pair(t)
	if _, err := ReadPair(private, other); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("foreign public half: %v", err)
	}
	if _, err := ReadPair(private, private); err == nil {
		t.Error("a private key passed as its public half")
	}
	if _, err := ReadPublic(private); err == nil {
		t.Error("a private key passed as a public one")
	}
	if err := os.Chmod(public, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPair(public, public); err == nil {
		t.Error("a public key passed as a private one")
	}
}

func event() abi.Event {
	return abi.Event{ID: "i", AgentID: "a", EventType: "governance.refusal", Timestamp: "2026-01-01T00:00:00+00:00", Payload: []byte("{}")}
}

func TestSealSignsTheDigest(t *testing.T) {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	key := ed25519.NewKeyFromSeed(seed)
	public := key.Public().(ed25519.PublicKey)
	if got := hex.EncodeToString(public); got != "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8" {
		t.Fatalf("public key %s", got)
	}
	s, e := NewSealer(key), event()
	s.Seal(&e)
	if !s.Signs() || e.AttestLevel != abi.AttestDaemonSigned || e.KeyID != KeyID(public) || len(e.KeyID) != 32 {
		t.Fatalf("level %q, key id %q", e.AttestLevel, e.KeyID)
	}
	if !ed25519.Verify(public, e.Digest[:], e.Signature) {
		t.Fatal("the signature is not over the digest")
	}
	again := e
	s.Seal(&again)
	if !bytes.Equal(again.Signature, e.Signature) || again.Digest != e.Digest {
		t.Fatal("sealing again changed the event")
	}
	// Every sealed field is under the digest.
	for name, change := range map[string]func(*abi.Event){
		"id": func(e *abi.Event) { e.ID = "j" }, "agent": func(e *abi.Event) { e.AgentID = "b" },
		"type": func(e *abi.Event) { e.EventType = "x" }, "timestamp": func(e *abi.Event) { e.Timestamp = "y" },
		"payload": func(e *abi.Event) { e.Payload = []byte("[]") },
	} {
		c := event()
		change(&c)
		s.Seal(&c)
		if c.Digest == e.Digest {
			t.Errorf("%s is not under the digest", name)
		}
	}
}

func TestWithoutKeyTheEventIsUnsigned(t *testing.T) {
	s, e := NewSealer(nil), event()
	s.Seal(&e)
	if s.Signs() || e.Signature != nil || e.KeyID != "" || e.AttestLevel != abi.AttestUnsigned {
		t.Fatalf("got %+v", e)
	}
}
