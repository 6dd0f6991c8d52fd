package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// What is proven here: the whole tree of commands reads as one hand: each says what it
// is for and how it is called, flags of one name are of one kind everywhere, JSON is JSON
// whatever happens, and every command has a page that man takes.

// tree is every command that people are shown.
func tree(t *testing.T) []*cobra.Command {
	t.Helper()
	p := &program{stdin: strings.NewReader(""), out: &printer{w: &bytes.Buffer{}}, stderr: &bytes.Buffer{}}
	var all []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		all = append(all, cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	root := p.command()
	p.complete(root)
	walk(root)
	return all
}

// topic tells help that belongs to no command.
func topic(cmd *cobra.Command) bool { return !cmd.Runnable() && !cmd.HasSubCommands() }

var commandName = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

func TestEveryCommandExplainsItself(t *testing.T) {
	for _, cmd := range tree(t) {
		path := cmd.CommandPath()
		complain := func(what string) { t.Errorf("%s: %s", path, what) }
		if !commandName.MatchString(cmd.Name()) {
			complain("its name is not of small letters and dashes")
		}
		if s := cmd.Short; s == "" || strings.HasSuffix(s, ".") || !unicode.IsLower([]rune(s)[0]) {
			complain("Short is to begin small and to end without a full stop: " + cmd.Short)
		}
		if len(cmd.Short) > 70 {
			complain("Short is too long for a list: " + cmd.Short)
		}
		if cmd.Runnable() && !cmd.HasSubCommands() && cmd.Long == "" && cmd.Example == "" {
			complain("has neither Long nor Example")
		}
		for line := range strings.SplitSeq(cmd.Long+"\n"+cmd.Example, "\n") {
			if len([]rune(line)) > 100 && !strings.Contains(line, "decree ") {
				complain("a line of help is longer than 100 letters: " + line)
			}
		}
		for line := range strings.Lines(cmd.Example) {
			if !strings.HasPrefix(line, "  ") {
				complain("an example is not indented by two: " + line)
			}
		}
		if words := strings.Fields(cmd.Use)[1:]; len(words) > 0 && cmd.Runnable() && cmd.ValidArgsFunction == nil {
			complain("has arguments, and no completion")
		}
	}
}

func TestEveryFlagExplainsItself(t *testing.T) {
	type kind struct{ path, kind, shorthand string }
	known := map[string]kind{}
	for _, cmd := range tree(t) {
		if topic(cmd) {
			continue
		}
		usages := map[string]string{}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			where := cmd.CommandPath() + " --" + f.Name
			_, usage := pflag.UnquoteUsage(f)
			if usage == "" || strings.HasSuffix(usage, ".") {
				t.Errorf("%s: says %q", where, usage)
			}
			if other, twice := usages[usage]; twice {
				t.Errorf("%s: says what --%s says: two flags for one thing?", where, other)
			}
			usages[usage] = f.Name
			if !commandName.MatchString(f.Name) {
				t.Errorf("%s: its name is not of small letters and dashes", where)
			}
			k := kind{cmd.CommandPath(), f.Value.Type(), f.Shorthand}
			first, seen := known[f.Name]
			if seen && first.shorthand != k.shorthand {
				t.Errorf("%s: has the short form %q, of %s it is %q", where, k.shorthand, first.path, first.shorthand)
			}
			if !seen {
				known[f.Name] = k
			}
		})
	}
}

// forever are the commands that go on, or start processes: their JSON is tested where
// they are.
var forever = map[string]bool{
	"decree dev": true, "decree bank": true, "decree bench": true, "decree participant sim": true,
	"decree participant kv": true, "decree server": true, "decree completion": true,
}

// arguments fit the words of lines of usage.
var arguments = map[string]string{
	"TXID": someTxID, "NAME": "orders", "ID": "n2", "RAFT-ADDRESS": "127.0.0.1:1", "FILE": "nowhere", "ROLE": "client",
	"LEVEL": "debug", "DIR": "",
}

func skippedInTree(cmd *cobra.Command) bool {
	return !cmd.Runnable() || cmd.HasSubCommands() || cmd.Name() == "help" ||
		forever[cmd.CommandPath()] || forever[cmd.Parent().CommandPath()]
}

// argumentsFor is a command line on which a command gets as far as it can.
func argumentsFor(cmd *cobra.Command) []string {
	args := strings.Fields(cmd.CommandPath())[1:]
	for _, word := range strings.Fields(cmd.Use)[1:] {
		if argument := arguments[strings.Trim(word, "[].")]; argument != "" {
			args = append(args, argument)
		}
	}
	if cmd.Flag("patience") != nil {
		args = append(args, "--patience", "5s")
	}
	return args
}

// TestJSONWhateverHappens runs every command with arguments that fit, against a node that
// answers and one that refuses: what comes out is JSON, line by line, on stdout and on
// stderr.
func TestJSONWhateverHappens(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, cmd := range tree(t) {
		if skippedInTree(cmd) {
			continue
		}
		args := append(argumentsFor(cmd), "-o", "json")
		for name, node := range map[string]*fakeNode{
			"answers": {
				result: committed, transaction: someTransaction(), check: &decreev1.CheckResponse{Reachable: true},
				status: &decreev1.StatusResponse{Cluster: "c1", Node: "n1", Leader: "n1"},
			},
			"refuses": {refusal: refuse(5, "NOT_FOUND", "no such thing\x1b[2J")},
		} {
			t.Run(cmd.CommandPath()+" "+name, func(t *testing.T) {
				t.Setenv(endpointsEnv, node.serve(t))
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				var stdout, stderr bytes.Buffer
				exit := Run(ctx, args, strings.NewReader(""), &stdout, &stderr)
				for output, text := range map[string]string{"stdout": stdout.String(), "stderr": stderr.String()} {
					for line := range strings.Lines(text) {
						if !json.Valid([]byte(line)) {
							t.Errorf("%v: exit %d, %s: %s", args, exit, output, text)
							break
						}
					}
				}
				if stdout.Len()+stderr.Len() == 0 && exit != exitOK {
					t.Errorf("%v: exit %d, and not a word", args, exit)
				}
				if deadline, _ := ctx.Deadline(); time.Now().After(deadline) {
					t.Errorf("%v: does not end; list it among those that go on", args)
				}
			})
		}
	}
}

// TestManualPages writes them, and has groff read them where it is installed.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	if got := run(t, nil, "", "man", dir); got.exit != exitOK {
		t.Fatal(got.stderr)
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Log("groff is not here; the pages are only looked at")
	}
	for _, cmd := range tree(t) {
		if cmd.Name() == "help" {
			continue
		}
		path := filepath.Join(dir, pageName(cmd)+".1")
		page, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, section := range []string{".TH \"", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n"} {
			if !strings.Contains(string(page), section) {
				t.Errorf("%s lacks %q", path, section)
			}
		}
		if groff == "" {
			continue
		}
		warned, err := exec.Command(groff, "-man", "-Tascii", "-ww", "-z", path).CombinedOutput()
		if err != nil || len(warned) > 0 {
			t.Errorf("%s: %v\n%s", path, err, warned)
		}
	}
}

func TestRoff(t *testing.T) {
	got := prose("Some 'words' of --x\n.begins with a dot\n\n  fixed \\n\n  lines\nand on")
	want := ".PP\nSome \\(aqwords\\(aq of \\-\\-x\n\\&.begins with a dot\n" +
		".PP\n.RS 4\n.nf\nfixed \\en\nlines\n.fi\n.RE\n.PP\nand on\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
