package event

import "time"

// moment is a point of time in UTC. Its second is 60 in a leap second, which
// time.Time cannot hold.
type moment struct {
	year, month, day, hour, minute, second, nano int
}

const (
	wrongShape   = "must be an RFC 3339 time such as 2026-01-31T12:00:00.5Z or 2026-01-31T13:00:00.5+01:00"
	outsideYears = "is outside the years 0000 to 9999 in UTC"
)

// parseTimestamp reads an RFC 3339 time with any offset. T, t or a space may
// stand between date and time. The reason to refuse it is returned as text.
func parseTimestamp(s []byte) (m moment, reason string) {
	const shortest = len("2026-01-31T12:00:00Z")
	if len(s) < shortest || s[4] != '-' || s[7] != '-' || s[13] != ':' || s[16] != ':' ||
		s[10] != 'T' && s[10] != 't' && s[10] != ' ' {
		return m, wrongShape
	}
	digits := true
	number := func(lo, hi int) (n int) {
		for _, c := range s[lo:hi] {
			digits = digits && '0' <= c && c <= '9'
			n = n*10 + int(c) - '0'
		}
		return n
	}
	m.year, m.month, m.day = number(0, 4), number(5, 7), number(8, 10)
	m.hour, m.minute, m.second = number(11, 13), number(14, 16), number(17, 19)
	i := 19
	tooFine := false
	if s[i] == '.' {
		from := i + 1
		if i = skipDigits(s, from); i == from {
			return m, wrongShape
		}
		for p, unit := from, 100_000_000; p < i; p, unit = p+1, unit/10 {
			m.nano += unit * int(s[p]-'0')
			tooFine = tooFine || unit == 0 && s[p] != '0'
		}
	}
	offset := 0 // minutes
	switch rest := len(s) - i; {
	case rest == 1 && (s[i] == 'Z' || s[i] == 'z'):
	case rest == 6 && (s[i] == '+' || s[i] == '-') && s[i+3] == ':':
		h, min := number(i+1, i+3), number(i+4, i+6)
		if digits && (h > 23 || min > 59) {
			return m, "has an offset beyond 23:59"
		}
		if offset = h*60 + min; s[i] == '-' {
			offset = -offset
		}
	default:
		return m, wrongShape
	}
	switch {
	case !digits:
		return m, wrongShape
	case m.month < 1 || m.month > 12 || m.day < 1 || m.day > daysIn(m.year, m.month):
		return m, "names a day that no calendar has"
	case m.hour > 23 || m.minute > 59 || m.second > 60:
		return m, "names a time that no day has"
	case tooFine:
		return m, "is finer than a nanosecond; give at most 9 fraction digits, more would be lost"
	}
	if offset != 0 {
		t := time.Date(m.year, time.Month(m.month), m.day, m.hour, m.minute-offset, 0, 0, time.UTC)
		m.year, m.month, m.day = t.Year(), int(t.Month()), t.Day()
		m.hour, m.minute = t.Hour(), t.Minute()
		if m.year < 0 || m.year > 9999 {
			return m, outsideYears
		}
	}
	if m.second == 60 && (m.hour != 23 || m.minute != 59) {
		return m, "has second 60, which exists at 23:59 UTC only"
	}
	return m, ""
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// momentOf converts the time of a clock.
func momentOf(t time.Time) (m moment, reason string) {
	t = t.UTC()
	m = moment{t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond()}
	if m.year < 0 || m.year > 9999 {
		return m, outsideYears
	}
	return m, ""
}

// append writes the moment in its canonical form.
func (m moment) append(dst []byte) []byte {
	dst = appendDigits(dst, m.year, 4)
	dst = appendDigits(append(dst, '-'), m.month, 2)
	dst = appendDigits(append(dst, '-'), m.day, 2)
	dst = appendDigits(append(dst, 'T'), m.hour, 2)
	dst = appendDigits(append(dst, ':'), m.minute, 2)
	dst = appendDigits(append(dst, ':'), m.second, 2)
	switch {
	case m.nano == 0:
	case m.nano%1_000_000 == 0:
		dst = appendDigits(append(dst, '.'), m.nano/1_000_000, 3)
	case m.nano%1_000 == 0:
		dst = appendDigits(append(dst, '.'), m.nano/1_000, 6)
	default:
		dst = appendDigits(append(dst, '.'), m.nano, 9)
	}
	return append(dst, "+00:00"...)
}

func appendDigits(dst []byte, n, width int) []byte {
	for range width {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; n > 0; i, n = i-1, n/10 {
		dst[i] = byte('0' + n%10)
	}
	return dst
}
