package event

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Names, sources, paths and media types are looked up by others, so each is there
// and none is there twice.
func TestFormatsAreComplete(t *testing.T) {
	word := regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	seen := map[string]bool{}
	for _, f := range Formats {
		if !word.MatchString(f.Name) || !word.MatchString(f.Source) || len(f.Paths) == 0 ||
			len(f.Media) == 0 || f.Compile == nil || f.Answer == nil {
			t.Errorf("%q is not complete", f.Name)
			continue
		}
		keys := append([]string{"name " + f.Name, "source " + f.Source}, f.Paths...)
		for _, m := range f.Media {
			for _, of := range m.Types {
				keys = append(keys, f.Name+" reads "+of)
				if of != strings.ToLower(of) || strings.ContainsAny(of, "; ") {
					t.Errorf("%s: the media type %q is not in lower case and bare", f.Name, of)
				}
			}
		}
		for _, k := range keys {
			if seen[k] {
				t.Errorf("%s is there twice", k)
			}
			seen[k] = true
		}
		parse, err := f.Compile(f.Pointers)
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if _, _, err := parse([]byte("nonsense"), Options{}); err == nil {
			t.Errorf("%s takes anything", f.Name)
		}
		for _, r := range []Report{{}, {Accepted: 1}, {Retry: 1, Cause: errOf("full")}, {Accepted: 1, Waiting: 1, Cause: errOf("late")}} {
			reply := f.Answer(&r)
			if want := r.Cause == nil; want != (reply.Status < 300) || !want && (reply.Status != 503 || r.Error == "") {
				t.Errorf("%s answers %d, %q to %+v", f.Name, reply.Status, r.Error, r)
			}
		}
	}
	if !slices.ContainsFunc(Formats, func(f Format) bool { return f.Name == "opa" && len(f.Pointers.Agent) > 0 }) {
		t.Error("the configuration has a table for opa")
	}
}

type errOf string

func (e errOf) Error() string { return string(e) }
