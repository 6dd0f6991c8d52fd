package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// mutant is one deliberate bug.
type mutant struct {
	name     string
	rules    string
	breaks   string // what is broken, in one sentence
	caught   []int  // the levels that must notice
	by       string // the test that is known to notice, and is asked first; may be empty
	harmless string // or why nobody can be hurt
	model    string // the switch of the same bug in the model of level 6
	file     string // slash-separated, from the root
	patch    string // absolute
}

// pkg is the package that the mutant breaks.
func (m mutant) pkg() string { return "./" + path.Dir(m.file) }

// must reports whether a level has to catch the mutant.
func (m mutant) must(level int) bool { return slices.Contains(m.caught, level) }

// readAll reads every patch in a directory, in the order of their names.
func readAll(dir string) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var all []mutant
	var problems []error
	for _, p := range paths {
		m, err := read(p)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", p, err))
		}
		all = append(all, m)
	}
	slices.SortStableFunc(all, func(a, b mutant) int { return strings.Compare(a.file, b.file) })
	return all, errors.Join(problems...)
}

func read(p string) (m mutant, err error) {
	text, err := os.ReadFile(p)
	if err != nil {
		return m, err
	}
	if m.patch, err = filepath.Abs(p); err != nil {
		return m, err
	}
	m.name = strings.TrimSuffix(filepath.Base(p), ".patch")
	header, diff, ok := strings.Cut("\n"+string(text), "\n--- a/")
	if !ok || strings.Contains(diff, "\n--- ") {
		return m, errors.New("want the diff of one file, from a/ to b/")
	}
	m.file, _, _ = strings.Cut(diff, "\n")
	return m, m.readHeader(header)
}

func (m *mutant) readHeader(header string) error {
	unfolded := strings.ReplaceAll(header, "\n  ", " ") // a line that is indented goes on with the one before
	for line := range strings.Lines(strings.TrimPrefix(unfolded, "\n")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Rules":
			m.rules = value
		case "Breaks":
			m.breaks = value
		case "By":
			m.by = value
		case "Harmless":
			m.harmless = value
		case "Model":
			m.model = value
		case "Caught":
			for n := range strings.FieldsSeq(value) {
				if len(n) != 1 || !strings.Contains("123", n) {
					return fmt.Errorf("there is no level %q that runs here", n)
				}
				m.caught = append(m.caught, int(n[0]-'0'))
			}
		default:
			return fmt.Errorf("unknown line %q", line)
		}
	}
	return m.complete()
}

var rulesAre = regexp.MustCompile(`^R([1-9]|1[0-5])( R([1-9]|1[0-5]))*$`)

func (m *mutant) complete() error {
	switch {
	case !rulesAre.MatchString(m.rules):
		return fmt.Errorf("rules %q, want some of R1 to R15", m.rules)
	case !strings.HasSuffix(m.breaks, "."):
		return errors.New("Breaks wants a sentence")
	case (m.harmless == "") == (len(m.caught) == 0):
		return errors.New("want either Caught or Harmless")
	default:
		return nil
	}
}

// tree is the source tree, and a place for what is made of it.
type tree struct {
	root    string
	scratch string
	verbose bool

	mu     sync.Mutex
	normal map[command]float64 // guarded by mu: seconds that each command takes without a mutant
}

// check applies each mutant to the tree as it is, and compiles it.
func (t *tree) check(ctx context.Context, ms []mutant) error {
	compiler, err := t.newCompiler(ctx, ms)
	if err != nil {
		return err
	}
	var problems []error
	for _, m := range ms {
		_, err := t.overlay(m)
		if err == nil {
			err = compiler.check(t.original(m), t.mutated(m))
		}
		if err == nil && m.by != "" {
			err = compiler.hasTest(t.original(m), m.by)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	if len(problems) == 0 {
		fmt.Printf("mutants: %d are complete, apply and compile\n", len(ms))
	}
	return errors.Join(problems...)
}

func (t *tree) original(m mutant) string { return filepath.Join(t.root, filepath.FromSlash(m.file)) }

func (t *tree) mutated(m mutant) string {
	return filepath.Join(t.scratch, m.name, filepath.FromSlash(m.file))
}

// overlay makes the mutant's file, and the overlay that puts it into the original's
// place.
func (t *tree) overlay(m mutant) (string, error) {
	dir := filepath.Join(t.scratch, m.name)
	original, mutated := t.original(m), t.mutated(m)
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(mutated), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(mutated, text, 0o644); err != nil {
		return "", err
	}
	// git takes the context lines at their word, wherever they have moved to.
	apply := exec.Command("git", "apply", m.patch)
	apply.Dir = dir
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+t.scratch)
	if out, err := apply.CombinedOutput(); err != nil {
		return "", fmt.Errorf("it does not apply: %s", bytes.TrimSpace(out))
	}
	after, err := os.ReadFile(mutated)
	if err != nil || bytes.Equal(after, text) {
		return "", errors.Join(err, errors.New("it changes nothing"))
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutated}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, overlay, 0o644)
}
