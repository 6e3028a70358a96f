package event

import "strconv"

// MaxNumberLen is the longest number that is read, in bytes. strconv counts
// at most 800 digits before the decimal point: it reads a 1 with 3000 zeros
// and e-3000 as 0. No float64 has more than 767 significant digits, so what
// is refused here is refused rather than misread.
const MaxNumberLen = 800

// number reads the number at at into node n and returns the offset behind it.
func (d *doc) number(n int32, at int) (int, *Error) {
	in := d.in
	i := at
	if in[i] == '-' {
		i++
	}
	digits := i
	if i = skipDigits(in, i); i == digits {
		return 0, fault(i, "a digit must stand here")
	}
	if in[digits] == '0' && i > digits+1 {
		return 0, fault(digits, "a number must not begin with 0 and another digit")
	}
	integer := true
	if i < len(in) && in[i] == '.' {
		integer = false
		from := i + 1
		if i = skipDigits(in, from); i == from {
			return 0, fault(i, "a digit must follow the decimal point")
		}
	}
	if i < len(in) && (in[i] == 'e' || in[i] == 'E') {
		integer = false
		if i++; i < len(in) && (in[i] == '+' || in[i] == '-') {
			i++
		}
		from := i
		if i = skipDigits(in, from); i == from {
			return 0, fault(i, "a digit must stand in the exponent")
		}
	}
	if i-at > MaxNumberLen {
		return 0, fault(at, "the number is %d bytes long; at most %d are read", i-at, MaxNumberLen)
	}
	self := &d.nodes[n]
	self.kind = kindNumber
	if integer && fits64(in[at:i]) {
		self.text = span{int32(at), int32(i)}
		return i, nil
	}
	f, err := strconv.ParseFloat(string(in[at:i]), 64)
	if err != nil {
		return 0, fault(at, "the number %s is out of the range of a float64", clip(string(in[at:i]), shownText))
	}
	lo := len(d.side)
	d.side = appendFloat(d.side, f)
	self.text, self.textSide = span{int32(lo), int32(len(d.side))}, true
	return i, nil
}

func skipDigits(in []byte, i int) int {
	for i < len(in) && '0' <= in[i] && in[i] <= '9' {
		i++
	}
	return i
}

// fits64 tells whether the integer text is an int64 or a uint64. "-0" is
// neither: it has a sign that an integer would lose.
func fits64(text []byte) bool {
	if text[0] == '-' {
		if text[1] == '0' {
			return false
		}
		_, err := strconv.ParseInt(string(text), 10, 64)
		return err == nil
	}
	_, err := strconv.ParseUint(string(text), 10, 64)
	return err == nil
}

// appendFloat writes a finite float64 with the fewest digits that read back
// as the same value, in the form that the source system's serializer chooses:
// written out while the integer part has at most 16 digits or the fraction
// begins with at most four zeros, else with an exponent.
func appendFloat(dst []byte, f float64) []byte {
	var buf [32]byte
	text := strconv.AppendFloat(buf[:0], f, 'e', -1, 64) // -d.ddde±dd
	if text[0] == '-' {
		dst = append(dst, '-')
		text = text[1:]
	}
	if f == 0 {
		return append(dst, "0.0"...)
	}
	digits, i := text[:1], 1
	if text[1] == '.' {
		i = skipDigits(text, 2)
		copy(text[1:], text[2:i])
		digits = text[:i-1]
	}
	exponent := 0
	for _, c := range text[i+2:] {
		exponent = exponent*10 + int(c-'0')
	}
	if text[i+1] == '-' {
		exponent = -exponent
	}
	point := exponent + 1 // digits before the decimal point
	switch {
	case len(digits) <= point && point <= 16:
		dst = append(dst, digits...)
		for range point - len(digits) {
			dst = append(dst, '0')
		}
		return append(dst, ".0"...)
	case 0 < point && point <= 16:
		dst = append(dst, digits[:point]...)
		dst = append(dst, '.')
		return append(dst, digits[point:]...)
	case -5 < point && point <= 0:
		dst = append(dst, "0."...)
		for range -point {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	dst = append(dst, digits[0])
	if len(digits) > 1 {
		dst = append(dst, '.')
		dst = append(dst, digits[1:]...)
	}
	dst = append(dst, 'e')
	return strconv.AppendInt(dst, int64(exponent), 10)
}
