package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/decree-tx/decree/cmd/internal/misspell"
)

// sayMistakes has cmd and all below it say in words what is wrong on a command line.
func sayMistakes(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(flagMistake)
	if accepts := cmd.Args; accepts != nil && !cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := accepts(cmd, args); err != nil {
				return argumentMistake(cmd, args, err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		sayMistakes(sub)
	}
}

// argumentMistake names the argument that is missing, as the command's line of usage
// does, or the first one too many.
func argumentMistake(cmd *cobra.Command, args []string, err error) error {
	named := strings.Fields(cmd.Use)[1:]
	switch {
	case len(args) < len(named) && !strings.HasPrefix(named[len(args)], "["):
		return fmt.Errorf("missing %s", strings.Join(named[len(args):], " "))
	case len(args) > len(named):
		return fmt.Errorf("too many arguments, from %q on", args[len(named)])
	default:
		return err
	}
}

// flagMistake puts what pflag found wrong into the words of all other mistakes.
func flagMistake(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var noValue *pflag.ValueRequiredError
	var bad *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		return unknownFlag(cmd, unknown)
	case errors.As(err, &noValue):
		return fmt.Errorf("--%s: missing its value", noValue.GetFlag().Name)
	case errors.As(err, &bad):
		return fmt.Errorf("--%s %q: %s", bad.GetFlag().Name, bad.GetValue(), wanted(bad))
	default:
		return err
	}
}

func unknownFlag(cmd *cobra.Command, unknown *pflag.NotExistError) error {
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		return fmt.Errorf("unknown flag -%s", unknown.GetSpecifiedName())
	}
	name := unknown.GetSpecifiedName()
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	if near := misspell.Near(name, known); near != "" {
		return fmt.Errorf("unknown flag --%s; did you mean --%s?", name, near)
	}
	return fmt.Errorf("unknown flag --%s", name)
}

// wanted is what a flag takes, by its type; a flag of our own says it itself.
func wanted(bad *pflag.InvalidValueError) string {
	switch bad.GetFlag().Value.Type() {
	case "int", "int64", "uint", "uint32", "uint64":
		return "want a whole number"
	case "float64":
		return "want a number"
	case "bool":
		return "want true or false"
	case "duration":
		return "want a duration, such as 500ms, 15s or 1h30m"
	default:
		return bad.Unwrap().Error()
	}
}

// usageHint points from a mistake on the command line to what is right.
func usageHint(cmd *cobra.Command) string {
	if cmd == nil || cmd.HasSubCommands() {
		return ""
	}
	return "usage: " + cmd.UseLine() + "  (" + cmd.CommandPath() + " --help says more)"
}
