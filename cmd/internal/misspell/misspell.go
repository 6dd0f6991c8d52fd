// Package misspell guesses what somebody meant to type.
package misspell

import "strings"

// maxDistance is how many letters may be wrong: with more of them short names become
// guesses for one another.
const maxDistance = 2

// Near gives the known word that is closest to the one typed: at most two letters
// added, left out or changed (two neighbours that changed places are one), and fewer
// than half of them; or else the shortest that begins with it. It is empty where
// none is near. The first of equals wins.
func Near(typed string, known []string) string {
	typed = strings.ToLower(typed)
	best, least := "", min(maxDistance, (len(typed)-1)/2)+1
	for _, word := range known {
		if d := distance(typed, strings.ToLower(word)); d < least {
			best, least = word, d
		}
	}
	if best != "" || typed == "" {
		return best
	}
	for _, word := range known {
		if strings.HasPrefix(strings.ToLower(word), typed) && (best == "" || len(word) < len(best)) {
			best = word
		}
	}
	return best
}

// distance counts the edits between a and b, in bytes: names are ASCII. It is the
// optimal string alignment distance: Levenshtein's with transpositions of neighbours.
func distance(a, b string) int {
	var before []int // two rows up
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			change := row[j]
			if a[i] != b[j] {
				change++
			}
			next[j+1] = min(change, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
