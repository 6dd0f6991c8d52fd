package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is proven here: a mutant that has fallen behind the tree is told from one that
// still stands, whether it no longer applies, no longer compiles, names a test that is gone,
// or is missing in the published table.

const kept = `package kept

func Least(a, b int) int {
	if a < b {
		return a
	}
	return b
}
`

// The package's own tests are compiled with it.
const keptTest = `package kept

import "testing"

func TestLeast(t *testing.T) {
	if Least(1, 2) != 1 {
		t.Error("it is not the least")
	}
}
`

// greatest is a patch of kept with the lines of one hunk.
func greatest(lines ...string) string {
	return "Rules: R1\nBreaks: It is the greatest.\nCaught: 1\n--- a/kept/kept.go\n+++ b/kept/kept.go\n@@ -3,3 +3,3 @@\n" +
		strings.Join(lines, "\n") + "\n"
}

// condition is a patch that puts another condition in the place of one.
func condition(from, to string) string {
	return greatest(" func Least(a, b int) int {", "-\tif "+from+" {", "+\tif "+to+" {", " \t\treturn a")
}

func TestCheckFindsWhatFellBehind(t *testing.T) {
	tests := []struct{ name, patch, want string }{
		{"it stands", condition("a < b", "a > b"), ""},
		{"the line has changed", condition("a <= b", "a > b"), "does not apply"},
		{"a name is gone", condition("a < b", "a > lowest"), "undefined: lowest"},
		{"a type has changed", condition("a < b", "a > len(b)"), "invalid argument"},
		{"it is no Go", condition("a < b", "a >"), "does not compile"},
		{"a value is unused", condition("a < b", "c := a; a < b"), "declared and not used: c"},
		{"its tests no longer compile",
			greatest("-func Least(a, b int) int {", "+func Most(a, b int) int {", " \tif a < b {", " \t\treturn a"),
			"undefined: Least"},
		{"its test has another name", "By: TestMost\n" + condition("a < b", "a > b"), "no test TestMost"},
		{"its test is there", "By: TestLeast\n" + condition("a < b", "a > b"), ""},
		{"its test is outside of the package", "By: TestLeastOutside\n" + condition("a < b", "a > b"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, "go.mod"), "module example.com/kept\n\ngo 1.26.0\n")
			write(t, filepath.Join(root, "kept", "kept.go"), kept)
			write(t, filepath.Join(root, "kept", "kept_test.go"), keptTest)
			write(t, filepath.Join(root, "kept", "outside_test.go"), "package kept_test\n\nimport \"testing\"\n\nfunc TestLeastOutside(*testing.T) {}\n")
			write(t, filepath.Join(root, "patches", "greatest.patch"), tt.patch)
			all, err := readAll(filepath.Join(root, "patches"))
			if err != nil {
				t.Fatal(err)
			}
			tree := &tree{root: root, scratch: t.TempDir(), normal: map[command]float64{}}
			err = tree.check(t.Context(), all)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("check: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("check: %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestTableHoldsEveryMutant(t *testing.T) {
	all := []mutant{
		{name: "first", rules: "R1", breaks: "The first is broken.", caught: []int{1}},
		{name: "second", rules: "R2", breaks: "The second is broken.", caught: []int{1}},
	}
	results := func(ms ...mutant) (rs []result) {
		for _, m := range ms {
			rs = append(rs, result{mutant: m, levels: map[int]outcome{tests: {failed: true, by: "TestOf" + m.name}}})
		}
		return rs
	}
	page := filepath.Join(t.TempDir(), "page.md")
	check := func(want string) {
		t.Helper()
		err := checkTable(page, all)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("checkTable: %v, want %q in it", err, want)
		}
	}

	write(t, page, "Before.\n"+beginMark+"\n"+endMark+"\nAfter.\n")
	check("first: it has no row")
	mustRewrite := func(ms ...mutant) {
		t.Helper()
		if err := rewrite(page, all, results(ms...), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	mustRewrite(all[0])
	check("second: it has no row")
	mustRewrite(all[1]) // the first one's row stays
	check("")
	all[0].breaks = "The first is broken in another way."
	check("first: it has no row in coordinator/VERIFICATION.md, or one that says something else")
	mustRewrite(all...)
	check("")
	all = all[1:]
	check("first: it has a row")

	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Before.\n", "\nAfter.\n", "2 mutants, 2 caught", "| TestOfsecond, 0.0 s |"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
