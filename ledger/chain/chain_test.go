package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// TestPreimagesAreInjective moves a byte across every border between two
// fields: no two field lists may share a preimage.
func TestPreimagesAreInjective(t *testing.T) {
	h := make([]byte, HashSize)
	seen := map[string]string{}
	for _, f := range [][4]string{{"ab", "c", "d", "e"}, {"a", "bc", "d", "e"}, {"a", "b", "cd", "e"}, {"a", "b", "c", "de"}, {"", "abc", "d", "e"}} {
		p := string(AppendEventPreimage(nil, f[0], f[1], f[2], h, f[3]))
		if other, ok := seen[p]; ok {
			t.Errorf("%v and %s share a preimage", f, other)
		}
		seen[p] = fmt.Sprint(f)
	}
	a := AppendRowPreimage(nil, h, 1, h, []byte("s"), []byte("l"), []byte("k"))
	b := AppendRowPreimage(nil, h, 1, h, nil, []byte("sl"), []byte("k"))
	if bytes.Equal(a, b) {
		t.Error("signature and level share a border")
	}
}

// TestFormatIsFixed pins the bytes of both preimages: a ledger written today
// must verify with every later version.
func TestFormatIsFixed(t *testing.T) {
	p := AppendEventPreimage(nil, "i", "a", "t", make([]byte, HashSize), "z")
	want := hex.EncodeToString([]byte("audit-host event v1\x00")) + "0000000169" + "0000000161" + "0000000174" +
		"00000020" + strings.Repeat("00", 32) + "000000017a"
	if got := hex.EncodeToString(p); got != want {
		t.Errorf("event preimage\n got %s\nwant %s", got, want)
	}
	digest := sha256.Sum256(p)
	r := AppendRowPreimage(nil, make([]byte, HashSize), 258, digest[:], nil, []byte("unsigned"), nil)
	want = hex.EncodeToString([]byte("audit-host row v1\x00")) + strings.Repeat("00", 32) + "0000000000000102" +
		hex.EncodeToString(digest[:]) + "00000000" + "00000008" + hex.EncodeToString([]byte("unsigned")) + "00000000"
	if got := hex.EncodeToString(r); got != want {
		t.Errorf("row preimage\n got %s\nwant %s", got, want)
	}
}

func TestSchemaAgreesWithTheConstants(t *testing.T) {
	if n := len(strings.Split(Columns, ", ")); n != NumColumns {
		t.Errorf("Columns has %d names, NumColumns is %d", n, NumColumns)
	}
	for _, c := range strings.Split(Columns, ", ") {
		if !strings.Contains(Schema[0], "\n  "+c+" ") {
			t.Errorf("the table has no column %s", c)
		}
	}
	all := strings.Join(Schema, "\n")
	for _, want := range []string{fmt.Sprintf("application_id = %d", ApplicationID), fmt.Sprintf("user_version = %d", SchemaVersion), "CREATE TABLE " + Table + " ("} {
		if !strings.Contains(all, want) {
			t.Errorf("the schema lacks %q", want)
		}
	}
}
