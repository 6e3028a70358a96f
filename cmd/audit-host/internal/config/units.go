package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes.
type Size int64

// Units of sizes.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

var units = []struct {
	name string
	size Size
}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}}

// String writes the size with the largest unit that leaves a whole number, in
// the form that [ParseSize] reads: "64MiB", "1500B".
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return "0B"
}

var sizeForm = regexp.MustCompile(`^(-?[0-9]+)(B|KiB|MiB|GiB|TiB)?$`)

// ParseSize reads a whole number with a unit of B, KiB, MiB, GiB or TiB, or
// without one, which means bytes.
func ParseSize(text string) (Size, error) {
	m := sizeForm.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf(`%q is not a size such as "64MiB"`, text)
	}
	unit := Size(1)
	for _, u := range units {
		if m[2] == u.name {
			unit = u.size
		}
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64/int64(unit) || n < math.MinInt64/int64(unit) {
		return 0, fmt.Errorf("the size %q does not fit in 64 bits", text)
	}
	return Size(n) * unit, nil
}

var quantity = regexp.MustCompile(`^([0-9]+)([a-z]*)$`)

// spell splits a quantity written in another way ("64 mb") into the number and
// the unit in lower case.
func spell(text string) (number, unit string) {
	m := quantity.FindStringSubmatch(strings.ToLower(strings.Join(strings.Fields(text), "")))
	if m == nil {
		return "", "none"
	}
	return m[1], m[2]
}

// meantSize returns the size that a text, which is none, was probably meant to
// be, or "".
func meantSize(text string) string {
	number, unit := spell(text)
	for _, u := range units {
		name := strings.ToLower(u.name)
		if unit == name || unit != "" && (unit == name[:1] || unit == name[:1]+"b") || u.size == 1 && (unit == "byte" || unit == "bytes") {
			if _, err := ParseSize(number + u.name); err == nil { // not too large
				return number + u.name
			}
		}
	}
	return ""
}

// spellings are those of the units of durations.
var spellings = map[string]string{
	"": "s", "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
	"ms": "ms", "msec": "ms", "millisecond": "ms", "milliseconds": "ms",
	"m": "m", "min": "m", "mins": "m", "minute": "m", "minutes": "m",
	"h": "h", "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
}

// meantDuration returns the duration that a text, which is none, was probably
// meant to be, or "".
func meantDuration(text string) string {
	number, unit := spell(text)
	if days, err := strconv.ParseInt(number, 10, 32); err == nil && (unit == "d" || unit == "day" || unit == "days") {
		number, unit = strconv.FormatInt(24*days, 10), "h"
	}
	meant := number + spellings[unit]
	if _, err := time.ParseDuration(meant); err != nil || spellings[unit] == "" {
		return ""
	}
	return meant
}

var zeros = regexp.MustCompile(`([hm])0[ms](0s)?$`)

// short writes a duration as a person would: "1m" instead of "1m0s".
func short(d time.Duration) string { return zeros.ReplaceAllString(d.String(), "$1") }
