package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func (p *program) clusterCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "cluster",
		Short: "look at the coordinator nodes, and change which there are",
	}
	p.dial.register(group)
	group.AddCommand(
		p.clusterStatusCommand(),
		p.recoverCommand(),
		p.groupCommand(),
		onRecord(&cobra.Command{
			Use:     "add ID RAFT-ADDRESS",
			Short:   "admit an empty node that was started with --join",
			Example: "  decree cluster add n4 10.0.0.4:7301",
			Args:    cobra.ExactArgs(2),
			RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
				if err := c.AddNode(ctx, args[0], args[1]); err != nil {
					return err
				}
				return p.done(&decreev1.AddNodeResponse{}, "%s is a member and votes", args[0])
			}),
		}),
		onRecord(&cobra.Command{
			Use:     "remove ID",
			Short:   "take a node out of the cluster, for good",
			Example: "  decree cluster remove n4",
			Args:    cobra.ExactArgs(1),
			RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
				if err := c.RemoveNode(ctx, args[0]); err != nil {
					return err
				}
				return p.done(&decreev1.RemoveNodeResponse{}, "%s is no longer a member", args[0])
			}),
		}),
		onRecord(&cobra.Command{
			Use:     "transfer-leader [ID]",
			Short:   "hand leadership to a node, or to any other",
			Example: "  decree cluster transfer-leader\n  decree cluster transfer-leader n2",
			Args:    cobra.MaximumNArgs(1),
			RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
				if err := c.TransferLeadership(ctx, strings.Join(args, "")); err != nil {
					return err
				}
				return p.done(&decreev1.TransferLeadershipResponse{}, "leadership is handed over")
			}),
		}),
	)
	return asGroup(group)
}

// done says that a change was made: the API's answer to programs, a sentence to
// people.
func (p *program) done(answer proto.Message, format string, args ...any) error {
	if p.out.format == formatJSON {
		p.out.message(answer)
	} else {
		p.out.linef(format, args...)
	}
	return nil
}

// nodeView is the cluster as the node behind one endpoint sees it.
type nodeView struct {
	endpoint string
	status   *decreev1.StatusResponse
	live     *decreev1.View // where it was looked at
	err      error
}

var errNoLeader = errors.New("no leader is known")

func (p *program) clusterStatusCommand() *cobra.Command {
	var quiet, watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "show every node as it sees itself, and who leads",
		Long: `Asks every endpoint. The exit code is 6 when none knows a leader.

With --watch it goes on until it is stopped: a terminal is redrawn, with the rate of
decisions, how far each node is behind and what each participant has before it; elsewhere
a line, or with -o json an object, follows the other.`,
		Example: "  decree cluster status\n  decree cluster status --watch\n  decree cluster status --watch --interval 10s >> status.log",
		Args:    cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if watch {
			return p.attached(func(ctx context.Context, c *client.Client, _ []string) error {
				return p.watchCluster(ctx, c, interval)
			})(cmd, args)
		}
		return p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			return p.clusterStatus(ctx, c, quiet)
		})(cmd, args)
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the leader's id only")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until stopped")
	cmd.Flags().DurationVar(&interval, "interval", defaultWatchInterval, "with --watch, look once in each `interval`")
	cmd.MarkFlagsMutuallyExclusive("quiet", "watch")
	return cmd
}

func (p *program) clusterStatus(ctx context.Context, c *client.Client, quiet bool) error {
	views := p.askAll(ctx, c)
	best := bestView(views)
	switch {
	case p.out.format == formatJSON:
		if err := p.statusJSON(best, views); err != nil {
			return err
		}
	case quiet && best.GetLeader() != "":
		p.out.linef("%s", best.GetLeader())
	case !quiet:
		p.statusTables(best, views)
	}
	if best.GetLeader() == "" {
		return noLeader(views)
	}
	return nil
}

// askAll asks the nodes side by side: one that hangs must not hide the others.
func (p *program) askAll(ctx context.Context, c *client.Client) []nodeView {
	views := make([]nodeView, len(p.dial.endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range p.dial.endpoints {
		asked.Go(func() {
			status, err := c.NodeStatus(ctx, endpoint)
			views[i] = nodeView{endpoint: endpoint, status: status, err: err}
		})
	}
	asked.Wait()
	return views
}

// bestView is what the node says that should know best: one that believes to
// lead, in the latest epoch, else the one that is furthest. Nil when none
// answered.
func bestView(views []nodeView) *decreev1.StatusResponse {
	var best *decreev1.StatusResponse
	rank := func(s *decreev1.StatusResponse) (epoch uint64, leads bool, applied uint64) {
		return s.GetEpoch(), s.GetLeader() != "" && s.GetLeader() == s.GetNode(), s.GetAppliedIndex()
	}
	for _, v := range views {
		if v.err != nil {
			continue
		}
		epoch, leads, applied := rank(v.status)
		bestEpoch, bestLeads, bestApplied := rank(best)
		switch {
		case best == nil,
			epoch > bestEpoch,
			epoch == bestEpoch && leads && !bestLeads,
			epoch == bestEpoch && leads == bestLeads && applied > bestApplied:
			best = v.status
		}
	}
	return best
}

// noLeader is why status fails: every endpoint's error, if none answered at all.
func noLeader(views []nodeView) error {
	for _, v := range views {
		if v.err == nil {
			return &toldError{errors.Join(errNoLeader, client.ErrUnavailable)}
		}
	}
	return noneAnswered(views)
}

func (p *program) statusTables(best *decreev1.StatusResponse, views []nodeView) {
	if best == nil {
		return
	}
	leader := best.GetLeader()
	if leader == "" {
		leader = "none"
	}
	p.out.fields(
		"cluster", best.GetCluster(),
		"group", groupLine(best.GetGroup()),
		"leader", leader,
		"epoch", strconv.FormatUint(best.GetEpoch(), 10),
		"transactions", strconv.FormatUint(best.GetUnfinished(), 10)+" unfinished, "+
			strconv.FormatUint(best.GetRetained(), 10)+" known, "+
			strconv.FormatUint(best.GetDamaged(), 10)+" damaged",
		"horizon", shortTime(asTime(best.GetHorizon())),
	)
	p.out.linef("")
	p.out.table([]string{"NODE", "ROLE", "RAFT ADDRESS", "ENDPOINT", "APPLIED", "ENTRIES", "DISK FREE", "VERSION", "ERROR"}, nodeRows(best, views))
}

// nodeRows has a row for each member, and one for each endpoint that is nobody's
// as far as could be learnt.
func nodeRows(best *decreev1.StatusResponse, views []nodeView) [][]string {
	byNode := map[string]nodeView{}
	for _, v := range views {
		if v.err == nil {
			byNode[v.status.GetNode()] = v
		}
	}
	var rows [][]string
	members := slices.SortedFunc(slices.Values(best.GetNodes()), func(a, b *decreev1.Node) int {
		return strings.Compare(a.GetId(), b.GetId())
	})
	for _, n := range members {
		v, answered := byNode[n.GetId()]
		delete(byNode, n.GetId())
		row := []string{n.GetId(), role(n), n.GetRaftAddress()}
		if answered {
			row = append(row, answeredCells(v)...)
		}
		rows = append(rows, padded(row))
	}
	for _, v := range views {
		if _, stranger := byNode[v.status.GetNode()]; v.err == nil && stranger {
			rows = append(rows, padded(append([]string{v.status.GetNode(), "not a member", ""}, answeredCells(v)...)))
		}
		if v.err != nil {
			rows = append(rows, []string{"", "", "", v.endpoint, "", "", "", "", strings.TrimPrefix(v.err.Error(), "decree: ")})
		}
	}
	return rows
}

func answeredCells(v nodeView) []string {
	return []string{
		v.endpoint,
		strconv.FormatUint(v.status.GetAppliedIndex(), 10),
		strconv.FormatUint(v.status.GetEntries(), 10),
		diskRoom(v.status),
		v.status.GetVersion(),
	}
}

// diskRoom is what is left on a node's disk, empty where it does not know.
func diskRoom(s *decreev1.StatusResponse) string {
	free := s.GetDiskFree()
	unit, name := uint64(1<<20), "MiB"
	if free >= 10<<30 {
		unit, name = 1<<30, "GiB"
	}
	room := strconv.FormatUint(free/unit, 10) + " " + name
	switch {
	case s.GetDiskLow():
		return room + ", low"
	case free == 0:
		return ""
	default:
		return room
	}
}

// padded fills a row of the status table up.
func padded(row []string) []string {
	const columns = 9
	return append(row, make([]string, columns-len(row))...)
}

func role(n *decreev1.Node) string {
	switch {
	case n.GetLeader():
		return "leader"
	case n.GetVoter():
		return "follower"
	default:
		return "catching up"
	}
}

// statusJSON writes the best view's essentials and every endpoint's whole view.
func (p *program) statusJSON(best *decreev1.StatusResponse, views []nodeView) error {
	type nodeJSON struct {
		Endpoint string          `json:"endpoint"`
		Error    string          `json:"error,omitempty"`
		Status   json.RawMessage `json:"status,omitempty"`
		Live     json.RawMessage `json:"live,omitempty"`
	}
	report := struct {
		Cluster string     `json:"cluster"`
		Leader  string     `json:"leader"`
		Epoch   uint64     `json:"epoch"`
		Nodes   []nodeJSON `json:"nodes"`
	}{Cluster: best.GetCluster(), Leader: best.GetLeader(), Epoch: best.GetEpoch()}
	for _, v := range views {
		node := nodeJSON{Endpoint: v.endpoint}
		if v.err != nil {
			node.Error = v.err.Error()
		} else {
			status, err := apiJSON.Marshal(v.status)
			if err != nil {
				return err
			}
			node.Status = status
		}
		if v.err == nil && v.live != nil {
			without := proto.CloneOf(v.live)
			without.Status = nil // it stands beside it
			live, err := apiJSON.Marshal(without)
			if err != nil {
				return err
			}
			node.Live = live
		}
		report.Nodes = append(report.Nodes, node)
	}
	p.out.object(report)
	return nil
}
