package chaos

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/faults"
)

// What is proven here: the matrix is whole, its parts are what they are said to be,
// and its rows are the failpoints that the coordinator has; what a run found is
// shown, and a run that found something, or played nothing, does not pass. That
// cells do what they say is proven with real processes, in cmd/decree.

var update = flag.Bool("update", false, "write the golden files anew")

func TestCellsAreTheWholeMatrix(t *testing.T) {
	cells := Cells()
	if want := len(steps) * (len(columns()) - len(senseless)); len(cells) != want {
		t.Errorf("%d cells, want %d", len(cells), want)
	}
	seen := map[Cell]bool{}
	for _, c := range cells {
		if seen[c] {
			t.Errorf("%s is there twice", c)
		}
		seen[c] = true
		if senseless[column{c.Fault, c.Victim}] != "" {
			t.Errorf("%s says nothing", c)
		}
	}
}

// TestEachSliceHasEveryFaultAndStep holds what CI relies on, which plays one.
func TestEachSliceHasEveryFaultAndStep(t *testing.T) {
	for k := range steps {
		columnsSeen, stepsSeen := map[column]int{}, map[string]int{}
		for _, c := range slice(k) {
			columnsSeen[column{c.Fault, c.Victim}]++
			stepsSeen[c.Step]++
		}
		for _, c := range columns() {
			if want := map[bool]int{true: 1, false: 0}[senseless[c] == ""]; columnsSeen[c] != want {
				t.Errorf("slice %d has %v %d times, want %d", k, c, columnsSeen[c], want)
			}
		}
		for _, s := range steps {
			if stepsSeen[s.name] < 2 {
				t.Errorf("slice %d has %s %d times", k, s.name, stepsSeen[s.name])
			}
		}
	}
}

// TestStepsAreTheCoordinatorsFailpoints reads the code: a step that is renamed there
// would be waited for in vain here, and a new one forgotten.
func TestStepsAreTheCoordinatorsFailpoints(t *testing.T) {
	files, err := filepath.Glob("../../../coordinator/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files of the coordinator (%v)", len(files), err)
	}
	var there []string
	for _, path := range files {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`\bfailpoint\("([a-z-]+)"\)`).FindAllSubmatch(source, -1) {
			there = append(there, string(match[1]))
		}
	}
	here := names(steps, func(s step) string { return s.name })
	slices.Sort(here)
	slices.Sort(there)
	if !slices.Equal(here, there) {
		t.Errorf("the matrix has the steps %v, the coordinator the failpoints %v", here, there)
	}
}

func TestPick(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		want    int
		wrong   string
	}{
		{"after-votes/kill/leader", 1, ""},
		{"*/kill/leader", len(steps), ""},
		{"after-votes/*/leader", len(allFaults()), ""},
		{"*/*/*", len(Cells()), ""},
		{"after-votes", 0, "want step/fault/victim"},
		{"after-vote/kill/leader", 0, "steps are before-stage, after-stage"},
		{"*/pair/follower", 0, "there are none"},
		{"[/kill/leader", 0, "syntax error"},
	} {
		picked, err := pick(Cells(), tt.pattern)
		if len(picked) != tt.want || tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
			t.Errorf("%s picks %d cells (%v), want %d and %q", tt.pattern, len(picked), err, tt.want, tt.wrong)
		}
	}
}

func TestEveryMistakeAtOnce(t *testing.T) {
	err := Config{Only: "x", Slice: 9, Parts: -1, Failovers: -1, Round: -1, Budget: -1}.Validate()
	for _, want := range []string{"cells", "slice 9", "parts -1", "failovers -1", "round -1", "budget"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the whole matrix is refused: %v", err)
	}
}

// TestSpoken holds that the last line says by what the processes spoke, and that a cell is
// played again by the same.
func TestSpoken(t *testing.T) {
	for _, tt := range []struct {
		tls   bool
		want  string
		again string
	}{
		{false, "0 lost, 0 flipped, in plain text\n", "--round 0 --seed 7"},
		{true, "0 lost, 0 flipped, over mutual TLS; 3 certificates expired and were replaced\n", "--round 0 --seed 7 --tls"},
	} {
		r := &run{cfg: Config{Seed: 7, TLS: tt.tls}}
		r.result = newResult(r.cfg)
		r.result.add(Played{Cell: slice(0)[0]})
		r.result.Expired = 3
		r.result.end(time.Second)
		var shown bytes.Buffer
		r.result.print(&shown)
		if !strings.HasSuffix(shown.String(), tt.want) || !strings.HasSuffix(r.again(Played{Cell: slice(0)[0]}), tt.again) {
			t.Errorf("tls %t: again by %s, shown:\n%s", tt.tls, r.again(Played{}), shown.String())
		}
	}
}

// TestWhatIsMissingIsSkipped holds that a fault which needs nothing is never
// skipped, and one that needs something is where that is missing.
func TestWhatIsMissingIsSkipped(t *testing.T) {
	none := errors.New("not here")
	poor := faults.Means{Links: none, Fill: none, Power: none, Sync: none}
	for _, c := range Cells() {
		needsNothing := c.Fault == "kill" || c.Fault == "stop"
		if err := c.skip(poor); (err == nil) != needsNothing {
			t.Errorf("%s without any means: %v", c, err)
		}
		if err := c.skip(faults.Means{}); err != nil {
			t.Errorf("%s with all means: %v", c, err)
		}
	}
}

// someResult is one in which there is something of everything.
func someResult(require bool) *Result {
	r := newResult(Config{Seed: 7, Require: require})
	for _, c := range slice(0) {
		if c.Fault == "power" {
			r.skip(c, errors.New("mount: must be superuser"))
			r.skip(c, errors.New("mount: must be superuser")) // in the next round
			continue
		}
		p := Played{Cell: c, Transactions: 21, Committed: 15, Aborted: 6}
		if c.deposes() {
			p.Failovers = 1
		}
		r.add(p)
	}
	r.add(Played{Cell: slice(0)[0], Round: 1, Transactions: 10, Committed: 10, Failovers: 1})
	return r
}

func TestMatrixIsShown(t *testing.T) {
	r := someResult(false)
	wrong := Played{Cell: Cell{"after-votes", "eio", Leader}, Wrong: []string{"bank-a has committed t1, which is aborted"}}
	wrong.found = bank.Findings{Texts: wrong.Wrong, Count: 1}
	r.add(wrong)
	r.end(90 * time.Second)
	var shown bytes.Buffer
	r.print(&shown)
	golden := filepath.Join("testdata", "matrix.txt")
	if *update {
		if err := os.WriteFile(golden, shown.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(shown.Bytes(), want) {
		t.Errorf("shown:\n%s\nwant:\n%s", shown.String(), want)
	}
}

func TestVerdicts(t *testing.T) {
	few := someResult(false)
	few.wanted = few.Failovers + 1
	nothing := newResult(Config{})
	nothing.skip(slice(0)[0], errors.New("no"))
	wrong := someResult(false)
	wrong.add(Played{Cell: slice(0)[0], Wrong: []string{"x"}, found: bank.Findings{Texts: []string{"x"}, Count: 3}})
	for _, tt := range []struct {
		name   string
		r      *Result
		passed bool
		want   string
	}{
		{"clean, some skipped", someResult(false), true, "0 lost, 0 flipped"},
		{"clean, skipped ones are required", someResult(true), false, "3 cells were required and skipped"},
		{"all skipped", nothing, true, "no cell can be played on this machine"},
		{"nothing played", newResult(Config{}), false, "no cell was played"},
		{"too few failovers", few, false, "8 failovers, 9 were wanted"},
		{"a failed one", wrong, false, "3 findings in 1 of 30 plays"},
	} {
		tt.r.end(time.Second)
		if tt.r.Passed != tt.passed || tt.r.verdict() != tt.want {
			t.Errorf("%s: passed %t, %q; want %t, %q", tt.name, tt.r.Passed, tt.r.verdict(), tt.passed, tt.want)
		}
	}
}
