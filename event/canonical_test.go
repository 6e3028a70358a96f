package event

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// vectors returns the rows of testdata/canonical.tsv: name, canonical bytes,
// SHA-256.
func vectors(t testing.TB) [][3]string {
	t.Helper()
	file, err := os.ReadFile("testdata/canonical.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][3]string
	for line := range strings.Lines(string(file)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(columns) != 3 {
			t.Fatalf("row %q has %d columns, not 3", line, len(columns))
		}
		rows = append(rows, [3]string(columns))
	}
	if len(rows) != 6 {
		t.Fatalf("found %d vectors, want 6", len(rows))
	}
	return rows
}

func TestB04_CanonicalizeReproducesTheVectors(t *testing.T) {
	for _, row := range vectors(t) {
		t.Run(row[0], func(t *testing.T) {
			for form, line := range map[string]string{"as it is": row[1], "shuffled": shuffled(t, row[1])} {
				got, hash, err := Canonicalize([]byte(line))
				if err != nil {
					t.Fatalf("%s: %v", form, err)
				}
				if string(got) != row[1] {
					t.Errorf("%s:\n got %s\nwant %s", form, got, row[1])
				}
				if hex.EncodeToString(hash[:]) != row[2] {
					t.Errorf("%s: hash %x, want %s", form, hash, row[2])
				}
			}
		})
	}
}

// shuffled writes a canonical payload with its members in reverse order, with
// white space, with every character escaped that can be, an id, and its time
// in another zone.
func shuffled(t *testing.T, canonical string) string {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(canonical))
	decoder.UseNumber()
	var top map[string]any
	if err := decoder.Decode(&top); err != nil {
		t.Fatal(err)
	}
	stamp := top["timestamp"].(string)
	if day, ok := strings.CutPrefix(stamp, "2026-01-01T00:00:00"); ok {
		top["timestamp"] = "2025-12-31T18:30:00" + strings.TrimSuffix(day, "+00:00") + "-05:30"
	}
	top["id"] = "an-id"
	var b strings.Builder
	backwards(&b, top)
	return b.String()
}

func backwards(b *strings.Builder, v any) {
	quote := func(s string) {
		b.WriteByte('"')
		for _, r := range s {
			fmt.Fprintf(b, `\u%04X`, r)
		}
		b.WriteByte('"')
	}
	switch v := v.(type) {
	case map[string]any:
		var names []string
		for name := range v {
			names = append(names, name)
		}
		for i := range names { // the longest first: never the canonical order here
			for j := i + 1; j < len(names); j++ {
				if names[j] > names[i] {
					names[i], names[j] = names[j], names[i]
				}
			}
		}
		b.WriteString("{ ")
		for i, name := range names {
			if i > 0 {
				b.WriteString(" ,\r\n")
			}
			quote(name)
			b.WriteString("\t: ")
			backwards(b, v[name])
		}
		b.WriteString(" }")
	case string:
		quote(v)
	case json.Number:
		b.WriteString(string(v))
	case nil:
		b.WriteString("null")
	default:
		panic(fmt.Sprintf("no vector has a %T", v))
	}
}

// canonical returns the canonical form of a text that must have one.
func canonical(t *testing.T, text string) string {
	t.Helper()
	out, err := AppendCanonical(nil, []byte(text))
	if err != nil {
		t.Fatalf("%.200s: %v", text, err)
	}
	return string(out)
}

func TestNumbers(t *testing.T) {
	for _, c := range [][2]string{
		{"0", "0"}, {"-0", "-0.0"}, {"-0.0", "-0.0"}, {"0.0", "0.0"}, {"0e5", "0.0"}, {"-0e-5", "-0.0"},
		{"1", "1"}, {"-1", "-1"}, {"1.0", "1.0"}, {"1.50", "1.5"}, {"1e0", "1.0"}, {"1E+2", "100.0"},
		{"9007199254740993", "9007199254740993"},
		{"9223372036854775807", "9223372036854775807"},
		{"9223372036854775808", "9223372036854775808"},
		{"18446744073709551615", "18446744073709551615"},
		{"18446744073709551616", "1.8446744073709552e19"},
		{"-9223372036854775808", "-9223372036854775808"},
		{"-9223372036854775809", "-9.223372036854776e18"},
		{"9007199254740993.0", "9007199254740992.0"},
		{"123456.789e3", "123456789.0"},
		{"1e15", "1000000000000000.0"}, {"1.5e15", "1500000000000000.0"}, {"999999999999999.9", "999999999999999.9"},
		{"1234567890123456.0", "1234567890123456.0"}, {"9999999999999998.0", "9999999999999998.0"},
		{"1e16", "1e16"}, {"12345678901234567.0", "1.2345678901234568e16"},
		{"1e17", "1e17"}, {"123456789012345680.0", "1.2345678901234568e17"}, {"1e21", "1e21"},
		{"100000000000000000000000", "1e23"},
		{"0.1", "0.1"}, {"0.001234", "0.001234"}, {"0.0001", "0.0001"}, {"0.00001", "0.00001"}, {"1.25e-5", "0.0000125"},
		{"0.000001", "1e-6"}, {"1.5e-7", "1.5e-7"}, {"0.00000123", "1.23e-6"},
		{"5e-324", "5e-324"}, {"2.2250738585072014e-308", "2.2250738585072014e-308"},
		{"1.7976931348623157e308", "1.7976931348623157e308"}, {"-1.7976931348623157E+308", "-1.7976931348623157e308"},
		{"1e-400", "0.0"}, {"-1e-99999999999999999999", "-0.0"}, {"0e99999999999999999999", "0.0"},
		{"0." + strings.Repeat("0", 790) + "1e791", "1.0"},
		{"1" + strings.Repeat("0", 794) + "e-794", "1.0"},
		{strings.Repeat("9", 795) + "e-795", "1.0"},
	} {
		if got := canonical(t, c[0]); got != c[1] {
			t.Errorf("%.40s is written %s, want %s", c[0], got, c[1])
		}
		if got := canonical(t, c[1]); got != c[1] {
			t.Errorf("%s is not stable: %s", c[1], got)
		}
	}
}

func TestFloatsReadBack(t *testing.T) {
	bits := uint64(1)
	for range 200_000 {
		bits = bits*6364136223846793005 + 1442695040888963407
		f := math.Float64frombits(bits)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			continue
		}
		text := string(appendFloat(nil, f))
		back, err := strconv.ParseFloat(text, 64)
		if err != nil || math.Float64bits(back) != bits {
			t.Fatalf("%x is written %s, which reads back as %v, %v", bits, text, back, err)
		}
		if !strings.ContainsAny(text, ".e") {
			t.Fatalf("%x is written %s, as an integer", bits, text)
		}
	}
}

func TestStrings(t *testing.T) {
	for _, c := range [][2]string{
		{`"plain"`, `"plain"`},
		{`"\u0000\u0001\u001F\u001f"`, `"\u0000\u0001\u001f\u001f"`},
		{`"\b\f\n\r\t\u0008\u000c\u000A\u000d\u0009"`, `"\b\f\n\r\t\b\f\n\r\t"`},
		{`"\"\\\/\u0022\u005c\u002f"`, `"\"\\/\"\\/"`},
		{`"<>&\u003c\u003E\u0026"`, `"<>&<>&"`},
		{"\"\x7f\\u007f\"", "\"\x7f\x7f\""},
		{"\"\u2028\\u2028\u2029\"", "\"\u2028\u2028\u2029\""},
		{`"\u00e9é"`, `"éé"`},
		{`"\ud83d\ude00😀\uD83D\uDE00"`, `"😀😀😀"`},
		{`"\uffff\ufffd"`, "\"\uffff\ufffd\""},
		{`"\u0085"`, "\"\u0085\""},
	} {
		if got := canonical(t, c[0]); got != c[1] {
			t.Errorf("%s is written %s, want %s", c[0], got, c[1])
		}
		if got := canonical(t, `{`+c[0]+`:1}`); got != `{`+c[1]+`:1}` {
			t.Errorf("as a name %s is written %s, want %s", c[0], got, c[1])
		}
	}
}

func TestMembersAreSortedByBytes(t *testing.T) {
	for _, c := range [][2]string{
		{`{"b":1,"a":{"d":[],"c":{}}}`, `{"a":{"c":{},"d":[]},"b":1}`},
		{`{"𐀀":1,"｡":2}`, `{"｡":2,"𐀀":1}`},
		{`{"\ud800\udc00":1,"\uff61":2}`, `{"｡":2,"𐀀":1}`},
		{`{"ab":1,"a":2,"":3,"B":4}`, `{"":3,"B":4,"a":2,"ab":1}`},
		{`{"\n":1,"!":2,"\u0000":3}`, `{"\u0000":3,"\n":1,"!":2}`},
		{`[3,1,2]`, `[3,1,2]`},
	} {
		if got := canonical(t, c[0]); got != c[1] {
			t.Errorf("%s is written %s, want %s", c[0], got, c[1])
		}
	}
	var many, want strings.Builder
	for i := 99; i >= 10; i-- {
		fmt.Fprintf(&many, `,"%d":%d`, i, i)
		fmt.Fprintf(&want, `,"%d":%d`, 109-i, 109-i)
	}
	if got := canonical(t, "{"+many.String()[1:]+"}"); got != "{"+want.String()[1:]+"}" {
		t.Errorf("90 members are written %s", got)
	}
}

func TestAppendCanonicalAppends(t *testing.T) {
	out, err := AppendCanonical([]byte("before "), []byte(" [ 1 ] "))
	if err != nil || string(out) != "before [1]" {
		t.Errorf("got %q, %v", out, err)
	}
	out, err = AppendCanonical([]byte("before "), []byte("[1"))
	if err == nil || string(out) != "before " {
		t.Errorf("after an error got %q, %v", out, err)
	}
}

func TestRefusedTextsNameThePlace(t *testing.T) {
	for _, c := range []struct {
		text, path string
		offset     int
		reason     string // a part of it
	}{
		{"", "", 0, "ends where a value"},
		{" \n", "", 2, "ends where a value"},
		{"\xef\xbb\xbf{}", "", 0, "byte order mark"},
		{"{} {}", "", 3, "more text"},
		{"{}x", "", 2, "more text"},
		{"nul", "", 0, "was null meant"},
		{"True", "", 0, `"T" where a value`},
		{"NaN", "", 0, "where a value"},
		{"[1,]", "/1", 3, "where a value"},
		{"[1 2]", "", 3, "comma or ]"},
		{"[1", "", 2, "inside an array"},
		{`{"a":1,}`, "", 7, "member name"},
		{`{a:1}`, "", 1, "member name"},
		{`{"a" 1}`, "", 5, "colon"},
		{`{"a":1 "b":2}`, "", 7, "comma or }"},
		{`{"a":1`, "", 6, "inside an object"},
		{`{"a":[0,{"b/c~":01}]}`, "/a/1/b~1c~0", 16, "begin with 0"},
		{`{"a":1,"b":2,"a":3}`, "/a", 13, "twice"},
		{`{"x":{"a":1,"\u0061":3}}`, "/x/a", 12, "twice"},
		{`{"b":1,"b":1}`, "/b", 7, "twice"},
		{`["` + "\xff" + `"]`, "/0", 2, "invalid UTF-8 (byte 0xff)"},
		{`["ok` + "\xc3" + `"]`, "/0", 4, "invalid UTF-8"},
		{`["\n` + "\xed\xa0\x80" + `"]`, "/0", 4, "invalid UTF-8"},
		{`{"` + "\xc0\xaf" + `":1}`, "", 2, "invalid UTF-8"},
		{`["\ud800"]`, "/0", 2, "surrogate"},
		{`["\ud800\u0041"]`, "/0", 2, "surrogate"},
		{`["a\udc00\ud800"]`, "/0", 3, "surrogate"},
		{`["\ud800\ud800"]`, "/0", 2, "surrogate"},
		{`{"\udfff":1}`, "", 2, "surrogate"},
		{`["\u12g4"]`, "/0", 2, "four hexadecimal"},
		{`["\u12`, "/0", 2, "four hexadecimal"},
		{`["\x"]`, "/0", 2, "no escape"},
		{`["\`, "/0", 3, "inside a string"},
		{`["a`, "/0", 3, "inside a string"},
		{"[\"a\tb\"]", "/0", 3, "U+0009"},
		{"[\"\\n\x00\"]", "/0", 4, "U+0000"},
		{"1e400", "", 0, "out of the range"},
		{"1E400", "", 0, "out of the range"},
		{"[-1e309]", "/0", 1, "out of the range"},
		{"[1" + strings.Repeat("0", 309) + "]", "/0", 1, "out of the range"},
		{"[" + strings.Repeat("1", MaxNumberLen+1) + "]", "/0", 1, "at most 800"},
		{"-", "", 1, "digit"}, {"+1", "", 0, "where a value"}, {".5", "", 0, "where a value"},
		{"1.", "", 2, "digit"}, {"1e", "", 2, "digit"}, {"1e+", "", 3, "digit"}, {"-01", "", 1, "begin with 0"},
		{"1" + strings.Repeat("0", 3000) + "e-3000", "", 0, "at most 800"},
		{"0x10", "", 1, "more text"}, {"1_000", "", 1, "more text"},
	} {
		_, err := AppendCanonical(nil, []byte(c.text))
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.60q is taken, want %q", c.text, c.reason)
			continue
		}
		if e.Path != c.path || e.Offset != c.offset || !strings.Contains(e.Reason, c.reason) {
			t.Errorf("%.60q: %v, want path %q, byte %d, %q", c.text, err, c.path, c.offset, c.reason)
		}
	}
}

func TestDepth(t *testing.T) {
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	canonical(t, nest(MaxDepth))
	if _, err := AppendCanonical(nil, []byte(nest(MaxDepth+1))); err == nil || !strings.Contains(err.Error(), "128 levels") {
		t.Errorf("depth %d: %v", MaxDepth+1, err)
	}
	if _, err := AppendCanonical(nil, bytes.Repeat([]byte(`{"a":`), 1_000_000)); err == nil || len(err.Error()) > 1000 {
		t.Errorf("a million levels: an error of %d bytes", len(fmt.Sprint(err)))
	}
}

func TestErrorsAreShort(t *testing.T) {
	long := strings.Repeat("é\n", 10_000)
	name, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"{" + string(name) + ":x}",
		"{" + string(name) + ":1," + string(name) + ":1}",
		`{"agent_id":"a",` + string(name) + ":1}",
	} {
		_, _, err := ParseNative([]byte(text), Options{})
		if err == nil || len(err.Error()) > 700 || strings.Contains(err.Error(), "\n") {
			t.Errorf("the error is %.800q", fmt.Sprint(err))
		}
	}
}

// FuzzCanonical holds the parser against encoding/json: what is taken is
// valid there too, means the same, and is stable.
func FuzzCanonical(f *testing.F) {
	seeds := 0
	add := func(s string) { seeds++; f.Add([]byte(s)) }
	for _, row := range vectors(f) {
		add(row[1])
	}
	for _, s := range []string{
		`{"b":[1,2.50,-0,1e400,18446744073709551616],"a":{"\u00e9":"\ud83d\ude00","\n":null}}`,
		`{"a":1,"a":2}`, `["\ud800"]`, "\"\xff\"", `[1e-7, 0.00001,1e16,true,false,""]`, ` {"｡":"𐀀"} `, "[[[]]]",
	} {
		add(s)
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		out, err := AppendCanonical(nil, text)
		if err != nil {
			if e := new(Error); !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(text) {
				t.Fatalf("%q: the error has no place in the text: %v", text, err)
			}
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%q is taken, but is not JSON", text)
		}
		again, err := AppendCanonical(nil, out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q is not stable: %q, %v", out, again, err)
		}
		if got, want := decode(t, out), decode(t, text); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q became %q: %v is not %v", text, out, got, want)
		}
	})
}

// decode reads a text with encoding/json and gives every number the form that
// the rule for numbers is about: an integer of 64 bits or a float64.
func decode(t *testing.T, text []byte) any {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return numbers(t, v)
}

func numbers(t *testing.T, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = numbers(t, v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(t, v[i])
		}
	case json.Number:
		if u, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return u
		}
		if i, err := strconv.ParseInt(string(v), 10, 64); err == nil && v != "-0" {
			return i
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		return math.Float64bits(f)
	}
	return v
}
