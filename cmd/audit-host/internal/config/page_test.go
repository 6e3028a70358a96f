package config

import (
	goflag "flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const pageFile = "../../../../docs/configuration.md"

var writePage = goflag.Bool("write-page", false, "write docs/configuration.md, as go generate does")

// TestReferencePage: docs/configuration.md is what the rows say.
func TestReferencePage(t *testing.T) {
	page := strings.ReplaceAll(`# Configuration

Every key of 'audit.toml'. This page is written by 'go generate ./cmd/audit-host/internal/config' from 'keys.go' there.

A path is relative to the file that names it. A size is a text such as '"64MiB"' (B, KiB, MiB, GiB, TiB) or a number
of bytes, a duration a text such as '"5s"' or '"1m30s"'. 'audit-host validate' checks a file, and with '--show' writes
all keys as they take effect.

The column *change* says how a running daemon follows: 'restart' only when it is started again, 'reload' with the next
reload, 'exchange' with a reload too, which makes the plugin of the sink anew.
`, "'", "`") + pageOf(new(Config).rows(), "", restart)
	if *writePage {
		if err := os.WriteFile(pageFile, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.ReplaceAll(string(have), "\r\n", "\n"); got != page {
		t.Errorf("docs/configuration.md is stale: run go generate ./cmd/audit-host/internal/config")
	}
	for key := range keysOf(t) {
		last := key[strings.LastIndexByte(key, '.')+1:]
		if !strings.Contains(page, "\n| `"+last+"` | ") && !strings.Contains(page, "["+key+"]") {
			t.Errorf("the page has no %s", key)
		}
	}
}

// pageOf is the part of the page about one table and what is in it.
func pageOf(rows []row, around string, f follow) string {
	var keys, tables strings.Builder
	for _, r := range rows {
		if r.follow == "" {
			r.follow = f
		}
		if r.nest != nil {
			name := around + r.name
			header := "[" + name + "]"
			if r.nest.array {
				header = "[" + header + "]"
			}
			inside, _ := r.nest.open(&table{values: map[string]any{"NAME": nil}})
			fmt.Fprintf(&tables, "\n## `%s`\n\n%s\n%s", header, r.help, pageOf(inside, name+".", r.follow))
			continue
		}
		r.reset()
		def := "none"
		if r.needed != "" {
			def = "required"
		} else if v := r.get(); v != nil {
			def = "`" + written(v, false) + "`"
		}
		fmt.Fprintf(&keys, "| `%s` | %s | %s | %s | %s |\n", r.name, strings.ReplaceAll(r.kind, `"`, "`"), def, r.follow, r.help)
	}
	if keys.Len() == 0 {
		return tables.String()
	}
	return "\n| key | value | default | change | |\n|---|---|---|---|---|\n" + keys.String() + tables.String()
}

// A row says all about a key: here is a table that nobody has.
type madeUp struct {
	Depth  int
	Room   Size
	Every  time.Duration
	Colour string
	Where  string
	Words  []string
	Inner  *madeUpInner
	List   []madeUpInner
}

type madeUpInner struct{ On bool }

func (m *madeUp) rows() []row {
	inner := func(i *madeUpInner) []row {
		return []row{key("on", flag(&i.On, true), "Whether it is on.").required("on is missing: say so")}
	}
	return []row{
		key("depth", number(&m.Depth, 3, 1, 9), "How deep.").on(reload),
		key("room", size(&m.Room, 2*KiB, KiB, MiB), "How large."),
		key("every", duration(&m.Every, time.Minute, time.Second), "How often."),
		key("colour", choice(&m.Colour, "red", "red", "green"), "Which.").hidden(),
		key("where", path(&m.Where, "", nil), "The file.").owns("-wal"),
		key("words", subset(&m.Words, []string{"a"}, "a", "b"), "Some."),
		optional("inner", "One more.", &m.Inner, inner),
		array("list", "Some more.", &m.List, inner),
	}
}

// readMadeUp reads text as a table [made.up].
func readMadeUp(t *testing.T, text string) (*madeUp, []row, []string) {
	t.Helper()
	m := &madeUp{}
	rows := []row{section("made", "", section("up", "", m.rows()...))}
	c := newChecker("audit.toml", []byte(text))
	c.dir = t.TempDir()
	values, root := c.decode()
	top := c.newTable("", root, true, values)
	top.read(rows)
	c.distinct(absolute(c.dir, "audit.toml"))
	c.unknown()
	var problems []string
	for _, p := range c.problems {
		problems = append(problems, fmt.Sprintf("%d:%d %s [%s]", p.Line, p.Column, p.Message, p.Suggestion))
	}
	return m, rows, problems
}

func TestRowsSayAllAboutAKey(t *testing.T) {
	// Defaults, and how they are shown.
	m, was, problems := readMadeUp(t, "[made.up]\n")
	const defaults = "\n[made]\n\n[made.up]\ndepth = 3\nroom = \"2KiB\"\nevery = \"1m\"\ncolour = \"red\"\nwhere = \"\"\nwords = [\"a\"]\n"
	if got := render(was, "", false); got != defaults || problems != nil || m.Inner != nil || m.Room != 2*KiB {
		t.Errorf("%q, %q, %+v", got, problems, m)
	}
	if got := render(was, "", true); got != strings.Replace(defaults, "red", redacted, 1) {
		t.Errorf("%q", got)
	}
	// Reading, and what is written reads the same.
	text := "[made.up]\ndepth = 4\nroom = 1024\nevery = \"2s\"\ncolour = \"green\"\nwhere = \"x\"\nwords = []\ninner.on = false\nlist = [{on = true}, {on = false}]\n"
	text = strings.Replace(text, "[]", `["b", "a"]`, 1)
	m, now, problems := readMadeUp(t, text)
	if problems != nil || m.Depth != 4 || m.Room != KiB || m.Every != 2*time.Second || m.Colour != "green" ||
		!slices.Equal(m.Words, []string{"b", "a"}) || m.Inner == nil || m.Inner.On || len(m.List) != 2 || !m.List[0].On || m.List[1].On {
		t.Fatalf("%q, %+v", problems, m)
	}
	shown := render(now, "", false)
	if _, again, problems := readMadeUp(t, shown); problems != nil || render(again, "", false) != shown {
		t.Errorf("%q: %q", shown, problems)
	}
	// What needs a restart, and what does not: depth.
	want := []string{`made.up.room: "2KiB" is now "1KiB"`, `made.up.every: "1m" is now "2s"`, `made.up.colour: "(redacted)" is now "(redacted)"`}
	if got := fixed(was, now, restart); !slices.Equal(got[:2], want[:2]) || strings.Contains(fmt.Sprint(got), "depth") || strings.Contains(fmt.Sprint(got), "green") {
		t.Errorf("%q", got)
	}
	// Every fault has its place.
	for text, want := range map[string]string{
		"depth = 10":                     "2:9 depth must be from 1 to 9, not 10 []",
		"room = \"3 mb\"":                `2:8 room: "3 mb" is not a size such as "64MiB" [3MiB]`,
		"every = \"1ms\"":                "2:9 every must be from 1s to 24h, not 1ms []",
		"colour = \"grene\"":             `2:10 colour must be one of "red", "green", not "grene" [green]`,
		"where = \"audit.toml\"":         "2:9 made.up.where is the same file as the configuration itself []",
		"words = [\"a\", \"a\"]":         `2:15 words: "a" is there twice []`,
		"dpeth = 1":                      `2:1 unknown key "dpeth" [depth]`,
		"inner = {}":                     "2:1 on is missing: say so []",
		"list = [{on = true}, {}]":       "2:22 on is missing: say so []",
		"inner = 7":                      "2:9 inner must be a table, written once as [made.up.inner], not the number 7 []",
		"inner = {on = true, depth = 7}": `2:21 unknown key "depth" here; it belongs in [made.up] []`,
	} {
		if _, _, got := readMadeUp(t, "[made.up]\n"+text+"\n"); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q\nwant %q", text, got, want)
		}
	}
	if page := pageOf(was, "", restart); !strings.Contains(page, "| `depth` | number, 1 to 9 | `3` | reload | How deep. |\n") ||
		!strings.Contains(page, "| `on` | true or false | required | restart | Whether it is on. |") || !strings.Contains(page, "## `[[made.up.list]]`") {
		t.Error(page)
	}
}

// TestHowSinksAreFollowed: a reload follows these keys beside the plugin, and the help of
// audit-host reload names them.
func TestHowSinksAreFollowed(t *testing.T) {
	follows := map[string]follow{}
	for _, r := range new(Sink).rows() {
		if r.nest == nil && r.follow != "" {
			follows[r.name] = r.follow
		}
	}
	want := map[string]follow{"name": restart, "required": restart, "batch_events": reload, "batch_bytes": reload, "max_restarts": reload, "restart_window": reload}
	if !maps.Equal(follows, want) {
		t.Errorf("%v", follows)
	}
	a := parse(t, oneSink).Sinks[0]
	b := parse(t, oneSink+"required = false\nbatch_events = 5\nbatch_bytes = \"2MiB\"\nmax_restarts = 0\nrestart_window = \"1s\"\n").Sinks[0]
	if got := a.Fixed(b); !slices.Equal(got, []string{"required: true is now false"}) {
		t.Errorf("%q", got)
	}
	if x, y := fmt.Sprintf("%+v", a.OfPlugin()), fmt.Sprintf("%+v", b.OfPlugin()); x != y || b.BatchEvents != 5 {
		t.Errorf("%s\n%s", x, y)
	}
	c := parse(t, oneSink+"deadline = \"7s\"\n").Sinks[0]
	if x, y := fmt.Sprintf("%+v", a.OfPlugin()), fmt.Sprintf("%+v", c.OfPlugin()); x == y {
		t.Error("a deadline is not of the plugin")
	}
}
