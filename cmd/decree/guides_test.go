package main

// What is proven here: every decree command in the guides is one that this binary has,
// with flags that it knows, as many arguments as it takes, and settings that there are.

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// inCode are the commands in the middle of a sentence. Words that stand for something
// are in capitals, and dots for more.
var inCode = regexp.MustCompile("`(?:bin/)?(decree [a-z][^`]*)`")

// guideCommands are the decree commands of a page, without what the shell does to them.
func guideCommands(page string) []string {
	var commands []string
	for i, block := range strings.Split(page, "```") {
		if i%2 == 0 {
			for _, m := range inCode.FindAllStringSubmatch(block, -1) {
				commands = append(commands, strings.Join(strings.Fields(m[1]), " "))
			}
			continue
		}
		code, ok := strings.CutPrefix(block, "sh\n")
		if !ok {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(code, "\\\n", " ")) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "bin/")
			if strings.HasPrefix(line, "decree ") {
				commands = append(commands, line)
			}
		}
	}
	return commands
}

// words splits a command as a shell does, up to what is not the command's.
func words(command string) []string {
	var all []string
	for command = strings.TrimSpace(command); command != ""; command = strings.TrimSpace(command) {
		var word strings.Builder
		quoted := rune(0)
		end := len(command)
		for i, r := range command {
			if quoted == 0 && (r == ' ' || r == '\n') {
				end = i
				break
			}
			switch {
			case quoted == 0 && (r == '\'' || r == '"'):
				quoted = r
			case r == quoted:
				quoted = 0
			default:
				word.WriteRune(r)
			}
		}
		if w := word.String(); w == "#" || w == "&" || w == "|" || w == ">" || w == "&&" || w == ";" {
			return all
		} else if w != "..." {
			all = append(all, strings.TrimRight(w, ";"))
		}
		command = command[end:]
	}
	return all
}

// understood is nil where this binary understands the command; it is not run.
func understood(command string) error {
	args := words(command)[1:]
	for i, a := range args { // a value that a sentence leaves open
		if a == "N" {
			args[i] = "1"
		}
	}
	root := (&program{out: &printer{format: formatTable}}).command()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		if last := rest[len(rest)-1]; strings.HasPrefix(last, "--") && cmd.Flags().Lookup(last[2:]) != nil {
			return nil // a flag that a sentence names, without its value
		}
		return err
	}
	if help, err := cmd.Flags().GetBool("help"); err == nil && help {
		return nil
	}
	left := cmd.Flags().Args()
	if cmd.Args == nil || strings.HasPrefix(command, "decree ") && len(left) == 0 {
		return nil // named in a sentence, without what it is about
	}
	return cmd.Args(cmd, left)
}

func TestGuidesNameCommandsThatThereAre(t *testing.T) {
	root := filepath.Join("..", "..")
	found := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".." || entry.Name() == "testdata" || entry.Name() == "node_modules") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".md") {
			return nil
		}
		page, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, command := range guideCommands(string(page)) {
			found++
			if err := understood(command); err != nil {
				t.Errorf("%s: %s\n\t%v", path, command, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 30 {
		t.Errorf("%d commands were found: the search is blind", found)
	}
	t.Logf("%d commands", found)
}

func TestGuideCheckerComplains(t *testing.T) {
	page := "Ask `decree cluster\nstatus --watch`:\n```sh\nbin/decree tx submit --branch a='{\"x\": 1}' \\\n  --wait decision # comment\nls\n```\n"
	got := guideCommands(page)
	if len(got) != 2 || got[0] != "decree cluster status --watch" || !strings.HasPrefix(got[1], "decree tx submit") {
		t.Fatalf("%q", got)
	}
	if w := words(got[1]); len(w) != 7 || w[4] != `a={"x": 1}` {
		t.Errorf("%q", w)
	}
	for command, right := range map[string]bool{
		"decree cluster status":       true,
		"decree cluster statuss":      false,
		"decree tx list --damaged":    true,
		"decree tx list --damagd":     false,
		"decree bank --faults":        true,
		"decree bank --fault":         false,
		"decree cluster add n4":       false,
		"decree cluster add n4 a:1":   true,
		"decree server --no-such 1":   false,
		"decree server --node-id n1":  true,
		"decree tx show TXID":         true,
		"decree tx show TXID another": false,
	} {
		if err := understood(command); (err == nil) != right {
			t.Errorf("%s: %v", command, err)
		}
	}
}
