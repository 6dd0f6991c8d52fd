package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/transport/client"
)

const healthHelp = `Asks each of the --endpoints whether it serves, and ends with 0 where all do. It is for
the health checks of containers and init systems, which have no curl and no identity: a
node tells its health to anybody.

A node that is stopping says that it does not serve, though it still answers: something
that balances calls should pass it over from then on. That no leader is known is not a
matter of a node's health; /readyz of the HTTP API and "decree cluster status" tell.`

// nodeHealth is what the command shows of a node.
type nodeHealth struct {
	Endpoint string `json:"endpoint"`
	Serving  bool   `json:"serving"`
	Error    string `json:"error,omitempty"`
}

func (p *program) healthCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "health",
		Short:   "ask nodes whether they serve, for health checks",
		Long:    healthHelp,
		Example: "  decree health --endpoints 127.0.0.1:7101 --patience 2s",
		Args:    cobra.NoArgs,
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		var errs []error
		for _, endpoint := range p.dial.endpoints {
			h := nodeHealth{Endpoint: endpoint}
			if err := c.Health(ctx, endpoint); err != nil {
				h.Error = err.Error()
				errs = append(errs, fmt.Errorf("%s: %w", endpoint, err))
			} else {
				h.Serving = true
			}
			p.showHealth(h)
		}
		return errors.Join(errs...)
	})
	p.dial.register(cmd)
	return cmd
}

func (p *program) showHealth(h nodeHealth) {
	switch {
	case p.out.format == formatJSON:
		p.out.object(h)
	case h.Serving:
		p.out.linef("%s serves", safe(h.Endpoint))
	}
}
