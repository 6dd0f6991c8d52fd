package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func (p *program) groupCommand() *cobra.Command {
	var of int
	cmd := onRecord(&cobra.Command{
		Use:   "group K --of N",
		Short: "tell a new cluster that it is group K of N, for good",
		Long: `Where one leader is not enough, several clusters share out the transactions by their
txids, and each refuses those of the others. A cluster is told its group once, before its
first participant is registered, and neither K nor N ever changes: choose N for the
machines to come. The operations guide says how.`,
		Example: "  decree cluster group 1 --of 3",
		Args:    cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			g, err := groupFrom(args[0], of)
			if err != nil {
				return err
			}
			if err := c.SetGroup(ctx, g); err != nil {
				return err
			}
			return p.done(&decreev1.SetGroupResponse{Group: &decreev1.Group{Number: uint32(g.Number), Of: uint32(g.Of)}}, //nolint:gosec // valid
				"the cluster is %s, and takes the txids of no other", g)
		}),
	})
	cmd.Flags().IntVar(&of, "of", 0, "how `many` groups there are, from 1 to 1024")
	return cmd
}

func groupFrom(number string, of int) (g client.Group, err error) {
	if g.Number, err = strconv.Atoi(number); err != nil {
		return g, usagef("%q is not the number of a group", number)
	}
	g.Of = of
	if err := g.Validate(); err != nil {
		return g, usagef("%v (decree cluster group K --of N)", err)
	}
	return g, nil
}

// groupLine is empty where a cluster takes every txid.
func groupLine(g *decreev1.Group) string {
	if g == nil {
		return ""
	}
	return fmt.Sprintf("%d of %d", g.GetNumber(), g.GetOf())
}
