package config

import (
	"errors"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// maxSyntax bounds how many lines with syntax errors are reported.
const maxSyntax = 20

// maxRun is how many more brackets may be opened than closed, and how many dots
// may join the parts of a name, anywhere in the text, comments and strings
// included. The decoder recurses on the former and takes more than quadratic
// time for both; this keeps it from a text that is no configuration.
const maxRun = 256

var (
	keyLine  = regexp.MustCompile(`^[ \t]*[A-Za-z0-9_.-]+[ \t]*=`)
	bareText = regexp.MustCompile(`^[ \t]*[A-Za-z0-9_.-]+[ \t]*=[ \t]*([A-Za-z0-9_./:+-]+)[ \t]*(#.*)?$`)
)

// decode reads the TOML syntax and returns the values with their places, or nil
// when the text can't be read at all. A faulty line that can be taken out
// without changing the meaning of others is blanked and the rest read again, so
// that one missing quote does not hide all other problems.
func (c *checker) decode() (map[string]any, *node) {
	if len(c.text) > maxFile {
		c.add(0, "", "the file is longer than %v: is it a configuration?", Size(maxFile))
		return nil, nil
	}
	if at, what := runaway(c.text); what != "" {
		c.add(at, "", "more than %d %s here: is it a configuration?", maxRun, what)
		return nil, nil
	}
	text, next := c.text, 0
	for range maxSyntax {
		var values map[string]any
		_, err := toml.Decode(text, &values)
		if err == nil {
			return c.places(values, text)
		}
		var fault toml.ParseError
		if !errors.As(err, &fault) {
			c.add(0, "", "%s", tidy(err.Error()))
			return nil, nil
		}
		// The column of a ParseError is wrong behind the end of a line;
		// its offset is right.
		start, end := c.line(fault.Position.Start)
		if start < next {
			return nil, nil // a consequence of the line taken out before
		}
		alone := c.syntax(fault, start, end)
		if !alone {
			return nil, nil
		}
		text = text[:start] + strings.Repeat(" ", end-start) + text[end:]
		next, c.partial = end, true
	}
	return nil, nil
}

// syntax reports a syntax error and says whether the line can be taken out.
func (c *checker) syntax(fault toml.ParseError, start, end int) bool {
	line := c.text[start:end]
	var ignored map[string]any
	_, err := toml.Decode(line, &ignored)
	if m := bareText.FindStringSubmatchIndex(line); err != nil && m != nil {
		if text := line[m[2]:m[3]]; looksLikeText(text) {
			c.add(start+m[2], text, "text needs quotes")
			return true
		}
	}
	c.add(fault.Position.Start, "", "%s", tidy(fault.Message))
	// A line that is valid alone is at fault through what stands before it:
	// an open bracket, say. Only a key that is set twice can be spared.
	again := strings.Contains(fault.Message, "already been defined")
	return (err != nil || again) && keyLine.MatchString(line) &&
		!strings.Contains(line, `"""`) && !strings.Contains(line, "'''") &&
		strings.Count(line, "[") == strings.Count(line, "]") &&
		strings.Count(line, "{") == strings.Count(line, "}")
}

// looksLikeText tells a word, an address or a quantity with its unit from a
// misspelt number or date.
func looksLikeText(s string) bool {
	return strings.ContainsFunc(s, unicode.IsLetter) || strings.ContainsAny(s, "/:") || strings.Count(s, ".") > 1
}

// places indexes a text that the decoder has read.
func (c *checker) places(values map[string]any, text string) (map[string]any, *node) {
	root, err := index(text)
	if err == nil {
		return values, root
	}
	offset := 0
	var fault *placeError
	if errors.As(err, &fault) {
		offset = fault.offset
	}
	c.add(offset, "", "%s", tidy(err.Error()))
	return nil, nil
}

// runaway returns the offset and the kind of what is there more than maxRun
// times.
func runaway(text string) (offset int, what string) {
	open, dots := 0, 0
	for i := range len(text) {
		switch b := text[i]; {
		case b == '[' || b == '{':
			open, dots = open+1, 0
		case b == ']' || b == '}':
			open, dots = max(0, open-1), 0
		case b == '.' && i > 0 && text[i-1] != '.': // an ellipsis joins nothing
			dots++
		case b == '\n' || b == '=' || b == ',' || b == '.':
			dots = 0
		}
		if open > maxRun {
			return i, "open brackets"
		}
		if dots > maxRun {
			return i, "dots in a name"
		}
	}
	return 0, ""
}

// tidy gives a library's message the form of ours.
func tidy(message string) string {
	message = strings.TrimSuffix(strings.TrimPrefix(message, "toml: "), ".")
	r, size := utf8.DecodeRuneInString(message)
	if size < len(message) && unicode.IsLower(rune(message[size])) {
		message = string(unicode.ToLower(r)) + message[size:]
	}
	return message
}
