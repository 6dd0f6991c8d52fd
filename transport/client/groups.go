package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/decree-tx/decree/fsm/group"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// Group is one of several clusters among which an application shares out its
// transactions. The zero Group is that of a cluster which takes every txid.
type Group = group.Group

// ErrMisplaced is wrapped where a cluster is not the group that its place among
// [GroupsConfig.Clusters] says. Nothing was sent to it.
var ErrMisplaced = errors.New("decree: the cluster is not the group that it is configured as")

// GroupsConfig says where the groups are.
type GroupsConfig struct {
	// Clusters are all groups, in their order: the first is group 1. How many there are
	// never changes.
	Clusters []Config
	// Near, where it is not empty, are the groups, from 1, of which the txids are that the
	// Groups make: those whose leaders are in the client's region, for one. A txid is then
	// drawn until it falls to one of them, which of three groups takes three draws on
	// average, and some microseconds. Transactions of the others are found as well.
	Near []int
}

// Validate reports every problem at once.
func (c GroupsConfig) Validate() error {
	var errs []error
	if n := len(c.Clusters); n < 1 || n > group.Slots {
		errs = append(errs, fmt.Errorf("decree: %d clusters, want 1 to %d", n, group.Slots))
	}
	for i, cluster := range c.Clusters {
		if err := cluster.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("decree: group %d: %w", i+1, err))
		}
	}
	for _, n := range c.Near {
		if n < 1 || n > len(c.Clusters) {
			errs = append(errs, fmt.Errorf("decree: near group %d of %d", n, len(c.Clusters)))
		}
	}
	return errors.Join(errs...)
}

// Groups runs transactions on several clusters that share nothing, each transaction on the
// one to which its txid belongs: where one leader is not enough, or where regions should
// have their own. The txid is chosen before the cluster is, so that a retry, an inquiry or
// a restarted application meets the same one. It is safe for concurrent use.
//
// Each cluster must have been told which group it is (decree cluster group K --of N). Before
// the first call to one its node is asked, and a cluster that is another, or none, is
// refused with [ErrMisplaced]; a txid that comes to the wrong cluster by another way is
// refused by that, with [ErrOtherGroup].
type Groups struct {
	places []*place // set once by NewGroups, in the order of the groups
	near   []int
}

// place is one group's cluster.
type place struct {
	group   Group
	client  *Client
	checked atomic.Bool // it is the group that it should be
}

// NewGroups makes a client of all groups. It does not wait for a connection. Close it when
// done.
func NewGroups(cfg GroupsConfig) (*Groups, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Groups{near: slices.Clone(cfg.Near)}
	for i, cluster := range cfg.Clusters {
		c, err := New(cluster)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("decree: group %d: %w", i+1, err), g.Close())
		}
		p := &place{group: Group{Number: i + 1, Of: len(cfg.Clusters)}, client: c}
		c.group.Store(&p.group)
		g.places = append(g.places, p)
	}
	return g, nil
}

// Close ends all connections. Calls under way fail.
func (g *Groups) Close() error {
	var errs []error
	for _, p := range g.places {
		errs = append(errs, p.client.Close())
	}
	return errors.Join(errs...)
}

// NewTxID makes a txid of a near group, or of any where none is.
func (g *Groups) NewTxID() (string, error) {
	for {
		id, err := uuid.NewV7()
		if err != nil {
			return "", fmt.Errorf("decree: make a txid: %w", err)
		}
		if len(g.near) == 0 || slices.Contains(g.near, group.Number(id, len(g.places))) {
			return id.String(), nil
		}
	}
}

// Of is the client of the cluster that a txid belongs to, for whatever Groups has no method
// of its own. It blocks until that cluster has told which group it is, which it is asked
// once. Errors are [ErrMalformedTxID], [ErrMisplaced] and those of [Client.Status].
func (g *Groups) Of(ctx context.Context, txid string) (*Client, error) {
	id, err := uuid.Parse(txid)
	if err != nil || len(txid) != len(uuid.UUID{}.String()) {
		return nil, fmt.Errorf("decree: %w: %q", ErrMalformedTxID, txid)
	}
	p := g.places[group.Number(id, len(g.places))-1]
	return p.client, p.check(ctx)
}

// All are the clients of the clusters, in the order of the groups: what is asked of each,
// such as [Client.List], or set at each, such as [Client.PutParticipant].
func (g *Groups) All() []*Client {
	clients := make([]*Client, len(g.places))
	for i, p := range g.places {
		clients[i] = p.client
	}
	return clients
}

// Submit is [Client.Submit] at the transaction's cluster.
func (g *Groups) Submit(ctx context.Context, t Transaction) (Result, error) {
	if t.TxID == "" {
		var err error
		if t.TxID, err = g.NewTxID(); err != nil {
			return Result{}, err
		}
	}
	c, err := g.Of(ctx, t.TxID)
	if err != nil {
		return Result{TxID: t.TxID}, err
	}
	return c.Submit(ctx, t)
}

// Begin is [Client.Begin] at a near group's cluster, or at any where none is.
func (g *Groups) Begin(ctx context.Context, timeout time.Duration) (*Tx, error) {
	txid, err := g.NewTxID()
	if err != nil {
		return nil, err
	}
	return g.BeginAs(ctx, txid, timeout)
}

// BeginAs is [Client.BeginAs] at the transaction's cluster.
func (g *Groups) BeginAs(ctx context.Context, txid string, timeout time.Duration) (*Tx, error) {
	c, err := g.Of(ctx, txid)
	if err != nil {
		return nil, err
	}
	return c.BeginAs(ctx, txid, timeout)
}

// Inquire is [Client.Inquire] at the transaction's cluster.
func (g *Groups) Inquire(ctx context.Context, txid string) (Result, error) {
	c, err := g.Of(ctx, txid)
	if err != nil {
		return Result{TxID: txid}, err
	}
	return c.Inquire(ctx, txid)
}

// Get is [Client.Get] at the transaction's cluster.
func (g *Groups) Get(ctx context.Context, txid string) (*decreev1.Transaction, error) {
	c, err := g.Of(ctx, txid)
	if err != nil {
		return nil, err
	}
	return c.Get(ctx, txid)
}

// check asks the cluster once which group it is. One that is alone may have been told
// nothing.
func (p *place) check(ctx context.Context) error {
	if p.checked.Load() {
		return nil
	}
	is, err := p.ask(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("decree: ask %s which group it is: %w", p.group, err)
	case is == p.group, is == Group{} && p.group.Of == 1:
		p.checked.Store(true)
		return nil
	case is == Group{}:
		return fmt.Errorf("%w: %s at %s was told no group (decree cluster group %d --of %d, before its first participant)",
			ErrMisplaced, p.group, p.client.endpoints.all[0].address, p.group.Number, p.group.Of)
	default:
		return fmt.Errorf("%w: %s at %s is %s", ErrMisplaced, p.group, p.client.endpoints.all[0].address, is)
	}
}

// ask asks until the leader answers, or a node that knows of a group: one that does not may
// be behind.
func (p *place) ask(ctx context.Context) (Group, error) {
	for {
		status, err := p.client.Status(ctx)
		if err != nil {
			return Group{}, err
		}
		is := Group{Number: int(status.GetGroup().GetNumber()), Of: int(status.GetGroup().GetOf())}
		if is != (Group{}) || status.GetLeader() == status.GetNode() {
			return is, nil
		}
		select {
		case <-time.After(askPause):
		case <-ctx.Done():
			return is, context.Cause(ctx)
		}
	}
}

// askPause is how long a follower that is behind is left alone.
const askPause = 100 * time.Millisecond

// SetGroup tells a new cluster which group it is, of how many, once and for good: before
// its first participant is registered. The same again changes nothing; see [ErrGroupStays]
// and [ErrTooLateForGroup] for what is refused.
func (c *Client) SetGroup(ctx context.Context, g Group) error {
	_, err := do(ctx, c, &call{}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.SetGroupResponse, error) {
		return decreev1.NewGroupsClient(conn).SetGroup(ctx, &decreev1.SetGroupRequest{
			Group:  &decreev1.Group{Number: uint32(max(g.Number, 0)), Of: uint32(max(g.Of, 0))}, //nolint:gosec // the server bounds them
			Reason: because(ctx),
		})
	})
	return err
}

// underNewID runs something under a txid that the client makes. A client of one cluster
// does not know at first that it is one of several: a refusal tells, once, and as nothing
// was done under the txid that was refused, another may take its place.
func underNewID[T any](c *Client, run func(txid string) (T, error)) (answer T, err error) {
	for {
		id, err := uuid.NewV7()
		if err != nil {
			return answer, fmt.Errorf("decree: make a txid: %w", err)
		}
		if g := c.group.Load(); g != nil && !g.Takes(id) {
			continue
		}
		answer, err = run(id.String())
		if !c.learnt(id, err) {
			return answer, err
		}
	}
}

// learnt reports whether a refusal has told the cluster's group, and that the txid is not
// of it.
func (c *Client) learnt(id uuid.UUID, err error) bool {
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Reason != ErrOtherGroup || refusal.Group.Takes(id) {
		return false
	}
	c.group.CompareAndSwap(nil, &refusal.Group)
	return *c.group.Load() == refusal.Group
}

// groupOf reads a refusal's metadata; it is the zero Group where they tell none.
func groupOf(metadata map[string]string) Group {
	number, err1 := strconv.Atoi(metadata["group"])
	of, err2 := strconv.Atoi(metadata["groups"])
	g := Group{Number: number, Of: of}
	if errors.Join(err1, err2, g.Validate()) != nil {
		return Group{}
	}
	return g
}
