package main

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// columnGap separates columns.
const columnGap = "  "

// cell is one place of a table: text that is safe to show, and its colour.
type cell struct {
	text string
	tint tint
}

// layOut puts rows into columns that are as wide as their widest cell on a terminal.
// A column of numbers stands to the
// right, unless it is the first, which names the row. Lines have no spaces at their ends.
func layOut(rows [][]cell, tinted bool) []byte {
	widths, toRight := measure(rows)
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		pending := "" // spaces that only matter when something follows
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-displayWidth(c.text))
			if toRight[i] {
				pending, pad = pending+pad, ""
			}
			if c.text != "" {
				line.WriteString(pending)
				pending = ""
				if tinted {
					line.WriteString(c.tint.paint(c.text))
				} else {
					line.WriteString(c.text)
				}
			}
			pending += pad + columnGap
		}
		b.WriteString(line.String() + "\n")
	}
	return []byte(b.String())
}

// measure gives each column's width, and whether it holds numbers below its first row.
func measure(rows [][]cell) (widths []int, toRight []bool) {
	numbers := map[int]int{}
	words := map[int]bool{}
	for r, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], displayWidth(c.text))
			switch {
			case r == 0 || c.text == emptyCell:
			case isNumber(c.text):
				numbers[i]++
			default:
				words[i] = true
			}
		}
	}
	toRight = make([]bool, len(widths))
	for i := range widths {
		toRight[i] = i > 0 && numbers[i] > 0 && !words[i]
	}
	return widths, toRight
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// displayWidth is how many places text takes on a terminal: two for a wide rune of
// East Asia, none for a mark that joins the rune before it.
func displayWidth(s string) int {
	places := 0
	for _, r := range s {
		switch {
		case r < unicode.MaxLatin1:
			places++
		case unicode.In(r, unicode.Mn, unicode.Me):
		case width.LookupRune(r).Kind() == width.EastAsianWide, width.LookupRune(r).Kind() == width.EastAsianFullwidth:
			places += 2
		default:
			places++
		}
	}
	return places
}

// cut shortens text to so many places on a terminal.
func cut(s string, places int) string {
	if displayWidth(s) <= places {
		return s
	}
	var b strings.Builder
	taken := 0
	for _, r := range s {
		w := displayWidth(string(r))
		if taken+w > places-1 {
			break
		}
		taken += w
		b.WriteRune(r)
	}
	return b.String() + "…"
}
