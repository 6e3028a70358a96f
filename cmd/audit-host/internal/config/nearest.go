package config

import (
	"slices"
	"strings"
)

// Nearest returns the candidate that word was probably meant to be, or "".
func Nearest(word string, candidates []string) string {
	const longest = 64
	word = strings.TrimSpace(word)
	if word == "" || len(word) > longest {
		return ""
	}
	plain := strings.ReplaceAll(strings.ToLower(word), "-", "_")
	best, bestCost := "", 1+max(1, len(plain)/3)
	for _, candidate := range candidates {
		other := strings.ReplaceAll(strings.ToLower(candidate), "-", "_")
		cost := distance(plain, other)
		// A long beginning counts as a near miss: warning for warn.
		if len(plain) >= 3 && len(other) >= 3 && (strings.HasPrefix(plain, other) || strings.HasPrefix(other, plain)) {
			cost = min(cost, 1)
		}
		if cost < bestCost {
			best, bestCost = candidate, cost
		}
	}
	return best
}

// distance counts the bytes to insert, delete, replace or swap with their
// neighbour to turn a into b (optimal string alignment).
func distance(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		above := slices.Clone(row)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before = above
	}
	return row[len(b)]
}
