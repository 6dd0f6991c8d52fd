package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

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
		p.participantCheckCommand(),
		p.participantDeleteCommand(),
	}
	for _, cmd := range operator {
		p.dial.register(cmd)
	}
	group.AddCommand(operator...)
	group.AddCommand(p.serveKVCommand(), p.serveSimCommand())
	return asGroup(group)
}

func (p *program) participantPutCommand() *cobra.Command {
	var driver, config, target string
	cmd := &cobra.Command{
		Use:   "put NAME",
		Short: "register a participant, or change its configuration",
		Example: `  decree participant put bank-a --target 127.0.0.1:7401
  decree participant put dice --driver sim --config '{"success_rate": 0.9}'`,
		Args: cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			registration, err := p.registration(args[0], driver, config, target)
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
	flags := cmd.Flags()
	flags.StringVar(&target, "target", "", "a gRPC service at this `host:port`; short for --driver grpc --config")
	flags.StringVar(&driver, "driver", "", "the participant's driver: grpc, kv or sim")
	flags.StringVar(&config, "config", "", "the driver's configuration, `JSON` or @file")
	cmd.MarkFlagsMutuallyExclusive("target", "driver")
	cmd.MarkFlagsMutuallyExclusive("target", "config")
	cmd.MarkFlagsOneRequired("target", "driver")
	return cmd
}

func (p *program) registration(name, driver, config, target string) (*decreev1.Participant, error) {
	if target != "" {
		fields := map[string]*structpb.Value{"target": structpb.NewStringValue(target)}
		return &decreev1.Participant{Name: name, Driver: grpcDriver, Config: &structpb.Struct{Fields: fields}}, nil
	}
	content, err := p.source(cmp.Or(config, "{}"))
	if err != nil {
		return nil, usagef("--config: %w", err)
	}
	var fields structpb.Struct
	if err := protojson.Unmarshal(content, &fields); err != nil {
		return nil, usagef("--config: want a JSON object: %s", err)
	}
	return &decreev1.Participant{Name: name, Driver: driver, Config: &fields}, nil
}

func (p *program) participantListCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list the registered participants",
		Args:  cobra.NoArgs,
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
		config, err := json.Marshal(registered.GetConfig().AsMap())
		if err != nil {
			return fmt.Errorf("configuration of %s: %w", registered.GetName(), err)
		}
		rows = append(rows, []string{
			registered.GetName(), registered.GetDriver(), strconv.FormatUint(registered.GetRevision(), 10),
			strconv.FormatUint(registered.GetUnfinished(), 10), string(config),
		})
	}
	p.out.table([]string{"NAME", "DRIVER", "REVISION", "UNFINISHED", "CONFIG"}, rows)
	return nil
}

// errUnreachable is why check fails.
var errUnreachable = errors.New("the participant does not answer")

func (p *program) participantCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check NAME",
		Short: "have the leader ask a participant what it holds prepared",
		Args:  cobra.ExactArgs(1),
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
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "remove a participant that no unfinished transaction touches",
		Args:  cobra.ExactArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.DeleteParticipant(ctx, args[0]); err != nil {
				return err
			}
			return p.done(&decreev1.DeleteResponse{}, "%s is removed", args[0])
		}),
	}
}
