package main

import (
	"errors"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cmd/internal/config"
)

func (p *program) configCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "config",
		Short: "look at a node's configuration without running it",
	}
	group.AddCommand(p.configPrintCommand(), p.configCheckCommand())
	return asGroup(group)
}

func (p *program) configPrintCommand() *cobra.Command {
	var set bool
	cmd := &cobra.Command{
		Use:   "print",
		Short: "show every setting, and where its value comes from",
		Long: `Shows the configuration that decree server would run with, given the same flags,
variables and file, and for each setting where its value comes from. Secrets are
redacted. The exit code is 2 where something is wrong; what could be read is shown.`,
		Example: "  decree config print --config /etc/decree.yaml\n  decree config print --set",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, settings, problems := config.Explain(cmd.Flags(), os.Environ(), foreignVariables())
			if set {
				settings = withoutDefaults(settings)
			}
			if p.out.format == formatJSON {
				p.out.object(map[string]any{"settings": settings})
			} else {
				p.settingsTable(settings)
			}
			return asMistake(problems)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&set, "set", false, "only those that are set somewhere, and not the defaults")
	config.Register(cmd.Flags())
	return cmd
}

func withoutDefaults(all []config.Setting) []config.Setting {
	set := []config.Setting{}
	for _, s := range all {
		if s.Source != config.FromDefault {
			set = append(set, s)
		}
	}
	return set
}

func (p *program) settingsTable(settings []config.Setting) {
	var rows [][]string
	for _, s := range settings {
		from := string(s.Source)
		if s.Place != "" {
			from += " " + s.Place
		}
		rows = append(rows, []string{s.Name, s.Value, from})
	}
	p.out.table([]string{"SETTING", "VALUE", "FROM"}, rows)
}

// asMistake makes problems one mistake of the configuration, nil if there are none.
func asMistake(problems []*config.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	errs := make([]error, len(problems))
	for i, problem := range problems {
		errs[i] = problem
	}
	return &usageError{errors.Join(errs...)}
}

func (p *program) configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "tell every mistake in a configuration",
		Long: `Tells every mistake at once, each with the line, the variable or the flag that it is in.

With FILE, that file is judged by itself: what it leaves to flags and variables is no
mistake of it. Without, the flags, the variables and the file that they name are judged
together, as decree server would.`,
		Example: "  decree config check /etc/decree.yaml\n  decree config check --config /etc/decree.yaml --node-id n1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var problems []*config.Problem
			if len(args) == 1 {
				problems = config.CheckFile(args[0])
			} else {
				_, _, problems = config.Explain(cmd.Flags(), os.Environ(), foreignVariables())
			}
			return p.configChecked(problems)
		},
	}
	cmd.Flags().SortFlags = false
	config.Register(cmd.Flags())
	return cmd
}

func (p *program) configChecked(problems []*config.Problem) error {
	if p.out.format == formatJSON {
		p.out.object(struct {
			OK       bool              `json:"ok"`
			Problems []*config.Problem `json:"problems"`
		}{len(problems) == 0, append([]*config.Problem{}, problems...)})
		if len(problems) > 0 {
			return &toldError{asMistake(problems)}
		}
		return nil
	}
	if len(problems) == 0 {
		p.out.linef("no mistakes")
		return nil
	}
	for _, problem := range problems {
		p.out.linef("%s", problem.Error())
	}
	p.out.linef("%s", countOf(len(problems), "mistake"))
	return &toldError{asMistake(problems)}
}

// countOf is a number of things in words.
func countOf(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
