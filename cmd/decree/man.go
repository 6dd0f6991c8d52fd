package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand is behind `make man`. It is hidden: who packages decree runs it.
func (p *program) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "write the manual pages of all commands",
		Example: "  decree man /usr/local/share/man/man1",
		Hidden:  true,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writeManuals(cmd.Root(), args[0])
		},
	}
}

// writeManuals writes a page for cmd, and one for each command below it that is shown.
func writeManuals(cmd *cobra.Command, dir string) error {
	if cmd.Hidden || cmd.Name() == "help" {
		return nil
	}
	path := filepath.Join(dir, pageName(cmd)+".1")
	if err := os.WriteFile(path, []byte(manualPage(cmd)), 0o644); err != nil { //nolint:gosec // for everybody
		return err
	}
	for _, sub := range cmd.Commands() {
		if err := writeManuals(sub, dir); err != nil {
			return err
		}
	}
	return nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manualPage is the page of a command, in the language of man(7).
func manualPage(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %q 1 \"\" %q \"decree\"\n", strings.ToUpper(pageName(cmd)), "decree "+buildInfo().Version)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(cmd)), roff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n\\fB%s\\fR\n", roff(cmd.UseLine()))
	b.WriteString(".SH DESCRIPTION\n" + prose(longOf(cmd)))
	b.WriteString(commandsSection(cmd))
	b.WriteString(optionsSection("OPTIONS", cmd.NonInheritedFlags()))
	b.WriteString(optionsSection("OPTIONS OF ALL COMMANDS", cmd.InheritedFlags()))
	if cmd.Example != "" {
		b.WriteString(".SH EXAMPLES\n" + verbatim(strings.Split(cmd.Example, "\n")))
	}
	b.WriteString(seeAlso(cmd))
	return b.String()
}

func longOf(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return strings.ToUpper(cmd.Short[:1]) + cmd.Short[1:] + "."
}

func shown(cmds []*cobra.Command) (all []*cobra.Command) {
	for _, c := range cmds {
		if !c.Hidden && c.Name() != "help" {
			all = append(all, c)
		}
	}
	return all
}

func commandsSection(cmd *cobra.Command) string {
	var b strings.Builder
	for _, sub := range shown(cmd.Commands()) {
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR(1)\n%s\n", roff(pageName(sub)), roff(sub.Short))
	}
	if b.Len() == 0 {
		return ""
	}
	return ".SH COMMANDS\n" + b.String()
}

func optionsSection(title string, flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB` + roff("-"+f.Shorthand) + `\fR, ` + name
		}
		if value != "" {
			name += ` \fI` + roff(value) + `\fR`
		}
		if telling(f) {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(&b, ".TP\n%s\n%s\n", name, roff(usage))
	})
	if b.Len() == 0 {
		return ""
	}
	return ".SH " + title + "\n" + b.String()
}

// telling reports a default that is worth a word, and no zero value.
func telling(f *pflag.Flag) bool {
	switch f.DefValue {
	case "", "0", "0s", "false", "[]":
		return false
	default:
		return !strings.Contains(f.Usage, "(default")
	}
}

func seeAlso(cmd *cobra.Command) string {
	var pages []string
	if cmd.HasParent() {
		pages = append(pages, pageName(cmd.Parent()))
		for _, sibling := range shown(cmd.Parent().Commands()) {
			if sibling != cmd {
				pages = append(pages, pageName(sibling))
			}
		}
	}
	if len(pages) == 0 {
		return ""
	}
	for i, page := range pages {
		pages[i] = `\fB` + roff(page) + `\fR(1)`
	}
	return ".SH SEE ALSO\n" + strings.Join(pages, ",\n") + "\n"
}

// prose sets paragraphs; lines that are indented stay as they are.
func prose(text string) string {
	var b strings.Builder
	for paragraph := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		var running, fixed []string
		flush := func() {
			if len(running) > 0 {
				b.WriteString(".PP\n" + strings.Join(running, "\n") + "\n")
			}
			if len(fixed) > 0 {
				b.WriteString(verbatim(fixed))
			}
			running, fixed = nil, nil
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			isFixed := strings.HasPrefix(line, "  ")
			if isFixed && len(running) > 0 || !isFixed && len(fixed) > 0 {
				flush()
			}
			if isFixed {
				fixed = append(fixed, line)
			} else {
				running = append(running, roff(line))
			}
		}
		flush()
	}
	return b.String()
}

// verbatim sets lines as they are.
func verbatim(lines []string) string {
	escaped := make([]string, len(lines))
	for i, line := range lines {
		escaped[i] = roff(strings.TrimPrefix(line, "  "))
	}
	return ".PP\n.RS 4\n.nf\n" + strings.Join(escaped, "\n") + "\n.fi\n.RE\n"
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// roff escapes a line: what the language of man(7) would take for its own.
func roff(line string) string {
	line = roffEscapes.Replace(line)
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	return line
}
