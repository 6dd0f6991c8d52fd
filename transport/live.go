package transport

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

const (
	// lookInterval is the pace of WatchCluster: what people can follow.
	lookInterval = time.Second
	// lookPatience bounds how long another node is waited for, so that one which hangs
	// delays the view of the others little.
	lookPatience = 700 * time.Millisecond
)

// live is decree.v1.Live.
type live struct {
	decreev1.UnimplementedLiveServer
	*Server
}

// Look implements the RPC.
func (s *live) Look(context.Context, *decreev1.LookRequest) (*decreev1.LookResponse, error) {
	return &decreev1.LookResponse{View: s.look()}, nil
}

func (s *live) look() *decreev1.View {
	v := &decreev1.View{Node: s.observer.self, Status: s.status(), Leading: s.cfg.Coordinator.Leads()}
	for t := range s.cfg.Machine.Open { // oldest id first, and ids are in order of time
		v.OldestTxid, v.Oldest = t.ID.String(), timeMessage(since(t))
		break
	}
	if v.GetLeading() {
		v.Pulse, v.Loads = pulseMessage(s.cfg.Pulse()), loadMessages(s.cfg.Coordinator.Loads())
	}
	return v
}

// since is when a transaction began: a tombstone that adopted branches was never staged.
func since(t *txn.Transaction) txn.Time {
	if t.Staged.At != 0 {
		return t.Staged.At
	}
	return t.ID.Time()
}

func pulseMessage(p Pulse) *decreev1.Pulse {
	return &decreev1.Pulse{
		Window: durationpb.New(p.Window), Transactions: p.Transactions, PerSecond: p.PerSecond,
		P50: durationpb.New(p.P50), P99: durationpb.New(p.P99), AbortShare: p.AbortShare,
	}
}

func loadMessages(loads []coordinator.Load) []*decreev1.Load {
	slices.SortFunc(loads, func(a, b coordinator.Load) int { return strings.Compare(a.Participant, b.Participant) })
	all := make([]*decreev1.Load, 0, len(loads))
	for _, l := range loads {
		all = append(all, &decreev1.Load{
			Participant: l.Participant, Unfinished: number(l.Unfinished),
			Preparing: number(l.Preparing), PreparesWaiting: number(l.PreparesWaiting),
			Delivering: number(l.Delivering), DeliveriesWaiting: number(l.DeliveriesWaiting),
			Failures: number(l.Failures), Down: l.Down(), Pace: durationpb.New(l.Pace),
			Orphans: number(l.Orphans), Scanned: timeMessage(l.Scanned),
		})
	}
	return all
}

func number(n int) uint32 { return uint32(max(0, min(n, math.MaxUint32))) } //nolint:gosec // bounded

// WatchCluster implements the RPC.
func (s *live) WatchCluster(_ *decreev1.WatchClusterRequest, stream grpc.ServerStreamingServer[decreev1.WatchClusterResponse]) error {
	select {
	case s.watches <- struct{}{}:
		defer func() { <-s.watches }()
	default:
		return refuse(&coordinator.BusyError{What: "too many watches at this node", RetryAfter: busyDelay}, "")
	}
	pace := time.NewTicker(lookInterval)
	defer pace.Stop()
	for {
		if err := stream.Send(&decreev1.WatchClusterResponse{Views: s.lookAround(stream.Context())}); err != nil {
			return fmt.Errorf("send the views: %w", err)
		}
		select {
		case <-pace.C:
		case <-stream.Context().Done():
			if s.ended.Err() != nil {
				return refuse(errStopping, "")
			}
			return nil
		}
	}
}

// lookAround is this node's view, and those of all others in the order of their
// configuration.
func (s *live) lookAround(ctx context.Context) []*decreev1.View {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	members := slices.DeleteFunc(s.cfg.Node.Status().Members, func(m cluster.Member) bool { return m.ID == s.observer.self })
	views := make([]*decreev1.View, 1+len(members))
	var looks sync.WaitGroup
	for i, m := range members {
		looks.Go(func() { views[1+i] = s.lookAt(ctx, m.Peer) })
	}
	views[0] = s.look()
	looks.Wait()
	return views
}

// lookAt asks another node.
func (s *live) lookAt(ctx context.Context, n cluster.Peer) *decreev1.View {
	conn, err := s.around.to(n).connect(ctx, n)
	if err != nil {
		return &decreev1.View{Node: n.ID, Error: message(err)}
	}
	answer, err := decreev1.NewLiveClient(conn).Look(passedOn(ctx), &decreev1.LookRequest{})
	if err != nil {
		return &decreev1.View{Node: n.ID, Error: message(err)}
	}
	return answer.GetView()
}

// neighbours are connections to the other nodes' APIs, made when they are first looked
// at. There are as many as the cluster has had nodes under different ids.
type neighbours struct {
	open func() *peerLink // set once

	mu    sync.Mutex
	links map[string]*peerLink
}

func (n *neighbours) to(p cluster.Peer) *peerLink {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, ok := n.links[p.ID]
	if !ok {
		l = n.open()
		if n.links == nil {
			n.links = make(map[string]*peerLink)
		}
		n.links[p.ID] = l
	}
	return l
}

func (n *neighbours) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.close()
	}
}
