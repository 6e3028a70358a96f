package sdk

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/audit-host/audit-host/abi"
)

// accepts says what an example is to make of a configuration, by encoding/json,
// and whether that is a fair question: encoding/json takes the last of two
// members and reads the escapes in a name.
func accepts(text string) (ok, fair bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &members) != nil || members == nil {
		return false, true
	}
	if strings.Count(text, `"prefix"`) != len(members) {
		return false, len(members) == 0
	}
	for _, raw := range members {
		var prefix string
		if raw[0] != '"' || json.Unmarshal(raw, &prefix) != nil || strings.Contains(prefix, "\n") {
			return false, true
		}
	}
	return true, true
}

// TestAnyConfiguration: whatever the text, an example answers as encoding/json
// would have it, and never traps.
func TestAnyConfiguration(t *testing.T) {
	seeds := []string{`{}`, `{"prefix":"a"}`, ` { "prefix" : "\u00e9\ud83d\ude00\"\\\/\b\f\r\t" } `, `{"prefix":{"a":[1,2.5e-3,true,null,"x"]}}`,
		`{"prefix":"é","x":[[],{},{"prefix":"b"}]}`, `{"prefix":"\ud83d"}`, `["prefix"]`}
	pieces := []string{`"`, `\`, `\u`, `\ud8`, `{`, `}`, `[`, `]`, `,`, `:`, ` `, "\n", "\x00", "\x1f", "\xff", `\n`, `prefix`, `"prefix"`, `0`, `-1`, `null`, `tru`, `é`, `/`, `a`, `d`, `8`}
	r := rand.New(rand.NewPCG(3, 4))
	var texts []string
	for range 4000 {
		b := []byte(seeds[r.IntN(len(seeds))])
		for range 1 + r.IntN(3) {
			at := r.IntN(len(b) + 1)
			end := min(len(b), at+r.IntN(3))
			b = append(b[:at:at], append([]byte(pieces[r.IntN(len(pieces))]), b[end:]...)...)
		}
		texts = append(texts, string(b))
	}
	each(t, func(t *testing.T, lang string) {
		b := openBare(t, example(t, lang))
		ctx := t.Context()
		mod, err := b.runtime.InstantiateModule(ctx, b.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions(abi.ExportInitialize))
		if err != nil {
			t.Fatal(err)
		}
		taken := 0
		for _, text := range texts {
			at, err := mod.ExportedFunction(abi.ExportReserve).Call(ctx, uint64(len(text)))
			if err != nil || !mod.Memory().Write(uint32(at[0]), []byte(text)) {
				t.Fatal(at, err)
			}
			answer, err := mod.ExportedFunction(abi.ExportOpen).Call(ctx, uint64(len(text)))
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			ok, fair := accepts(text)
			outcome, _, _ := abi.SplitAnswer(answer[0])
			if outcome != abi.OK && outcome != abi.BadConfig || fair && ok != (outcome == abi.OK) {
				t.Errorf("%q: %v, wanted it taken: %v", text, outcome, ok)
			}
			if outcome == abi.OK {
				taken++
			}
		}
		if taken < 100 || taken > len(texts)-1000 {
			t.Errorf("%d of %d were taken", taken, len(texts))
		}
	})
}
