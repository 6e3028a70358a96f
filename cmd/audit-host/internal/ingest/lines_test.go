package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadLines(t *testing.T) {
	const most = 70_000 // more than the reader's buffer
	full := strings.Repeat("f", most)
	buffer := strings.Repeat("b", 64<<10) // exactly the reader's buffer
	for _, c := range []struct {
		name, text string
		want       []string
		tooLong    []string
	}{
		{"empty", "", nil, nil},
		{"one without an end", "a", []string{"1:a"}, nil},
		{"one", "a\n", []string{"1:a"}, nil},
		{"carriage returns", "a\r\nb\r\r\n c \r\n", []string{"1:a", "2:b\r", "3: c "}, nil},
		{"blank", "\n\r\n \t\nx\n\n", []string{"4:x"}, nil},
		{"as long as can be", full + "\n" + full + "\r\n" + full, []string{"1:" + full, "2:" + full, "3:" + full}, nil},
		{"as long as the buffer", buffer + "\nx\n" + buffer[1:] + "\ny", []string{"1:" + buffer, "2:x", "3:" + buffer[1:], "4:y"}, nil},
		{"one byte more", full + "x\na\n" + full + "x\r\nb\n" + full + "x", []string{"2:a", "4:b"}, []string{"1:70002", "3:70003", "5:70001"}},
		{"far too long", "a\n" + strings.Repeat(full, 9) + "\nb\n" + strings.Repeat(full, 9), []string{"1:a", "3:b"}, []string{"2:630001", "4:630000"}},
	} {
		for kind, r := range map[string]io.Reader{
			"whole": strings.NewReader(c.text),
			"halve": iotest.HalfReader(strings.NewReader(c.text)),
			"error": iotest.DataErrReader(strings.NewReader(c.text)),
		} {
			var got, tooLong []string
			err := ReadLines(t.Context(), r, LinesOptions{MaxLine: most, TooLong: func(line int, length int64) error {
				tooLong = append(tooLong, fmt.Sprint(line, ":", length))
				return nil
			}}, func(line int, raw []byte) error {
				got = append(got, fmt.Sprint(line, ":", string(raw)))
				return nil
			})
			if err != nil || !slices.Equal(got, c.want) || !slices.Equal(tooLong, c.tooLong) {
				t.Errorf("%s, %s: %v, %d lines, too long %v, want %d lines, too long %v", c.name, kind, err, len(got), tooLong, len(c.want), c.tooLong)
			}
		}
	}
}

func TestReadLinesStops(t *testing.T) {
	mine := errors.New("mine")
	seen := 0
	f := func(int, []byte) error { seen++; return nil }

	if err := ReadLines(t.Context(), strings.NewReader("a\nb\n"), LinesOptions{}, func(line int, _ []byte) error { return mine }); err != mine {
		t.Errorf("error of f: %v", err)
	}
	err := ReadLines(t.Context(), strings.NewReader("abc\nd\n"), LinesOptions{MaxLine: 2, TooLong: func(int, int64) error { return mine }}, f)
	if err != mine || seen != 0 {
		t.Errorf("error of TooLong: %v after %d lines", err, seen)
	}
	if err := ReadLines(t.Context(), strings.NewReader("abc\nd\n"), LinesOptions{MaxLine: 2}, f); err != nil || seen != 1 {
		t.Errorf("TooLong nil: %v after %d lines", err, seen)
	}
	err = ReadLines(t.Context(), io.MultiReader(strings.NewReader("a\nhalf"), iotest.ErrReader(mine)), LinesOptions{}, f)
	if !errors.Is(err, mine) || !strings.Contains(err.Error(), "read line 2") || seen != 2 {
		t.Errorf("error of the reader: %v after %d lines", err, seen)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = ReadLines(ctx, strings.NewReader("a\nb\nc\n"), LinesOptions{}, func(line int, _ []byte) error {
		if seen = line; line == 2 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || seen != 2 {
		t.Errorf("context: %v after line %d", err, seen)
	}
}

// 100,000 lines and one endless line cost the same memory as a few.
func TestReadLinesConstantMemory(t *testing.T) {
	line := []byte(`{"id":"x"}` + "\n")
	r := io.MultiReader(&cycle{text: line, n: 50_000}, &cycle{text: []byte(strings.Repeat("x", 1<<20)), n: 256},
		strings.NewReader("\n"), &cycle{text: line, n: 50_000})
	n, tooLong := 0, int64(0)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := ReadLines(t.Context(), r, LinesOptions{TooLong: func(_ int, length int64) error { tooLong = length; return nil }},
		func(int, []byte) error { n++; return nil })
	runtime.ReadMemStats(&after)
	if err != nil || n != 100_000 || tooLong != 256<<20+1 {
		t.Fatalf("%v, %d lines, the longest %d", err, n, tooLong)
	}
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(8<<20); got > most {
		t.Errorf("allocated %d bytes in all, at most %d are due", got, most)
	}
}
