package main

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// colouring is when results are coloured.
type colouring string

const (
	colourAuto   colouring = "auto" // on a terminal, unless NO_COLOR says not to
	colourAlways colouring = "always"
	colourNever  colouring = "never"
)

var colourings = []string{string(colourAuto), string(colourAlways), string(colourNever)}

func (c *colouring) String() string     { return string(cmp.Or(*c, colourAuto)) }
func (c *colouring) Type() string       { return "when" }
func (c *colouring) Set(s string) error { *c = colouring(s); return nil }

// on tells whether what is written to w is to be coloured. NO_COLOR is heeded as
// https://no-color.org has it: set to anything, it turns colour off by default, and a
// flag turns it on again.
func (c colouring) on(w io.Writer) bool {
	switch c {
	case colourAlways:
		return true
	case colourNever:
		return false
	default:
		return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
	}
}

// check reports a colouring that is none.
func (c colouring) check() error {
	switch c {
	case "", colourAuto, colourAlways, colourNever:
		return nil
	default:
		return fmt.Errorf("--color %q: want auto, always or never", string(c))
	}
}

func isTerminal(w io.Writer) bool {
	f, isFile := w.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd())) //nolint:gosec // a file descriptor is small
}

// tint is a colour of the terminal's own palette, so that it fits a dark background
// and a light one; the zero tint is none.
type tint string

const (
	plain  tint = ""
	bold   tint = "1"
	faint  tint = "2"
	red    tint = "31"
	green  tint = "32"
	yellow tint = "33"
)

func (t tint) paint(s string) string {
	if t == plain || s == "" {
		return s
	}
	return "\x1b[" + string(t) + "m" + s + "\x1b[0m"
}

// tints are the colours of the words that people look for, by the column or the field
// that they stand in: what comes from outside colours nothing.
var tints = map[string]map[string]tint{
	"state":     {"committed": green, "aborted": faint, "active": yellow, "preparing": yellow, "committing": yellow, "aborting": yellow},
	"outcome":   {"committed": green, "aborted": faint, "undecided": yellow},
	"role":      {"leader": green, "catching up": yellow, "not a member": red},
	"receipt":   {"heuristic-commit": red, "heuristic-abort": red, "heuristic-hazard": red},
	"reachable": {"yes": green, "no": red},
	"result":    {"ok": green, "warn": yellow, "fail": red, "skip": faint},
}

// warnings are columns and fields whose every content is bad news.
var warnings = map[string]bool{"error": true, "last error": true, "damage": true}

// tintOf is the colour of a cell by the name of its column, in small letters.
func tintOf(column, cell string) tint {
	if warnings[column] && cell != "" {
		return red
	}
	return tints[column][cell]
}
