package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// maxDepth bounds how deep tables and arrays may lie in each other. The schema
// needs 4 levels, a plugin's own table some more.
const maxDepth = 32

// node mirrors one value of the file and remembers where it stands. The decoder
// knows the values but not the places of unknown keys; this tree knows the
// places only.
type node struct {
	key   int // offset of the first mention of the name
	value int // offset of the value; that of the name for a table with a header
	kids  map[string]*node
	items []*node
}

// kid returns the node of a key, or n itself for a key that is not set, so that
// every problem has a place.
func (n *node) kid(key string) *node {
	if k := n.kids[key]; k != nil {
		return k
	}
	return n
}

// item returns the node of an array's element.
func (n *node) item(i int) *node {
	if i < len(n.items) {
		return n.items[i]
	}
	return n
}

// make returns the node of a key, made if need be.
func (n *node) make(key string, offset int) *node {
	k := n.kids[key]
	if k == nil {
		k = &node{key: offset, value: offset}
		if n.kids == nil {
			n.kids = map[string]*node{}
		}
		n.kids[key] = k
	}
	return k
}

// placeError is a fault of the text that the index found.
type placeError struct {
	offset  int
	message string
}

func (e *placeError) Error() string { return e.message }

// indexer builds the tree from the syntax tree of the file. It relies on the
// text being valid TOML, which the decoder has checked before.
type indexer struct {
	parser unstable.Parser
	text   string
}

// index returns the places of all keys and values in text.
func index(text string) (*node, error) {
	x := indexer{text: text}
	x.parser.Reset([]byte(text))
	root := &node{}
	table := root
	for x.parser.NextExpression() {
		var err error
		switch e := x.parser.Expression(); e.Kind {
		case unstable.Table:
			table, _, err = x.descend(root, e.Key(), false)
		case unstable.ArrayTable:
			table, _, err = x.descend(root, e.Key(), true)
		case unstable.KeyValue:
			err = x.keyValue(table, e, 0)
		}
		if err != nil {
			return nil, err
		}
	}
	var fault *unstable.ParserError
	if err := x.parser.Error(); errors.As(err, &fault) && len(fault.Highlight) > 0 {
		return nil, &placeError{int(x.parser.Range(fault.Highlight).Offset), fault.Message}
	} else if err != nil {
		return nil, err
	}
	return root, nil
}

// descend follows a dotted key and returns the last node and the offset behind
// the key. A part that is an array of tables stands for its last element, and
// with appended set the last part gets a new one.
func (x *indexer) descend(n *node, key unstable.Iterator, appended bool) (*node, int, error) {
	end := 0
	for depth := 0; key.Next(); depth++ {
		part := key.Node()
		offset := int(part.Raw.Offset)
		if depth >= maxDepth {
			return nil, 0, tooDeep(offset)
		}
		n = n.make(string(part.Data), offset)
		if appended && key.IsLast() {
			n.items = append(n.items, &node{key: offset, value: offset})
		}
		if len(n.items) > 0 {
			n = n.items[len(n.items)-1]
		}
		end = offset + int(part.Raw.Length)
	}
	return n, end, nil
}

func (x *indexer) keyValue(n *node, e *unstable.Node, depth int) error {
	n, end, err := x.descend(n, e.Key(), false)
	if err != nil {
		return err
	}
	// An array carries no range of its own; what follows the key does.
	if eq := strings.IndexByte(x.text[end:], '='); eq >= 0 {
		rest := x.text[end+eq+1:]
		n.value = len(x.text) - len(strings.TrimLeft(rest, " \t"))
	}
	return x.inside(n, e.Value(), depth+1)
}

// inside indexes what a value holds.
func (x *indexer) inside(n *node, value *unstable.Node, depth int) error {
	if depth > maxDepth {
		return tooDeep(n.value)
	}
	for it := value.Children(); it.Next(); {
		child := it.Node()
		switch value.Kind {
		case unstable.InlineTable:
			if err := x.keyValue(n, child, depth); err != nil {
				return err
			}
		case unstable.Array:
			item := &node{key: n.value, value: n.value}
			if child.Raw.Length > 0 {
				item.key, item.value = int(child.Raw.Offset), int(child.Raw.Offset)
			}
			n.items = append(n.items, item)
			if err := x.inside(item, child, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func tooDeep(offset int) error {
	return &placeError{offset, fmt.Sprintf("nested more than %d levels deep", maxDepth)}
}
