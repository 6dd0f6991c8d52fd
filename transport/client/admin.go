package client

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// PutParticipant registers a participant, or changes its configuration.
func (c *Client) PutParticipant(ctx context.Context, p *decreev1.Participant) (*decreev1.Participant, error) {
	answer, err := do(ctx, c, &call{}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.PutResponse, error) {
		return decreev1.NewParticipantsClient(conn).Put(ctx, &decreev1.PutRequest{Participant: p, Reason: because(ctx)})
	})
	return answer.GetParticipant(), err
}

// Participant shows one registration.
func (c *Client) Participant(ctx context.Context, name string) (*decreev1.Participant, error) {
	answer, err := do(ctx, c, &call{mode: read}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ParticipantsGetResponse, error) {
		return decreev1.NewParticipantsClient(conn).Get(ctx, &decreev1.ParticipantsGetRequest{Name: text(name)})
	})
	return answer.GetParticipant(), err
}

// Participants lists all registrations by name.
func (c *Client) Participants(ctx context.Context) ([]*decreev1.Participant, error) {
	answer, err := do(ctx, c, &call{mode: read}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.ParticipantsListResponse, error) {
		return decreev1.NewParticipantsClient(conn).List(ctx, &decreev1.ParticipantsListRequest{})
	})
	return answer.GetParticipants(), err
}

// DeleteParticipant removes a participant that no unfinished transaction touches;
// otherwise the error is [ErrParticipantInUse].
func (c *Client) DeleteParticipant(ctx context.Context, name string) error {
	k := &call{}
	_, err := do(ctx, c, k, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.DeleteResponse, error) {
		return decreev1.NewParticipantsClient(conn).Delete(ctx, &decreev1.DeleteRequest{Name: text(name), Reason: because(ctx)})
	})
	if k.ran && errors.Is(err, ErrUnknownParticipant) {
		return nil // an earlier attempt deleted it
	}
	return err
}

// CheckParticipant has the leader ask the participant for what it holds prepared.
func (c *Client) CheckParticipant(ctx context.Context, name string) (*decreev1.CheckResponse, error) {
	return do(ctx, c, &call{mode: read}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.CheckResponse, error) {
		return decreev1.NewParticipantsClient(conn).Check(ctx, &decreev1.CheckRequest{Name: text(name)})
	})
}

// AddNode admits an empty node under a new id and returns once it votes. Like the
// other calls that change membership it is not repeated where it may have been
// carried out: the error is then [ErrOutcomeUnknown] or [ErrUnavailable], and
// Status tells.
func (c *Client) AddNode(ctx context.Context, id, raftAddress string) error {
	_, err := do(ctx, c, &call{mode: once}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.AddNodeResponse, error) {
		return decreev1.NewClusterClient(conn).AddNode(ctx, &decreev1.AddNodeRequest{Id: text(id), RaftAddress: text(raftAddress), Reason: because(ctx)})
	})
	return err
}

// RemoveNode takes a node out of the cluster.
func (c *Client) RemoveNode(ctx context.Context, id string) error {
	_, err := do(ctx, c, &call{mode: once}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.RemoveNodeResponse, error) {
		return decreev1.NewClusterClient(conn).RemoveNode(ctx, &decreev1.RemoveNodeRequest{Id: text(id), Reason: because(ctx)})
	})
	return err
}

// TransferLeadership hands over to a node, or to one of the cluster's choosing
// when id is empty.
func (c *Client) TransferLeadership(ctx context.Context, id string) error {
	_, err := do(ctx, c, &call{mode: once}, func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.TransferLeadershipResponse, error) {
		return decreev1.NewClusterClient(conn).TransferLeadership(ctx, &decreev1.TransferLeadershipRequest{Id: text(id), Reason: because(ctx)})
	})
	return err
}
