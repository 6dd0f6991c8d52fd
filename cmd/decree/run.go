package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

const rootHelp = `decree commits one transaction at several services, or at none of them.

To try it: "decree dev" runs three nodes and a few participants in this terminal
and prints what to type in another.

Exit codes:
` + exitCodeHelp + `

"decree help output" says what -o json prints. Set NO_COLOR, or --color never, where
colours are not wanted.`

// Run is the whole program but for its signals: ctx ends when it is asked to
// stop. It returns the exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{stdin: stdin, out: &printer{w: stdout, format: formatTable}, stderr: stderr}
	root := p.command()
	p.markStart(root)
	sayMistakes(root)
	p.complete(root)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)

	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !p.started {
		p.mistaken = cmd
		err = &usageError{err}
	}
	if err == nil {
		err = p.out.err
	}
	return p.report(err)
}

// program is one run of the binary.
type program struct {
	stdin  io.Reader
	out    *printer
	stderr io.Writer

	started  bool           // the command line was understood and a command began
	mistaken *cobra.Command // whose command line was not
	dial     dialFlags      // for the commands that talk to a cluster
}

func (p *program) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "decree",
		Short:         "a distributed transaction coordinator",
		Long:          rootHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return p.out.check()
		},
	}
	root.PersistentFlags().VarP(&p.out.format, "output", "o", "table for people, json for programs")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	root.PersistentFlags().Var(&p.out.colour, "color", "colour for people: auto (on a terminal, unless NO_COLOR is set), always or never")
	_ = root.RegisterFlagCompletionFunc("color", cobra.FixedCompletions(colourings, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(
		p.serverCommand(),
		p.devCommand(),
		p.txCommand(),
		p.participantCommand(),
		p.clusterCommand(),
		p.snapshotCommand(),
		p.certCommand(),
		p.tokenCommand(),
		p.auditCommand(),
		p.bankCommand(),
		p.benchCommand(),
		p.demoCommand(),
		p.configCommand(),
		p.doctorCommand(),
		p.logLevelCommand(),
		p.healthCommand(),
		p.versionCommand(),
		p.manCommand(),
		outputTopic(),
	)
	root.AddCommand(p.testCommands()...)
	p.arrange(root)
	return asGroup(root)
}

// markStart notes when a command of the tree begins. What cobra finds wrong before
// that is a mistake in the command line.
func (p *program) markStart(cmd *cobra.Command) {
	if begin := cmd.RunE; begin != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			p.started = true
			return begin(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		p.markStart(sub)
	}
}

// asGroup makes a command that only holds others: alone it shows its help, and a
// word that it does not know is a mistake rather than an argument.
func asGroup(group *cobra.Command) *cobra.Command {
	group.SuggestionsMinimumDistance = 2 // cobra's own for the root
	group.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		message := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			message += fmt.Sprintf("; did you mean %s?", strings.Join(near, " or "))
		}
		return fmt.Errorf("%s (%s --help lists them)", message, cmd.CommandPath())
	}
	group.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return group
}
