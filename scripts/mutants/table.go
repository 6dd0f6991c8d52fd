package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func printList(w io.Writer, ms []mutant) {
	for _, m := range ms {
		fmt.Fprintf(w, "%-44s %-12s %s\n", m.name, m.rules, m.breaks)
	}
}

// printResult prints a mutant's lines of the table, as soon as they are known.
func printResult(w io.Writer, r result) {
	fmt.Fprintf(w, "\n%s  %s  %s\n", r.mutant.name, r.mutant.rules, r.mutant.breaks)
	for _, level := range levels {
		if o, ran := r.levels[level]; ran {
			fmt.Fprintf(w, "  level %-4s %s\n", title(level), o)
		}
	}
	switch p := r.problem(); {
	case p != "":
		fmt.Fprintf(w, "  FAILED     %s\n", p)
	case r.mutant.harmless != "":
		fmt.Fprintf(w, "  harmless   %s\n", r.mutant.harmless)
	}
}

func title(level int) string {
	if level == tests {
		return "0/1"
	}
	return fmt.Sprint(level)
}

func (o outcome) String() string {
	switch {
	case !o.failed:
		return "no"
	case o.timeout:
		return fmt.Sprintf("%s, timeout", o.by)
	default:
		return fmt.Sprintf("%s, %.1f s", o.by, o.seconds)
	}
}

// counts are the sums under the table.
type counts struct{ mutants, caught, harmless, failed, twice int }

func count(results []result) (c counts) {
	for _, r := range results {
		c.mutants++
		by := 0
		for _, o := range r.levels {
			if o.failed {
				by++
			}
		}
		switch {
		case r.problem() != "":
			c.failed++
		case r.mutant.harmless != "":
			c.harmless++
		default:
			c.caught++
		}
		if by > 1 {
			c.twice++
		}
	}
	return c
}

func printSummary(w io.Writer, results []result, took time.Duration) {
	c := count(results)
	fmt.Fprintf(w, "\nmutants: %d in %s: %d caught (%d by more than one level), %d harmless, %d FAILED\n",
		c.mutants, took.Round(time.Second), c.caught, c.twice, c.harmless, c.failed)
}

// The markers between which rewrite puts the table.
const (
	beginMark = "<!-- mutants:begin -->"
	endMark   = "<!-- mutants:end -->"
)

// rewrite replaces what stands between the two markers of a Markdown file.
func rewrite(path string, results []result, took time.Duration) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no %s and %s", path, beginMark, endMark)
	}
	var b bytes.Buffer
	b.WriteString(before + beginMark + "\n")
	markdown(&b, results, took)
	b.WriteString(endMark + after)
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// markdown writes the table.
func markdown(w io.Writer, results []result, took time.Duration) {
	c := count(results)
	fmt.Fprintf(w, "`make mutants` on %s, in %s: %d mutants, %d caught (%d by more than one level), %d harmless, %d failed.\n",
		time.Now().UTC().Format(time.DateOnly), took.Round(time.Second), c.mutants, c.caught, c.twice, c.harmless, c.failed)
	fmt.Fprint(w, "A cell is the first test that failed, and the seconds until then; \"no\" means that the level passes, a dash that it does not run the code.\n\n")
	fmt.Fprint(w, "| mutant | rules | what is broken | levels 0, 1 | level 2 | level 3 | level 6 |\n|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		what := r.mutant.breaks
		if r.mutant.harmless != "" {
			what += " Harmless: " + r.mutant.harmless
		}
		fmt.Fprintf(w, "| [%s](../scripts/mutants/patches/%s.patch) | %s | %s |", r.mutant.name, r.mutant.name, r.mutant.rules, what)
		for _, level := range levels {
			fmt.Fprintf(w, " %s |", r.cell(level))
		}
		fmt.Fprintf(w, " %s |\n", dashed(r.mutant.model))
	}
}

func (r result) cell(level int) string {
	if o, ran := r.levels[level]; ran {
		return o.String()
	}
	return "-"
}

func dashed(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
