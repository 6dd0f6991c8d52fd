package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/transport/certs"
)

const certHelp = `Makes an authority and what it signs, enough for a cluster of one's own. Where there
is an authority already, have it sign certificates with one URI among their
alternative names, which says who the holder is:

  decree:///<role>/<name>    such as decree:///node/n1 or decree:///client/web

Roles: client, participant, operator, reader, node. Every command and server reads its
files again while it runs, so that they are replaced without a restart.`

const (
	authorityFile = "ca"
	day           = 24 * time.Hour
	// authorityLifetime is long, since each member has to learn of a new one; and that of
	// certificates short enough for their renewal to be practised.
	authorityLifetime   = 10 * 365 * day
	certificateLifetime = 365 * day
)

func (p *program) certCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "cert",
		Short: "make certificates for a first cluster",
		Long:  certHelp,
	}
	group.AddCommand(p.certCACommand(), p.certIssueCommand())
	return asGroup(group)
}

func (p *program) certCACommand() *cobra.Command {
	var dir, name string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "make an authority: ca.pem, for everybody, and ca.key, to be kept",
		Long: `Writes ca.pem, which every node and client needs, and ca.key, with which certificates
are signed: whoever has it can be anybody, so keep it away from the nodes. Nothing is
overwritten.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if lifetime <= 0 {
				return usagef("--lifetime %s: must be more than zero", lifetime)
			}
			pair, err := certs.NewAuthority(name, lifetime)
			if err != nil {
				return err
			}
			return p.writePair(pair, dir, authorityFile, nil)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "certs", "write to this `directory`")
	cmd.Flags().StringVar(&name, "name", "decree authority", "what the authority is called")
	cmd.Flags().DurationVar(&lifetime, "lifetime", authorityLifetime, "how long it is good for")
	return cmd
}

func (p *program) certIssueCommand() *cobra.Command {
	var dir, ca, key string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use:   "issue ROLE NAME[=HOST,...] ...",
		Short: "issue certificates with an authority's key",
		Long: `Writes ROLE-NAME.pem and ROLE-NAME.key for each name. The hosts are the names and
addresses at which a node or a participant is dialled; without any they are those of
this machine alone (localhost). Other roles have none. A participant's name is the one
under which it is registered. Nothing is overwritten.

` + certHelp[strings.Index(certHelp, "Roles:"):],
		Example: `  decree cert ca
  decree cert issue node n1=10.0.0.1,n1.example n2=10.0.0.2 n3=10.0.0.3
  decree cert issue operator ada
  decree cert issue client web`,
		Args: cobra.MinimumNArgs(2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var roles []string
			for _, r := range certs.Roles {
				roles = append(roles, string(r))
			}
			return roles[:len(roles)*max(0, 1-len(args))], cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			requests, err := certRequests(certs.Role(args[0]), args[1:], lifetime)
			if err != nil {
				return err
			}
			authority, err := certs.Read(orIn(ca, dir, authorityFile+".pem"), orIn(key, dir, authorityFile+".key"))
			if err != nil {
				return fmt.Errorf("the authority: %w (decree cert ca makes one)", err)
			}
			for _, r := range requests {
				pair, err := certs.Issue(authority, r)
				if err != nil {
					return err
				}
				if err := p.writePair(pair, dir, string(r.Identity.Role)+"-"+r.Identity.Name, r.Hosts); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "certs", "write to this `directory`")
	cmd.Flags().StringVar(&ca, "ca", "", "the authority's certificate, a `file` (default: ca.pem of the directory)")
	cmd.Flags().StringVar(&key, "ca-key", "", "the authority's key, a `file` (default: ca.key of the directory)")
	cmd.Flags().DurationVar(&lifetime, "lifetime", certificateLifetime, "how long they are good for")
	return cmd
}

// localHosts are where this machine reaches itself.
var localHosts = []string{"localhost", "127.0.0.1", "::1"}

func certRequests(role certs.Role, names []string, lifetime time.Duration) ([]certs.Request, error) {
	if lifetime <= 0 {
		return nil, usagef("--lifetime %s: must be more than zero", lifetime)
	}
	var requests []certs.Request
	for _, argument := range names {
		name, list, given := strings.Cut(argument, "=")
		r := certs.Request{Identity: certs.Identity{Role: role, Name: name}, Lifetime: lifetime}
		if err := r.Identity.Validate(); err != nil {
			return nil, &usageError{err}
		}
		serves := role == certs.Node || role == certs.Participant
		switch {
		case given && !serves:
			return nil, usagef("%s: a %s serves nobody, and has no hosts", argument, role)
		case given:
			r.Hosts = slices.DeleteFunc(strings.Split(list, ","), func(h string) bool { return strings.TrimSpace(h) == "" })
		case serves:
			r.Hosts = localHosts
		}
		requests = append(requests, r)
	}
	return requests, nil
}

func orIn(path, dir, name string) string {
	if path != "" {
		return path
	}
	return filepath.Join(dir, name)
}

// writePair writes NAME.pem and NAME.key, and says so.
func (p *program) writePair(pair certs.Pair, dir, name string, hosts []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	certificate, key := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	if err := pair.Write(certificate, key); err != nil {
		return err
	}
	if p.out.format == formatJSON {
		p.out.object(struct {
			Certificate string   `json:"certificate"`
			Key         string   `json:"key"`
			Hosts       []string `json:"hosts,omitempty"`
		}{certificate, key, hosts})
		return nil
	}
	served := ""
	if len(hosts) > 0 {
		served = " (for " + strings.Join(hosts, ", ") + ")"
	}
	p.out.linef("%s and %s%s", certificate, key, served)
	return nil
}
