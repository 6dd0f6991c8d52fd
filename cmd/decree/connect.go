package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/transport/client"
)

const (
	endpointsEnv = "DECREE_ENDPOINTS"
	// defaultEndpoints are where `decree dev` and scripts/cluster.sh serve.
	defaultEndpoints = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103"
	// defaultPatience covers a failover many times over, and ends before a person
	// believes that nothing happens.
	defaultPatience = 30 * time.Second
)

// The variables that say who the caller is.
const (
	caEnv        = "DECREE_CA"
	certEnv      = "DECREE_CERT"
	keyEnv       = "DECREE_KEY"
	tokenEnv     = "DECREE_TOKEN"
	tokenFileEnv = "DECREE_TOKEN_FILE"
)

// clientVariables are those of the commands that talk to a cluster.
var clientVariables = []string{endpointsEnv, caEnv, certEnv, keyEnv, tokenEnv, tokenFileEnv, operatorEnv}

// dialFlags say where the cluster is, who asks it, and how long.
type dialFlags struct {
	endpoints []string
	patience  time.Duration
	security  client.Security
}

func (d *dialFlags) register(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	def := strings.Split(cmp.Or(os.Getenv(endpointsEnv), defaultEndpoints), ",")
	flags.StringSliceVar(&d.endpoints, "endpoints", def, "gRPC `addresses` of the nodes, some or all (env "+endpointsEnv+")")
	flags.DurationVar(&d.patience, "patience", defaultPatience, "give up asking after this time")
	d.registerSecurity(cmd)
}

// registerSecurity adds the flags that say who the caller is. A token on the command
// line is seen by all users of the machine: it has no default there to be printed.
func (d *dialFlags) registerSecurity(cmd *cobra.Command) {
	flags, s := cmd.PersistentFlags(), &d.security
	flags.StringVar(&s.CA, "ca", os.Getenv(caEnv), "PEM `file` of the cluster's authorities; says to speak TLS (env "+caEnv+")")
	flags.StringVar(&s.Certificate, "cert", os.Getenv(certEnv), "PEM `file` of the certificate that says who you are (env "+certEnv+")")
	flags.StringVar(&s.Key, "key", os.Getenv(keyEnv), "PEM `file` of its key (env "+keyEnv+")")
	flags.StringVar(&s.Token, "token", "", "the bearer `token` that says it instead; better in the environment or a file (env "+tokenEnv+")")
	flags.StringVar(&s.TokenFile, "token-file", os.Getenv(tokenFileEnv), "`file` that holds the token (env "+tokenFileEnv+")")
}

// secured is the security that the flags and the environment ask for.
func (d *dialFlags) secured() client.Security {
	s := d.security
	if s.Token == "" && s.TokenFile == "" {
		s.Token = os.Getenv(tokenEnv)
	}
	return s
}

// call is a command that asks a cluster and ends.
type call func(ctx context.Context, c *client.Client, args []string) error

// connected runs a call with a client, within the user's patience.
func (p *program) connected(run call) func(*cobra.Command, []string) error {
	return p.attached(func(ctx context.Context, c *client.Client, args []string) error {
		if p.dial.patience <= 0 {
			return usagef("--patience %s: must be more than zero", p.dial.patience)
		}
		ctx, cancel := context.WithTimeout(ctx, p.dial.patience)
		defer cancel()
		defer p.progress(fmt.Sprintf("waiting for the cluster, at most %s", p.dial.patience))()
		return run(ctx, c, args)
	})
}

// attached is connected for a command that goes on until it is stopped.
func (p *program) attached(run call) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := p.connect()
		if err != nil {
			return err
		}
		return errors.Join(run(cmd.Context(), c, args), c.Close())
	}
}

func (p *program) connect() (*client.Client, error) {
	for i, e := range p.dial.endpoints {
		p.dial.endpoints[i] = strings.TrimSpace(e)
	}
	c, err := client.New(client.Config{Endpoints: p.dial.endpoints, Security: p.dial.secured()})
	if err != nil {
		return nil, &usageError{err}
	}
	return c, nil
}
