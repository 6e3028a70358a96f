package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxProblems bounds the list: whoever passes the wrong file needs no more.
const maxProblems = 100

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File       string `json:"file"`
	Line       int    `json:"line"`   // from 1
	Column     int    `json:"column"` // from 1, in characters
	Source     string `json:"source"` // the line, without its end
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"` // what was probably meant
}

// Problems is everything that is wrong with a configuration, in the order of
// the file. It is never empty when it is returned as an error.
type Problems []Problem

// Error describes every problem, in the form of [Problem.String].
func (p *Problems) Error() string {
	texts := make([]string, len(*p))
	for i, problem := range *p {
		texts[i] = problem.String()
	}
	return strings.Join(texts, "\n")
}

// String returns "file:line:column: message", the line itself and a caret under
// the place, without a final newline. Control characters of the line are
// replaced, and a long line is cut around the place.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	if p.Suggestion != "" {
		fmt.Fprintf(&b, "; did you mean %q?", p.Suggestion)
	}
	source, column := excerpt(p.Source, p.Column)
	if strings.TrimSpace(source) == "" {
		return b.String()
	}
	// Tabs are kept in front of the caret, so that it stands under its
	// character whatever a tab's width is.
	runes := []rune(source)
	before := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, string(runes[:max(0, min(column-1, len(runes)))]))
	fmt.Fprintf(&b, "\n    %s\n    %s^", source, before)
	return b.String()
}

// excerpt makes a line fit for a terminal and returns it with the column moved
// accordingly.
func excerpt(line string, column int) (string, int) {
	const before, width = 60, 120
	runes := []rune(line)
	for i, r := range runes {
		if r != '\t' && !unicode.IsPrint(r) {
			runes[i] = unicode.ReplacementChar
		}
	}
	if len(runes) <= width {
		return string(runes), column
	}
	from := max(0, min(column-1-before, len(runes)-width))
	to := min(len(runes), from+width)
	text := string(runes[from:to])
	if from > 0 {
		text = "…" + text
		column++
	}
	if to < len(runes) {
		text += "…"
	}
	return text, column - from
}

// add records a problem at an offset in bytes.
func (c *checker) add(offset int, suggestion, format string, args ...any) {
	if len(c.problems) > maxProblems {
		return
	}
	message := clip(fmt.Sprintf(format, args...), 400)
	if len(c.problems) == maxProblems {
		message, suggestion = "too many problems; the rest is not shown", ""
	}
	line, column, source := c.locate(offset)
	c.problems = append(c.problems, Problem{
		File: c.file, Line: line, Column: column, Source: source,
		Message: message, Suggestion: suggestion,
	})
}

// locate turns an offset in bytes into a line and a column.
func (c *checker) locate(offset int) (line, column int, source string) {
	start, end := c.line(offset)
	offset = min(max(offset, start), end)
	// The decoder counts bytes and may point into the middle of a character.
	for offset > start && offset < end && !utf8.RuneStart(c.text[offset]) {
		offset--
	}
	line = 1 + strings.Count(c.text[:start], "\n")
	column = 1 + utf8.RuneCountInString(c.text[start:offset])
	return line, column, c.text[start:end]
}

// line returns where the line that holds offset begins and ends, without its
// line end. A line end belongs to the line before it.
func (c *checker) line(offset int) (start, end int) {
	offset = min(max(offset, 0), len(c.text))
	start = strings.LastIndexByte(c.text[:offset], '\n') + 1
	end = len(c.text)
	if i := strings.IndexByte(c.text[start:], '\n'); i >= 0 {
		end = start + i
	}
	if end > start && c.text[end-1] == '\r' {
		end--
	}
	return start, end
}

func (c *checker) err() error {
	if len(c.problems) == 0 {
		return nil
	}
	// The last of a list that was cut off says so and stays last.
	sorted := c.problems[:min(len(c.problems), maxProblems)]
	slices.SortStableFunc(sorted, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	p := Problems(c.problems)
	return &p
}
