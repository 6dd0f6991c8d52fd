package main

import (
	"strings"
	"testing"
)

// What is proven here: columns stand under one another on a terminal whatever is in
// them, colours take no room, and nothing from outside chooses a colour.

func TestTable(t *testing.T) {
	rows := [][]string{
		{"n1", "leader", "7", "ok"},
		{"日本", "catching up", "1234", ""},
		{"é", "", "", "x\x1b[31my"},
	}
	tests := []struct {
		name   string
		tinted bool
		want   string
	}{
		{"plain", false, `
NODE  ROLE         APPLIED  VERSION
n1    leader             7  ok
日本  catching up     1234  -
é     -                  -  x\x1b[31my
`},
		{"in colour", true, `
[1mNODE[0m  [1mROLE[0m         [1mAPPLIED[0m  [1mVERSION[0m
n1    [32mleader[0m             7  ok
日本  [33mcatching up[0m     1234  -
é     -                  -  x\x1b[31my
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			p := &printer{w: &b, tinted: tt.tinted}
			p.table([]string{"NODE", "ROLE", "APPLIED", "VERSION"}, rows)
			got := strings.ReplaceAll(b.String(), "\x1b", "")
			if want := strings.TrimPrefix(tt.want, "\n"); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestFieldsInColour(t *testing.T) {
	var b strings.Builder
	p := &printer{w: &b, tinted: true}
	p.fields("state", "committing (committed, delivery pending)", "reason", "", "damage", "heuristic-commit")
	want := "state   \x1b[33mcommitting (committed, delivery pending)\x1b[0m\ndamage  \x1b[31mheuristic-commit\x1b[0m\n"
	if got := b.String(); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestColouring(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	for when, want := range map[colouring]bool{colourAuto: false, colourNever: false, colourAlways: true, "": false} {
		if got := when.on(&strings.Builder{}); got != want {
			t.Errorf("%q into a file: %v, want %v", when, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		text   string
		places int
		want   string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"日本語", 6, "日本語"}, {"日本語", 5, "日本…"}, {"日本語", 4, "日…"}, {"a", 0, "…"},
	} {
		if got := cut(tt.text, tt.places); got != tt.want {
			t.Errorf("cut(%q, %d) is %q, want %q", tt.text, tt.places, got, tt.want)
		}
	}
}
