package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func splitAll(text string, declaredLines bool) (layout, []string, *Broken) {
	as := layoutOf([]byte(text), declaredLines)
	var out []string
	err := split([]byte(text), as, func(raw []byte, line int) bool {
		s := string(raw)
		if line > 0 {
			s = fmt.Sprint(line, " ", s)
		}
		out = append(out, s)
		return true
	})
	return as, out, err
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		text  string
		lines bool
		as    layout
		want  []string
		err   string
	}{
		{"", false, single, nil, ""},
		{" \n", false, single, nil, ""},
		{" {} ", false, single, []string{"{}"}, ""},
		{"{\n}\n{}", false, single, []string{"{\n}\n{}"}, ""}, // the first line is no text of its own
		{`{"a":"}\n"} {}`, false, single, []string{`{"a":"}\n"} {}`}, ""},
		{"{}\n{}", false, lines, []string{"1 {}", "2 {}"}, ""},
		{"{}\r\n\r\n{}\r\n", false, lines, []string{"1 {}", "3 {}"}, ""},
		{"{}", true, lines, []string{"1 {}"}, ""},
		{"[1]\n\t\n2", true, lines, []string{"1 [1]", "3 2"}, ""},
		{"[]", false, array, nil, ""},
		{"\n[ ] \n", false, array, nil, ""},
		{`[1,"a",{"b":["]",{}]} , [] ,null,-1.5e3]`, false, array, []string{"1", `"a"`, `{"b":["]",{}]}`, "[]", "null", "-1.5e3"}, ""},
		{`["\\","\"",","]`, false, array, []string{`"\\"`, `"\""`, `","`}, ""},
		{`[{"a":1],2]`, false, array, []string{`{"a":1]`, "2"}, ""}, // the parser's business
		{"[", false, array, nil, "ends in the middle, after 0"},
		{"[1", false, array, []string{"1"}, "ends in the middle, after 1"},
		{"[1,", false, array, []string{"1"}, "ends in the middle, after 1"},
		{"[1,]", false, array, []string{"1"}, "element 1, at byte 3: a value is missing"},
		{"[,1]", false, array, nil, "element 0, at byte 1: a value is missing"},
		{"[1}", false, array, []string{"1"}, "after element 0, at byte 2: neither"},
		{`[1 2]`, false, array, []string{"1"}, "after element 0, at byte 3: neither"},
		{`["a]`, false, array, nil, "element 0, at byte 1: it has no end"},
		{`["a\`, false, array, nil, "it has no end"},
		{`[{"a":"]`, false, array, nil, "it has no end"},
		{`[[[]]`, false, array, []string{"[[]]"}, "ends in the middle"},
		{"[1] 2", false, array, []string{"1"}, "at byte 4: text after"},
		{"[" + strings.Repeat("[", 1<<20), false, array, nil, "it has no end"},
	} {
		as, got, err := splitAll(c.text, c.lines)
		name := c.text[:min(40, len(c.text))]
		if as != c.as || !slices.Equal(got, c.want) {
			t.Errorf("%q: layout %d, %q, want %d, %q", name, as, got, c.as, c.want)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Text, c.err) {
			t.Errorf("%q: error %v, want %q", name, err, c.err)
		}
	}
}

// FuzzSplit checks that a valid array is split as encoding/json splits it, and
// that nothing makes split panic or change its mind.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"", "[]", `[1,"\"]",{"a":[{}]}]`, "{}\n{}\n", `["\`, "[1,]", "{}{", " [ null , [ ] ] "} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, text string, declaredLines bool) {
		as, got, err := splitAll(text, declaredLines)
		n, broken := elements([]byte(text), as).Count(len(text) + 1)
		if n != len(got) || fmt.Sprint(broken) != fmt.Sprint(err) {
			t.Fatalf("counted %d, %v; split into %d, %v", n, broken, len(got), err)
		}
		if err != nil {
			// What was handed out and what is left are all of the text but for
			// brackets, commas and white space before an element.
			whole := strings.Join(got, "") + text[err.From:]
			bare := func(s string) string {
				return strings.NewReplacer("[", "", "]", "", ",", "", " ", "", "\t", "", "\r", "", "\n", "").Replace(s)
			}
			if bare(whole) != bare(text) {
				t.Fatalf("%q and the rest %q are not all of %q", got, text[err.From:], text)
			}
		}
		if as != array {
			return
		}
		var want []json.RawMessage
		if json.Unmarshal([]byte(text), &want) != nil {
			return
		}
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d elements, %v, want %d", len(got), err, len(want))
		}
		for i := range want {
			if !bytes.Equal(want[i], []byte(got[i])) {
				t.Fatalf("element %d is %q, want %q", i, got[i], want[i])
			}
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	text := []byte("[" + strings.Repeat(`{"agent_id":"agent:alice","action":{"kind":"bash","command":"rm -rf \"/\""}},`, 1000) + "1]")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if n, err := elements(text, array).Count(2000); n != 1001 || err != nil {
			b.Fatal(n, err)
		}
	}
}
