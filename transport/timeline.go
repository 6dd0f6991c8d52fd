package transport

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// timelines is decree.v1.Timelines.
type timelines struct {
	decreev1.UnimplementedTimelinesServer
	*Server
}

// GetTimeline implements the RPC. A node that does not lead has the leader answer, and
// adds what it recorded itself while it led.
func (s *timelines) GetTimeline(ctx context.Context, req *decreev1.GetTimelineRequest) (*decreev1.GetTimelineResponse, error) {
	id, err := txidOf(req.GetTxid())
	if err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	leading := s.cfg.Coordinator.Leads()
	if !leading && hops(ctx) == 0 {
		if answer, err := s.askLeader(ctx, req); err == nil {
			answer.Recordings = merged(answer.GetRecordings(), s.recordings(id))
			return answer, nil
		}
	}
	t, known := s.seen(ctx, id)
	if !known {
		return nil, refuse(s.missing(id), req.GetTxid())
	}
	return &decreev1.GetTimelineResponse{
		Transaction: transactionMessage(t, s.cfg.Coordinator.Deliveries(id)),
		Recordings:  s.recordings(id),
		Node:        s.observer.self,
		Leading:     leading,
	}, nil
}

func (s *timelines) askLeader(ctx context.Context, req *decreev1.GetTimelineRequest) (*decreev1.GetTimelineResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, getPatience)
	defer cancel()
	return try(ctx, s.Server, &errand[*decreev1.GetTimelineResponse]{
		local: func(context.Context) (*decreev1.GetTimelineResponse, error) {
			return nil, coordinator.ErrNotLeader // it has begun to lead: its own state answers
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.GetTimelineResponse, error) {
			return decreev1.NewTimelinesClient(conn).GetTimeline(ctx, req)
		},
	}, s.observer.view())
}

// recordings are this node's own.
func (s *timelines) recordings(id txn.TxID) (all []*decreev1.Recording) {
	for _, tl := range s.cfg.Coordinator.Timelines(id) {
		all = append(all, recordingMessage(s.observer.self, tl))
	}
	return all
}

// merged orders what two nodes have by epoch. No epoch has two leaders.
func merged(a, b []*decreev1.Recording) []*decreev1.Recording {
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, func(x, y *decreev1.Recording) int {
		return cmp.Compare(x.GetEpoch(), y.GetEpoch())
	})
	return all
}

func recordingMessage(node string, tl coordinator.Timeline) *decreev1.Recording {
	m := &decreev1.Recording{
		Node:      node,
		Epoch:     tl.Epoch,
		Since:     timeMessage(tl.Since),
		AsOf:      timeMessage(tl.AsOf),
		TakenOver: tl.TakenOver,
		Begun:     timeMessage(tl.Begun),
		Staging:   timeMessage(tl.Staging),
		Staged:    timeMessage(tl.Staged),
		Deciding:  timeMessage(tl.Deciding),
		Decided:   timeMessage(tl.Decided),
		Delivered: timeMessage(tl.Delivered),
	}
	for _, b := range tl.Branches {
		m.Branches = append(m.Branches, recordedBranch(b))
	}
	return m
}

func recordedBranch(b coordinator.BranchTimeline) *decreev1.RecordedBranch {
	m := &decreev1.RecordedBranch{
		Number:       uint32(b.Branch), //nolint:gosec // at most MaxBranches
		PrepareSent:  timeMessage(b.Prepared),
		Prepares:     uint32(b.Prepares), //nolint:gosec // a count
		Voted:        timeMessage(b.Voted),
		Vote:         decreev1.Vote(b.Vote),
		VoteDetail:   message(errorText(b.VoteDetail)),
		Attempts:     uint32(b.Attempts), //nolint:gosec // a count
		FirstAttempt: timeMessage(b.FirstSent),
		LastAttempt:  timeMessage(b.LastSent),
		NextAttempt:  timeMessage(b.Next),
		LastError:    message(errorText(b.LastError)),
		Acknowledged: timeMessage(b.Answered),
		Receipt:      decreev1.Receipt(b.Receipt),
		Evidence:     message(errorText(b.Evidence)),
	}
	for _, f := range b.Failed {
		m.Failed = append(m.Failed, &decreev1.FailedAttempt{Sent: timeMessage(f.Sent), Failed: timeMessage(f.Failed)})
	}
	return m
}
