package transport

import (
	"context"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"

	"github.com/decree-tx/decree/fsm/group"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// groups is decree.v1.Groups. Its call is repeated where its outcome is not known: the
// same group again changes nothing.
type groups struct {
	decreev1.UnimplementedGroupsServer
	*Server
}

// SetGroup implements the RPC.
func (s *groups) SetGroup(ctx context.Context, req *decreev1.SetGroupRequest) (*decreev1.SetGroupResponse, error) {
	g, err := parseGroup(req.GetGroup())
	if err != nil {
		return nil, refuse(err, "")
	}
	return route(ctx, s.Server, &errand[*decreev1.SetGroupResponse]{
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.SetGroupResponse, error) {
			if err := s.cfg.Registrar.SetGroup(ctx, operatorOf(ctx, req.GetReason()), g); err != nil {
				return nil, err
			}
			return &decreev1.SetGroupResponse{Group: groupMessage(g)}, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.SetGroupResponse, error) {
			return decreev1.NewGroupsClient(conn).SetGroup(ctx, req)
		},
	})
}

func parseGroup(m *decreev1.Group) (group.Group, error) {
	var bad invalidError
	g := group.Group{Number: int(m.GetNumber()), Of: int(m.GetOf())}
	if err := g.Validate(); err != nil {
		bad.add(reasonInvalidRequest, "group", "%v", err)
	}
	return g, bad.err()
}

// groupMessage of a cluster that takes every txid is nil.
func groupMessage(g group.Group) *decreev1.Group {
	if g == (group.Group{}) {
		return nil
	}
	return &decreev1.Group{Number: uint32(g.Number), Of: uint32(g.Of)} //nolint:gosec // from 1 to 1024
}

// noteGroup tells, with a refusal, which group the cluster is, so that a client which made
// the txid itself can make one that is the cluster's.
func noteGroup(info *errdetails.ErrorInfo, g group.Group) {
	if info.Metadata == nil {
		info.Metadata = map[string]string{}
	}
	info.Metadata["group"], info.Metadata["groups"] = strconv.Itoa(g.Number), strconv.Itoa(g.Of)
}
