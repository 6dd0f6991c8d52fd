package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/decree-tx/decree/participants"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func (p *program) participantCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "participant",
		Short: "register the resources that transactions may touch, or serve one",
	}
	operator := []*cobra.Command{
		p.participantPutCommand(),
		p.participantListCommand(),
		p.participantShowCommand(),
		p.participantCheckCommand(),
		p.participantDeleteCommand(),
	}
	for _, cmd := range operator {
		p.dial.register(cmd)
	}
	group.AddCommand(operator...)
	group.AddCommand(p.serveKVCommand(), p.serveSimCommand(), p.serveTrivialCommand())
	return asGroup(group)
}

func (p *program) participantPutCommand() *cobra.Command {
	var f registrationFlags
	cmd := &cobra.Command{
		Use:   "put NAME",
		Short: "register a participant, or change its configuration",
		Long: `Registers the resource under NAME, so that transactions may touch it. A database
is looked at before: what keeps it from taking part is said now and not by the
first transaction.

Secrets never stand in a registration. --dsn names where each node finds its own:
env:NAME, an environment variable of the server process, or file:/PATH.`,
		Example: `  decree participant put bank-a --target 127.0.0.1:7401
  decree participant put orders --driver postgres --dsn env:ORDERS_DSN --catalogue @orders.json
  decree participant put payments --driver mysql --dsn file:/etc/decree/payments.dsn --raw-sql
  decree participant put stock --url https://stock.example.com/decree
  decree participant put dice --driver sim --config '{"success_rate": 0.9}'`,
		Args: cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			registration, err := p.registration(args[0], f)
			if err != nil {
				return err
			}
			stored, err := c.PutParticipant(ctx, registration)
			if err != nil {
				return err
			}
			if p.out.format == formatJSON {
				p.out.message(stored)
				return nil
			}
			p.out.linef("%s is registered (driver %s, revision %d)", stored.GetName(), stored.GetDriver(), stored.GetRevision())
			return nil
		}),
	}
	f.register(cmd)
	onRecord(cmd)
	return cmd
}

// registrationFlags are the ways to say what a participant is: a driver with its
// whole configuration, and short forms for what is said most.
type registrationFlags struct {
	driver, config string
	target, url    string // imply their driver
	dsn, catalogue string // of an SQL driver
	rawSQL         bool
}

func (f *registrationFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.target, "target", "", "a gRPC service at this `host:port`; short for --driver grpc --config")
	flags.StringVar(&f.url, "url", "", "an HTTP service under this `URL`; short for --driver http --config")
	flags.StringVar(&f.driver, "driver", "", "the participant's driver: grpc, http, kv, mysql, postgres or sim")
	flags.StringVar(&f.config, "config", "", "the driver's configuration, `JSON` or @file")
	flags.StringVar(&f.dsn, "dsn", "", "where a node finds the database's DSN: `env:NAME` or file:/PATH")
	flags.StringVar(&f.catalogue, "catalogue", "", "the statements that transactions may name, `JSON` or @file")
	flags.BoolVar(&f.rawSQL, "raw-sql", false, "let transactions carry SQL of their own")
	for _, service := range []string{"target", "url"} {
		for _, other := range []string{"driver", "dsn", "catalogue", "raw-sql"} {
			cmd.MarkFlagsMutuallyExclusive(service, other)
		}
	}
	cmd.MarkFlagsMutuallyExclusive("target", "url")
	cmd.MarkFlagsOneRequired("target", "url", "driver")
}

// fields are what the short forms add to the configuration.
func (p *program) fields(f registrationFlags) (map[string]*structpb.Value, error) {
	fields := map[string]*structpb.Value{}
	for name, value := range map[string]string{"target": f.target, "url": f.url, "dsn": f.dsn} {
		if value != "" {
			fields[name] = structpb.NewStringValue(value)
		}
	}
	if f.rawSQL {
		fields["raw_sql"] = structpb.NewBoolValue(true)
	}
	if f.catalogue != "" {
		catalogue, err := p.object(f.catalogue)
		if err != nil {
			return nil, usagef("--catalogue: %w", err)
		}
		fields["catalogue"] = structpb.NewStructValue(catalogue)
	}
	return fields, nil
}

// object reads a JSON object from a flag or from the file that it names.
func (p *program) object(flag string) (*structpb.Struct, error) {
	content, err := p.source(flag)
	if err != nil {
		return nil, err
	}
	var object structpb.Struct
	if err := protojson.Unmarshal(content, &object); err != nil {
		return nil, fmt.Errorf("want a JSON object: %w", err)
	}
	return &object, nil
}

func (p *program) registration(name string, f registrationFlags) (*decreev1.Participant, error) {
	if f.dsn != "" && (participants.Reference(f.dsn)).Validate() != nil {
		return nil, usagef("--dsn: want env:NAME or file:/PATH, where each node finds the DSN, and not the DSN itself")
	}
	config, err := p.object(cmp.Or(f.config, "{}"))
	if err != nil {
		return nil, usagef("--config: %w", err)
	}
	fields, err := p.fields(f)
	if err != nil {
		return nil, err
	}
	if config.Fields == nil {
		config.Fields = map[string]*structpb.Value{}
	}
	for field, value := range fields {
		if _, twice := config.Fields[field]; twice {
			return nil, usagef("--config has %q, and a flag too", field)
		}
		config.Fields[field] = value
	}
	driver := f.driver
	switch {
	case f.target != "":
		driver = grpcDriver
	case f.url != "":
		driver = httpDriver
	}
	return &decreev1.Participant{Name: name, Driver: driver, Config: config}, nil
}

func (p *program) participantListCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "list the registered participants",
		Example: "  decree participant list\n  decree participant list -q",
		Args:    cobra.NoArgs,
		RunE: p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			all, err := c.Participants(ctx)
			if err != nil {
				return err
			}
			switch {
			case p.out.format == formatJSON:
				p.out.message(&decreev1.ParticipantsListResponse{Participants: all})
			case quiet:
				for _, registered := range all {
					p.out.linef("%s", registered.GetName())
				}
			default:
				return p.participantTable(all)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the names only")
	return cmd
}

func (p *program) participantTable(all []*decreev1.Participant) error {
	var rows [][]string
	for _, registered := range all {
		config, err := configText(registered, "")
		if err != nil {
			return err
		}
		rows = append(rows, []string{
			registered.GetName(), registered.GetDriver(), strconv.FormatUint(registered.GetRevision(), 10),
			strconv.FormatUint(registered.GetUnfinished(), 10), registered.GetIdentity(), shorten(config),
		})
	}
	p.out.table([]string{"NAME", "DRIVER", "REVISION", "UNFINISHED", "RESOURCE", "CONFIG"}, rows)
	return nil
}

// configText is a configuration as a person reads it: SQL keeps its < and >.
func configText(p *decreev1.Participant, indent string) (string, error) {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(p.GetConfig().AsMap()); err != nil {
		return "", fmt.Errorf("configuration of %s: %w", p.GetName(), err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// maxConfigShown keeps a table's line on the screen; a catalogue may be long. The
// whole of it is in `participant show`.
const maxConfigShown = 60

func shorten(s string) string {
	if runes := []rune(s); len(runes) > maxConfigShown {
		return string(runes[:maxConfigShown-1]) + "…"
	}
	return s
}

func (p *program) participantShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "show a participant with its whole configuration",
		Example: "  decree participant show orders",
		Args:    cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			registered, err := c.Participant(ctx, args[0])
			if err != nil {
				return err
			}
			if p.out.format == formatJSON {
				p.out.message(registered)
				return nil
			}
			config, err := configText(registered, "  ")
			if err != nil {
				return err
			}
			p.out.fields(
				"participant", registered.GetName(),
				"driver", registered.GetDriver(),
				"revision", strconv.FormatUint(registered.GetRevision(), 10),
				"unfinished", strconv.FormatUint(registered.GetUnfinished(), 10),
				"resource", registered.GetIdentity(),
			)
			p.out.linef("config")
			for line := range strings.SplitSeq(config, "\n") {
				p.out.linef("%s", line)
			}
			return nil
		}),
	}
}

// errUnreachable is why check fails.
var errUnreachable = errors.New("the participant does not answer")

func (p *program) participantCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check NAME",
		Short:   "have the leader ask a participant what it holds prepared",
		Example: "  decree participant check orders",
		Args:    cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			found, err := c.CheckParticipant(ctx, args[0])
			if err != nil {
				return err
			}
			if p.out.format == formatJSON {
				p.out.message(found)
			} else {
				p.out.fields(
					"participant", args[0],
					"reachable", yesNo(found.GetReachable()),
					"error", found.GetError(),
					"recovers", yesNo(found.GetRecovers()),
					"prepared", strconv.Itoa(int(found.GetPrepared())),
				)
			}
			if !found.GetReachable() {
				return &toldError{errUnreachable}
			}
			return nil
		}),
	}
}

func (p *program) participantDeleteCommand() *cobra.Command {
	return onRecord(&cobra.Command{
		Use:     "delete NAME",
		Short:   "remove a participant that no unfinished transaction touches",
		Example: "  decree participant delete orders",
		Args:    cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.DeleteParticipant(ctx, args[0]); err != nil {
				return err
			}
			return p.done(&decreev1.DeleteResponse{}, "%s is removed", args[0])
		}),
	})
}
