package main

import (
	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/transport/access"
	"github.com/decree-tx/decree/transport/certs"
)

const tokenHelp = `Makes a bearer token for somebody who has no certificate. It is printed once and kept
nowhere: give it to its user, and append the line, which holds only its hash, to the
access file of every node (decree server --access-file). Nodes read that file again by
themselves. To replace a token, append another line, and remove the old one later.

A line may also limit what its identity asks of a node:

  client/web  token=sha256:... rate=500 burst=1000 in-flight=200`

func (p *program) tokenCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "token",
		Short: "make bearer tokens for those without a certificate",
		Long:  tokenHelp,
	}
	group.AddCommand(&cobra.Command{
		Use:     "create ROLE NAME",
		Short:   "make a token, and the line that makes it known to the nodes",
		Long:    tokenHelp,
		Example: "  decree token create client web",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			who := certs.Identity{Role: certs.Role(args[0]), Name: args[1]}
			if err := who.Validate(); err != nil {
				return &usageError{err}
			}
			if who.Role == certs.Node {
				return usagef("a node is known by its certificate, and by nothing else: decree cert issue node %s", who.Name)
			}
			token, line := access.NewToken(who)
			if p.out.format == formatJSON {
				p.out.object(struct {
					Token string `json:"token"`
					Line  string `json:"line"`
				}{token, line})
				return nil
			}
			p.out.linef("token, for %s alone:", who.String())
			p.out.linef("  %s", token)
			p.out.linef("line, for the access file of every node:")
			p.out.linef("  %s", line)
			return nil
		},
	})
	return asGroup(group)
}
