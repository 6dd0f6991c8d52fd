package transport

import (
	"context"

	"google.golang.org/grpc"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/fsm"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// nodes is decree.v1.Cluster. Changes of the membership are not repeated where
// they may have been carried out: the operator looks at the status first.
type nodes struct {
	decreev1.UnimplementedClusterServer
	*Server
}

// Status implements the RPC: this node's view.
func (s *nodes) Status(context.Context, *decreev1.StatusRequest) (*decreev1.StatusResponse, error) {
	return s.status(), nil
}

func (s *Server) status() *decreev1.StatusResponse {
	st := s.cfg.Node.Status()
	m := s.cfg.Machine
	now, stats := m.Cluster(), m.Stats()
	answer := &decreev1.StatusResponse{
		Cluster:      m.ClusterID(),
		Node:         st.ID,
		Leader:       st.Leader.ID,
		Epoch:        now.Epoch,
		CommitIndex:  st.CommitIndex,
		AppliedIndex: m.AppliedIndex(),
		LastIndex:    st.LastIndex,
		ClusterTime:  timeMessage(now.Now),
		Horizon:      timeMessage(now.Horizon),
		Unfinished:   uint64(stats.Unfinished), //nolint:gosec // a count
		Retained:     uint64(stats.Retained),   //nolint:gosec // a count
		Damaged:      uint64(stats.Damaged),    //nolint:gosec // a count
		Entries:      stats.Entries,
		EntryBytes:   stats.Bytes,
		Version:      s.cfg.Version,
		DiskFree:     uint64(max(0, st.Disk.Free)),    //nolint:gosec // not negative
		DiskReserve:  uint64(max(0, st.Disk.Reserve)), //nolint:gosec // not negative
		DiskLow:      st.Disk.Low,
		Level:        uint32(m.Level()),
		NewestLevel:  uint32(fsm.Newest),
		Group:        groupMessage(now.Group),
	}
	for _, n := range st.Members {
		answer.Nodes = append(answer.Nodes, &decreev1.Node{
			Id: n.ID, RaftAddress: n.RaftAddress, Voter: n.Voter, Leader: n.Leader,
		})
	}
	return answer
}

// AddNode implements the RPC.
func (s *nodes) AddNode(ctx context.Context, req *decreev1.AddNodeRequest) (*decreev1.AddNodeResponse, error) {
	return route(ctx, s.Server, &errand[*decreev1.AddNodeResponse]{
		budget: joinBudget,
		once:   true,
		local: func(ctx context.Context) (*decreev1.AddNodeResponse, error) {
			peer := cluster.Peer{ID: req.GetId(), RaftAddress: req.GetRaftAddress()}
			return &decreev1.AddNodeResponse{}, s.onRecord(ctx, "add node", peer.ID, peer.RaftAddress, req.GetReason(), func() error {
				return s.cfg.Node.AddNode(ctx, peer)
			})
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.AddNodeResponse, error) {
			return decreev1.NewClusterClient(conn).AddNode(ctx, req)
		},
	})
}

// RemoveNode implements the RPC.
func (s *nodes) RemoveNode(ctx context.Context, req *decreev1.RemoveNodeRequest) (*decreev1.RemoveNodeResponse, error) {
	return route(ctx, s.Server, &errand[*decreev1.RemoveNodeResponse]{
		budget: callBudget,
		once:   true,
		local: func(ctx context.Context) (*decreev1.RemoveNodeResponse, error) {
			return &decreev1.RemoveNodeResponse{}, s.onRecord(ctx, "remove node", req.GetId(), "", req.GetReason(), func() error {
				return s.cfg.Node.RemoveNode(ctx, req.GetId())
			})
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.RemoveNodeResponse, error) {
			return decreev1.NewClusterClient(conn).RemoveNode(ctx, req)
		},
	})
}

// TransferLeadership implements the RPC.
func (s *nodes) TransferLeadership(ctx context.Context, req *decreev1.TransferLeadershipRequest) (*decreev1.TransferLeadershipResponse, error) {
	return route(ctx, s.Server, &errand[*decreev1.TransferLeadershipResponse]{
		budget: callBudget,
		once:   true,
		local: func(ctx context.Context) (*decreev1.TransferLeadershipResponse, error) {
			return &decreev1.TransferLeadershipResponse{}, s.onRecord(ctx, "transfer leadership", req.GetId(), "", req.GetReason(), func() error {
				return s.cfg.Node.TransferLeadership(ctx, req.GetId())
			})
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.TransferLeadershipResponse, error) {
			return decreev1.NewClusterClient(conn).TransferLeadership(ctx, req)
		},
	})
}
