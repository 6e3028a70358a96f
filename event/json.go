package event

import (
	"bytes"
	"slices"
	"sync"
)

// MaxDepth is the number of levels of arrays and objects that a text may have.
const MaxDepth = 128

// maxText is the longest text that is read, in bytes: offsets are 32 bits.
const maxText = 1 << 30

// kind is the kind of a JSON value; its text is used in errors.
type kind uint8

const (
	kindNull kind = iota
	kindFalse
	kindTrue
	kindNumber
	kindString
	kindArray
	kindObject
)

func (k kind) String() string {
	return [...]string{"null", "false", "true", "a number", "a string", "an array", "an object"}[k]
}

// span is a piece of one of the two buffers of a doc.
type span struct{ lo, hi int32 }

// node is one value of a parsed text. Nodes lie in one slice in the order in
// which they were read; the children of a node form a list through next.
type node struct {
	kind kind
	// keySide and textSide say that key or text lies in doc.side, decoded,
	// instead of in doc.in, where it stands as it must be written.
	keySide, textSide bool
	keyAt, at         int32 // offsets of the member name and of the value
	key               span  // the member name without quotes
	text              span  // a string without quotes; a number as it is written
	first, next       int32 // first child and next sibling; 0 is none: the root is no child
}

// doc is a parsed text. It refers to the text, so it must not outlive it.
//
// A string without escapes and an integer are canonical where they stand:
// they are written by copying them from in. All else is decoded to side once,
// when it is read.
type doc struct {
	in    []byte
	side  []byte
	nodes []node
	depth int // levels allowed
	most  int // values allowed; 0 is any number
}

// docs are used again, for the nodes are most of what reading an event takes.
var docs = sync.Pool{New: func() any { return new(doc) }}

// What a doc may keep: the nodes of a large event in its limits are not for the
// small ones after it.
const (
	keptNodes = 1 << 10
	keptSide  = 16 << 10
)

// newDoc returns an empty doc, which the caller frees.
func newDoc() *doc { return docs.Get().(*doc) }

// free gives the doc back. What was read from it is a copy.
func (d *doc) free() {
	if cap(d.nodes) <= keptNodes && cap(d.side) <= keptSide {
		*d = doc{nodes: d.nodes[:0], side: d.side[:0]}
		docs.Put(d)
	}
}

// AppendCanonical appends the canonical form of the JSON text to dst. The
// error is an *Error; dst is then returned as it came.
func AppendCanonical(dst, json []byte) ([]byte, error) {
	d := newDoc()
	defer d.free()
	if err := d.parse(json, MaxDepth); err != nil {
		return dst, err
	}
	return d.append(dst, 0), nil
}

// parse reads in, which must be exactly one value of at most depth levels.
// The value is node 0.
func (d *doc) parse(in []byte, depth int) *Error {
	d.in, d.depth = in, depth
	if len(in) > maxText {
		return fault(0, "the text is %d bytes long; at most %d are read", len(in), maxText)
	}
	if bytes.HasPrefix(in, []byte("\xef\xbb\xbf")) {
		return fault(0, "the text begins with a byte order mark; remove it")
	}
	if d.nodes == nil {
		d.nodes = make([]node, 0, 64) // enough for most events
	}
	_, end, err := d.value(0, 1)
	if err != nil {
		return err
	}
	if end = d.space(end); end < len(in) {
		return fault(end, "more text after the value; one JSON value is expected")
	}
	return nil
}

// space returns the offset of the first byte at or after at that is no white
// space.
func (d *doc) space(at int) int {
	for at < len(d.in) && (d.in[at] == ' ' || d.in[at] == '\n' || d.in[at] == '\t' || d.in[at] == '\r') {
		at++
	}
	return at
}

// value reads the value that begins at or after at, on the given level, and
// returns its node and the offset behind it.
func (d *doc) value(at, level int) (int32, int, *Error) {
	at = d.space(at)
	if at >= len(d.in) {
		return 0, 0, fault(at, "the text ends where a value must begin")
	}
	if d.most > 0 && len(d.nodes) >= d.most {
		return 0, 0, fault(at, "more than %d values; their canonical form is longer than is taken", d.most)
	}
	n := int32(len(d.nodes))
	if len(d.nodes) == cap(d.nodes) {
		d.nodes = slices.Grow(d.nodes, len(d.nodes)) // doubles; append alone would copy more often
	}
	d.nodes = append(d.nodes, node{at: int32(at)})
	var end int
	var err *Error
	switch c := d.in[at]; {
	case c == '"':
		self := &d.nodes[n]
		self.kind = kindString
		self.text, self.textSide, end, err = d.str(at)
	case c == '{':
		end, err = d.object(n, at, level)
	case c == '[':
		end, err = d.array(n, at, level)
	case c == '-' || '0' <= c && c <= '9':
		end, err = d.number(n, at)
	case c == 't':
		end, err = d.word(n, at, "true", kindTrue)
	case c == 'f':
		end, err = d.word(n, at, "false", kindFalse)
	case c == 'n':
		end, err = d.word(n, at, "null", kindNull)
	default:
		err = fault(at, "%s where a value must begin", show(string(d.in[at:at+1])))
	}
	return n, end, err
}

func (d *doc) word(n int32, at int, word string, k kind) (int, *Error) {
	if end := at + len(word); end <= len(d.in) && string(d.in[at:end]) == word {
		d.nodes[n].kind = k
		return end, nil
	}
	return 0, fault(at, "not a JSON value; was %s meant?", word)
}

func (d *doc) array(self int32, at, level int) (int, *Error) {
	if level > d.depth {
		return 0, fault(at, "more than %d levels of arrays and objects", d.depth)
	}
	d.nodes[self].kind = kindArray
	if at = d.space(at + 1); at < len(d.in) && d.in[at] == ']' {
		return at + 1, nil
	}
	last := int32(0)
	for count := 0; ; count++ {
		child, end, err := d.value(at, level+1)
		if err != nil {
			return 0, err.underIndex(count)
		}
		d.link(self, last, child)
		last = child
		at = d.space(end)
		switch {
		case at >= len(d.in):
			return 0, fault(at, "the text ends inside an array")
		case d.in[at] == ']':
			return at + 1, nil
		case d.in[at] != ',':
			return 0, fault(at, "%s where a comma or ] must stand", show(string(d.in[at:at+1])))
		}
		at++
	}
}

func (d *doc) object(self int32, at, level int) (int, *Error) {
	if level > d.depth {
		return 0, fault(at, "more than %d levels of arrays and objects", d.depth)
	}
	d.nodes[self].kind = kindObject
	if at = d.space(at + 1); at < len(d.in) && d.in[at] == '}' {
		return at + 1, nil
	}
	last, sorted := int32(0), true
	for {
		if at = d.space(at); at >= len(d.in) || d.in[at] != '"' {
			return 0, fault(at, "a member name in double quotes must stand here")
		}
		key, side, end, err := d.str(at)
		if err != nil {
			return 0, err
		}
		keyAt := at
		if at = d.space(end); at >= len(d.in) || d.in[at] != ':' {
			return 0, fault(at, "a colon must stand here")
		}
		child, end, err := d.value(at+1, level+1)
		if err != nil {
			return 0, err.under(string(d.bytes(key, side)))
		}
		c := &d.nodes[child]
		c.key, c.keySide, c.keyAt = key, side, int32(keyAt)
		d.link(self, last, child)
		sorted = sorted && (last == 0 || bytes.Compare(d.key(last), d.key(child)) < 0)
		last = child
		at = d.space(end)
		switch {
		case at >= len(d.in):
			return 0, fault(at, "the text ends inside an object")
		case d.in[at] == '}':
			if sorted {
				return at + 1, nil
			}
			return at + 1, d.sort(self)
		case d.in[at] != ',':
			return 0, fault(at, "%s where a comma or } must stand", show(string(d.in[at:at+1])))
		}
		at++
	}
}

// sort orders the members of an object by name and refuses a name that
// stands twice, at its second place.
func (d *doc) sort(self int32) *Error {
	var few [24]int32
	members := few[:0]
	for c := d.nodes[self].first; c != 0; c = d.nodes[c].next {
		members = append(members, c)
	}
	slices.SortFunc(members, func(a, b int32) int {
		if c := bytes.Compare(d.key(a), d.key(b)); c != 0 {
			return c
		}
		return int(a - b)
	})
	last := int32(0)
	for _, c := range members {
		if last != 0 && bytes.Equal(d.key(last), d.key(c)) {
			name := string(d.key(c))
			return fault(int(d.nodes[c].keyAt), "member %s stands twice", show(name)).under(name)
		}
		d.link(self, last, c)
		last = c
	}
	d.nodes[last].next = 0
	return nil
}

// link makes child the one after last in parent, or the first.
func (d *doc) link(parent, last, child int32) {
	if last == 0 {
		d.nodes[parent].first = child
	} else {
		d.nodes[last].next = child
	}
}

// member returns the member of an object with that name, 0 when there is none.
func (d *doc) member(object int32, name string) int32 {
	for c := d.nodes[object].first; c != 0; c = d.nodes[c].next {
		if string(d.key(c)) == name {
			return c
		}
	}
	return 0
}

// remove takes a child out of its parent.
func (d *doc) remove(parent, child int32) {
	last := int32(0)
	for c := d.nodes[parent].first; c != child; c = d.nodes[c].next {
		last = c
	}
	d.link(parent, last, d.nodes[child].next)
}

// insert adds a member, null or the string text, to an object that has none
// of that name.
func (d *doc) insert(object int32, name string, k kind, text string) {
	n := node{kind: k, keySide: true, textSide: true}
	n.key, n.text = d.keep(name), d.keep(text)
	last, next := int32(0), d.nodes[object].first
	for next != 0 && string(d.key(next)) < name {
		last, next = next, d.nodes[next].next
	}
	n.next = next
	d.nodes = append(d.nodes, n)
	d.link(object, last, int32(len(d.nodes)-1))
}

func (d *doc) keep(s string) span {
	lo := len(d.side)
	d.side = append(d.side, s...)
	return span{int32(lo), int32(len(d.side))}
}

func (d *doc) bytes(s span, side bool) []byte {
	if side {
		return d.side[s.lo:s.hi]
	}
	return d.in[s.lo:s.hi]
}

// key returns the decoded name of a member, text the decoded text of a
// string or the canonical text of a number.
func (d *doc) key(n int32) []byte  { return d.bytes(d.nodes[n].key, d.nodes[n].keySide) }
func (d *doc) text(n int32) []byte { return d.bytes(d.nodes[n].text, d.nodes[n].textSide) }

// append writes the canonical form of a value.
func (d *doc) append(dst []byte, n int32) []byte {
	self := &d.nodes[n]
	switch self.kind {
	case kindNull:
		return append(dst, "null"...)
	case kindFalse:
		return append(dst, "false"...)
	case kindTrue:
		return append(dst, "true"...)
	case kindNumber:
		return append(dst, d.text(n)...)
	case kindString:
		return appendText(dst, d.text(n), self.textSide)
	case kindArray:
		dst = append(dst, '[')
		for c := self.first; c != 0; c = d.nodes[c].next {
			if c != self.first {
				dst = append(dst, ',')
			}
			dst = d.append(dst, c)
		}
		return append(dst, ']')
	default:
		dst = append(dst, '{')
		for c := self.first; c != 0; c = d.nodes[c].next {
			if c != self.first {
				dst = append(dst, ',')
			}
			dst = appendText(dst, d.key(c), d.nodes[c].keySide)
			dst = append(dst, ':')
			dst = d.append(dst, c)
		}
		return append(dst, '}')
	}
}
