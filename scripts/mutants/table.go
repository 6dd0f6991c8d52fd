package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
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

// published is the file with the table of all mutants, from the root.
const published = "coordinator/VERIFICATION.md"

// The markers between which rewrite puts the table.
const (
	beginMark = "<!-- mutants:begin -->"
	endMark   = "<!-- mutants:end -->"
)

// rewrite puts what a run has found between the two markers of a Markdown file. Where it
// ran some of the mutants only, the others' rows stay, and what is written above them.
func rewrite(path string, all []mutant, results []result, took time.Duration) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, table, after, err := cutTable(string(text))
	if err != nil {
		return fmt.Errorf("%s %w", path, err)
	}
	intro, _, _ := strings.Cut(table, tableHead)
	if len(results) == len(all) {
		intro = introduction(results, took)
	}
	rows := rowsOf(table)
	for _, r := range results {
		rows[r.mutant.name] = r.row()
	}
	var b strings.Builder
	b.WriteString(before + beginMark + intro + tableHead)
	for _, m := range all {
		b.WriteString(rows[m.name])
	}
	b.WriteString(endMark + after)
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// cutTable cuts a text at the two markers.
func cutTable(text string) (before, table, after string, err error) {
	before, rest, ok := strings.Cut(text, beginMark)
	table, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", "", "", fmt.Errorf("has no %s and %s", beginMark, endMark)
	}
	return before, table, after, nil
}

const tableHead = "| mutant | rules | what is broken | levels 0, 1 | level 2 | level 3 | level 6 |\n|---|---|---|---|---|---|---|\n"

func introduction(results []result, took time.Duration) string {
	c := count(results)
	return fmt.Sprintf("\n`make mutants` on %s, in %s: %d mutants, %d caught (%d by more than one level), %d harmless, %d failed.\n"+
		"A cell is the first test that failed, and the seconds until then; \"no\" means that the level passes, a dash that it does not run the code.\n\n",
		time.Now().UTC().Format(time.DateOnly), took.Round(time.Second), c.mutants, c.caught, c.twice, c.harmless, c.failed)
}

var nameInRow = regexp.MustCompile(`^\| \[([^]]+)\]`)

// rowsOf are the lines of a table of mutants, by their names.
func rowsOf(table string) map[string]string {
	rows := map[string]string{}
	for line := range strings.Lines(table) {
		if found := nameInRow.FindStringSubmatch(line); found != nil {
			rows[found[1]] = line
		}
	}
	return rows
}

// row is the mutant's line of the table.
func (r result) row() string {
	var b strings.Builder
	b.WriteString(r.mutant.beginsRow())
	for _, level := range levels {
		fmt.Fprintf(&b, " %s |", r.cell(level))
	}
	fmt.Fprintf(&b, " %s |\n", dashed(r.mutant.model))
	return b.String()
}

// beginsRow is what the row says of the mutant itself.
func (m mutant) beginsRow() string {
	what := m.breaks
	if m.harmless != "" {
		what += " Harmless: " + m.harmless
	}
	return fmt.Sprintf("| [%s](../scripts/mutants/patches/%s.patch) | %s | %s |", m.name, m.name, m.rules, what)
}

// checkTable compares the published table with the mutants that there are.
func checkTable(path string, all []mutant) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, table, _, err := cutTable(string(text))
	if err != nil {
		return fmt.Errorf("%s %w", path, err)
	}
	var problems []error
	rows := rowsOf(table)
	for _, m := range all {
		if !strings.HasPrefix(rows[m.name], m.beginsRow()) {
			problems = append(problems, fmt.Errorf("%s: it has no row in %s, or one that says something else: run make mutants MUTANTS='-only %s -markdown %s'",
				m.name, published, m.name, published))
		}
		delete(rows, m.name)
	}
	for name := range rows {
		problems = append(problems, fmt.Errorf("%s: it has a row in %s and no patch", name, published))
	}
	return errors.Join(problems...)
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
