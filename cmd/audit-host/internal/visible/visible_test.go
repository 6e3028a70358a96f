package visible

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

// written is what comes out of a Writer that gets each part in a call of its own.
func written(t testing.TB, parts ...[]byte) string {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, p := range parts {
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatalf("%d of %d bytes, %v", n, len(p), err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriter(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"two lines\n\tof ours ✓ é 漢\n": "two lines\n\tof ours ✓ é 漢\n",
		"\x1b[2K\x1b[1A\rfits: yes":    `\u001b[2K\u001b[1A\u000dfits: yes`,
		"\u009b31m \u0085 \x7f \x00":   `\u009b31m \u0085 \u007f \u0000`,
		"a\u202eb\u2066c\u200fd\u061c": `a\u202eb\u2066c\u200fd\u061c`,
		"\u2028\u2029":                 `\u2028\u2029`,
		"bad \xff\xc3 utf \xe2\x80":    `bad \xff\xc3 utf \xe2\x80`,
		"\u200d and \ufffd stay":       "\u200d and \ufffd stay",
	} {
		if got := written(t, []byte(in)); got != want {
			t.Errorf("%q: %q, wanted %q", in, got, want)
		}
	}
	// Nothing that acts is forgotten, and in JSON it is the same text.
	for r := rune(0); r < 0x10000; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		in, err := json.Marshal(string(r))
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.ReplaceAll(in, []byte(`\u2028`), []byte("\u2028"))
		var got string
		if err := json.Unmarshal([]byte(written(t, in)), &got); err != nil || got != string(r) {
			t.Fatalf("%q: %q %v", r, got, err)
		}
		if out := written(t, []byte(string(r))); acts(r) != (out != string(r)) {
			t.Fatalf("%q: %q", r, out)
		}
	}
	for _, r := range "\x00\x07\x08\r\x1b\x7f\u0080\u009b\u009f\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" {
		if !acts(r) {
			t.Errorf("%U acts", r)
		}
	}
}

// FuzzWriter: however a text is divided among calls, what comes out is the same,
// is valid UTF-8, and goes through unchanged a second time.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("a\u202eb\xff\xe2\x80"), 3)
	f.Add([]byte("\x1b[2K\u009b"), 1)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		at = min(max(at, 0), len(in))
		whole := written(t, in)
		if parts := written(t, in[:at], in[at:]); parts != whole {
			t.Errorf("%q in two parts, %q in one", parts, whole)
		}
		if again := written(t, []byte(whole)); again != whole || !utf8.ValidString(whole) || strings.ContainsFunc(whole, acts) {
			t.Errorf("%q becomes %q", whole, again)
		}
	})
}

func TestWordAndLine(t *testing.T) {
	for _, c := range []struct{ in, word, line string }{
		{"", "-", ""},
		{"plain", "plain", "plain"},
		{"two words", `"two words"`, "two words"},
		{"\x1b[8m", `"\x1b[8m"`, `"\x1b[8m"`},
		{"a\nb", `"a\nb"`, `"a\nb"`},
		{"a\tb", `"a\tb"`, "a\tb"},
		{"\u202e", `"\u202e"`, `"\u202e"`},
		{"\xff", `"\xff"`, `"\xff"`},
		{"\ufffd", "\ufffd", "\ufffd"},
	} {
		if w, l := Word(c.in), Line(c.in); w != c.word || l != c.line {
			t.Errorf("%q: %s and %s", c.in, w, l)
		}
	}
	if got := Word(strings.Repeat("é", longest)); len(got) > longest+len("…") || !strings.HasSuffix(got, "é…") {
		t.Errorf("%d bytes", len(got))
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestData(t *testing.T) {
	var b bytes.Buffer
	if w := NewWriter(&b); Data(w) != io.Writer(&b) || Data(&b) != io.Writer(&b) || Terminal(w) != nil {
		t.Error("no terminal, and yet not what is below")
	}
	for _, text := range []string{"plain", "\x1b"} {
		if n, err := NewWriter(broken{}).Write([]byte(text)); n != 0 || !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%d, %v", n, err)
		}
	}
}
