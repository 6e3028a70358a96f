package host

import (
	"fmt"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

func TestIdentify(t *testing.T) {
	g := guestModule{imports: [][]byte{imported("audit", "verdict", typFour), imported("audit", "now", typNow), imported("audit", "verdict", typFour),
		cat(str("env"), str("t"), op(1, 0x70, 1, 1, 2)), cat(str("env"), str("m"), op(2, 0, 1)), cat(str("env"), str("g"), op(3, 0x7f, 0))}}
	id, err := Identify(g.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(id.Manifest.Name, id.ABI, id.Imports); got != "hostile[1] [audit.now audit.verdict env.g env.m env.t]" || len(id.Digest) != 64 {
		t.Errorf("%s, %s", got, id.Digest)
	}
	for name, wasm := range map[string][]byte{
		"text": []byte("hello"), "no manifest": guestModule{change: func(m *wasmtest.Module) { m.Custom = nil }}.bytes(),
		"cut import section":             cat(g.bytes()[:8], sec(2, op(1)), sec(0, cat(str("audit.manifest"), []byte(plainManifest)))),
		"export section without a count": cat(g.bytes()[:8], sec(7, op(200)), sec(0, cat(str("audit.manifest"), []byte(plainManifest)))),
		"cut export section":             cat(g.bytes()[:8], sec(7, op(3, 1, 'x')), sec(0, cat(str("audit.manifest"), []byte(plainManifest)))),
	} {
		if id, err := Identify(wasm); err == nil || !strings.Contains(err.Error(), "identify plugin (sha256 ") {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}
