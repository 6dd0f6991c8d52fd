package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

const (
	// completionPatience is how long a shell may wait for names before it is better
	// without them.
	completionPatience = 700 * time.Millisecond
	// completionLimit keeps the list of txids on a screen.
	completionLimit = 30
)

// naming gives what the cluster knows that a word may stand for, each with what to tell
// of it behind a tab. An error is silent: a shell has no place for it.
type naming func(ctx context.Context, c *client.Client) ([]string, error)

// complete has cmd and all below it complete the words that name something in the
// cluster, by what their lines of usage call them.
func (p *program) complete(cmd *cobra.Command) {
	if words := strings.Fields(cmd.Use)[1:]; len(words) > 0 && cmd.ValidArgsFunction == nil && !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = p.arguments(cmd, words)
	}
	if f := cmd.Flags().Lookup("participant"); f != nil && f.Value.Type() == "string" {
		p.completeFlag(cmd, "participant", participantNames)
	}
	if cmd.Flags().Lookup("driver") != nil {
		_ = cmd.RegisterFlagCompletionFunc("driver", cobra.FixedCompletions(driverNames(), cobra.ShellCompDirectiveNoFileComp))
	}
	if cmd.Flags().Lookup("wait") != nil {
		_ = cmd.RegisterFlagCompletionFunc("wait", cobra.FixedCompletions(waits, cobra.ShellCompDirectiveNoFileComp))
	}
	for _, sub := range cmd.Commands() {
		p.complete(sub)
	}
}

// arguments completes the words of a line of usage, one after the other. Those that name
// nothing in the cluster have nothing; FILE and DIR have the shell's own.
func (p *program) arguments(cmd *cobra.Command, words []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(words) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		word := strings.Trim(words[len(args)], "[].")
		switch {
		case word == "FILE":
			return nil, cobra.ShellCompDirectiveDefault
		case word == "DIR":
			return nil, cobra.ShellCompDirectiveFilterDirs
		default:
			return p.ask(sourceOf(cmd, word))
		}
	}
}

// sourceOf is where the names for a word of a command's line of usage come from; nil for
// a word that names nothing yet.
func sourceOf(cmd *cobra.Command, word string) naming {
	group := cmd.Parent().Name()
	switch {
	case word == "TXID":
		return txids(cmd.Name())
	case word == "NAME" && group == "participant":
		return participantNames
	case word == "ID" && group == "cluster" && cmd.Name() != "add":
		return nodeIDs
	default:
		return nil
	}
}

func (p *program) completeFlag(cmd *cobra.Command, flag string, from naming) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return p.ask(from)
	})
}

// ask gets the names from the cluster, or nothing.
func (p *program) ask(from naming) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	if from == nil {
		return nil, directive
	}
	c, err := p.connect()
	if err != nil {
		return nil, directive
	}
	defer c.Close() //nolint:errcheck // nothing is under way
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	names, err := from(ctx, c)
	if err != nil {
		return nil, directive
	}
	return names, directive
}

// described is a name with what to tell of it.
func described(name string, about ...string) string {
	return safe(name) + "\t" + safe(strings.Join(about, " "))
}

// txids are those that the command may be for: the youngest, and of commands that end a
// transaction or go on with it, those that are not ended.
func txids(command string) naming {
	filter := client.Filter{}
	switch command {
	case "commit", "abort", "enlist":
		filter.States = []decreev1.State{decreev1.State_STATE_ACTIVE, decreev1.State_STATE_PREPARING}
	case "resolve":
		filter.States = unfinishedStates
	}
	return func(ctx context.Context, c *client.Client) ([]string, error) {
		var all []string
		for t, err := range c.List(ctx, filter) {
			if err != nil {
				return nil, err
			}
			var touched []string
			for _, b := range t.GetBranches() {
				touched = append(touched, b.GetParticipant())
			}
			about := cmp.Or(damageText(t.GetDamage()), word(t.GetState()))
			if all = append(all, described(t.GetTxid(), about, strings.Join(touched, ","))); len(all) == completionLimit {
				break
			}
		}
		return all, nil
	}
}

func participantNames(ctx context.Context, c *client.Client) ([]string, error) {
	registered, err := c.Participants(ctx)
	var all []string
	for _, r := range registered {
		all = append(all, described(r.GetName(), r.GetDriver(), r.GetIdentity()))
	}
	return all, err
}

func nodeIDs(ctx context.Context, c *client.Client) ([]string, error) {
	status, err := c.Status(ctx)
	var all []string
	for _, n := range status.GetNodes() {
		all = append(all, described(n.GetId(), role(n), n.GetRaftAddress()))
	}
	return all, err
}

func driverNames() []string {
	return slices.Sorted(maps.Keys(drivers()))
}
