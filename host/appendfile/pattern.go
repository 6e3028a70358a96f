package appendfile

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxName    = 255 // bytes of a file name, on every file system that matters
	timeLayout = "20060102T150405.000000Z"
	lockSuffix = ".lock"
)

// pattern makes the names of rotated files and knows them again.
type pattern struct {
	text, name string
	re         *regexp.Regexp
	seq, time  int // index of the group, 0 if there is none
}

// rotatedFile is a name that a pattern has made.
type rotatedFile struct {
	name string
	seq  uint64
	time time.Time
}

// parsePattern checks a pattern for the file name. It has to be such that the
// names it makes are known again for certain, because pruning deletes by name.
func parsePattern(text, name string) (*pattern, error) {
	bad := func(why string) (*pattern, error) {
		return nil, fmt.Errorf("pattern %q: %s", text, why)
	}
	p := &pattern{text: text, name: name}
	expr := "^"
	groups := 0
	for rest := text; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "{name}"):
			expr += regexp.QuoteMeta(name)
			rest = rest[len("{name}"):]
		case strings.HasPrefix(rest, "{seq}"):
			groups++
			if p.seq != 0 {
				return bad("{seq} stands there twice")
			}
			p.seq = groups
			expr += `(\d{6,19})`
			rest = rest[len("{seq}"):]
		case strings.HasPrefix(rest, "{time}"):
			groups++
			if p.time != 0 {
				return bad("{time} stands there twice")
			}
			p.time = groups
			expr += `(\d{8}T\d{6}\.\d{6}Z)`
			rest = rest[len("{time}"):]
		default:
			c := rest[0]
			if !isNameByte(c) {
				return bad(fmt.Sprintf("%q is not allowed: letters, digits, '.', '-', '_' and {name}, {seq}, {time} are", c))
			}
			expr += regexp.QuoteMeta(string(c))
			rest = rest[1:]
		}
	}
	if groups == 0 {
		return bad("it needs {seq} or {time}, or each rotated file would replace the one before")
	}
	var err error
	if p.re, err = regexp.Compile(expr + "$"); err != nil {
		return bad("{name} needs a file name in UTF-8")
	}
	switch first := p.next(rotatedFile{}, time.Time{}); {
	case p.re.MatchString(name) || p.re.MatchString(name+lockSuffix):
		return bad("the file's own name looks like a rotated one")
	case len(first) > maxName:
		return bad(fmt.Sprintf("it makes names of more than %d bytes", maxName))
	}
	return p, nil
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

// next returns the name after last. Both the number and the time grow, also
// when the clock was put back: the order of the names is the order of the
// rotations.
func (p *pattern) next(last rotatedFile, now time.Time) string {
	now = now.UTC().Truncate(time.Microsecond)
	if p.seq == 0 && !now.After(last.time) {
		now = last.time.Add(time.Microsecond)
	}
	return p.make(last.seq+1, now)
}

func (p *pattern) make(seq uint64, t time.Time) string {
	return strings.NewReplacer(
		"{name}", p.name,
		"{seq}", fmt.Sprintf("%06d", seq),
		"{time}", t.Format(timeLayout),
	).Replace(p.text)
}

// pick returns those of the names that the pattern makes, the oldest first.
func (p *pattern) pick(names []string) []rotatedFile {
	var files []rotatedFile
	for _, name := range names {
		m := p.re.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		f := rotatedFile{name: name}
		var err error
		if p.seq > 0 {
			f.seq, err = strconv.ParseUint(m[p.seq], 10, 63)
		}
		if p.time > 0 && err == nil {
			f.time, err = time.Parse(timeLayout, m[p.time])
		}
		// 0000001 reads as a number too, and is none that was written here.
		if err == nil && p.make(f.seq, f.time) == name {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b rotatedFile) int {
		return cmp.Or(cmp.Compare(a.seq, b.seq), a.time.Compare(b.time), cmp.Compare(a.name, b.name))
	})
	return files
}
