package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/participants"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// registry is decree.v1.Participants.
type registry struct {
	decreev1.UnimplementedParticipantsServer
	*Server
}

// Put implements the RPC.
func (s *registry) Put(ctx context.Context, req *decreev1.PutRequest) (*decreev1.PutResponse, error) {
	r, err := s.parseRegistration(req.GetParticipant())
	if err != nil {
		return nil, refuse(err, "")
	}
	return route(ctx, s.Server, &errand[*decreev1.PutResponse]{
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.PutResponse, error) {
			put, err := s.cfg.Registrar.PutParticipant(ctx, operatorOf(ctx, req.GetReason()), r)
			if err != nil {
				return nil, err
			}
			m, err := s.participantMessage(fsm.Participant(put))
			return &decreev1.PutResponse{Participant: m}, err
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.PutResponse, error) {
			return decreev1.NewParticipantsClient(conn).Put(ctx, req)
		},
	})
}

// parseRegistration checks what an operator registers, the driver's configuration
// too, before it is proposed: a registration that does not open would stay in the
// log.
func (s *registry) parseRegistration(p *decreev1.Participant) (participants.Registration, error) {
	var bad invalidError
	if !participantName.MatchString(p.GetName()) {
		bad.add(reasonInvalidRequest, "participant.name",
			"%q: want letters, digits, '.', '_' and '-', at most 63, a letter first", p.GetName())
	}
	config, err := canonicalJSON(p.GetConfig(), p.GetConfig().AsMap())
	if err != nil {
		bad.add(reasonInvalidRequest, "participant.config", "%v", err)
	}
	if len(config) > fsm.MaxConfigBytes {
		bad.add(reasonTooLarge, "participant.config", "%d bytes, at most %d", len(config), fsm.MaxConfigBytes)
	}
	r := participants.Registration{Name: p.GetName(), Driver: p.GetDriver(), Config: config}
	switch err := s.cfg.Drivers.Check(r); {
	case errors.Is(err, participants.ErrUnknownDriver):
		bad.add(reasonUnknownDriver, "participant.driver", "%v", err)
	case err != nil:
		// All problems come joined by line ends, and a violation is one line.
		bad.add(reasonInvalidRequest, "participant.config", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return r, bad.err()
}

func (s *registry) participantMessage(p fsm.Participant) (*decreev1.Participant, error) {
	config := &structpb.Struct{}
	if err := protojson.Unmarshal(p.Config, config); err != nil {
		return nil, fmt.Errorf("configuration of participant %q: %w", p.Name, err)
	}
	return &decreev1.Participant{
		Name:       p.Name,
		Driver:     p.Driver,
		Config:     config,
		Revision:   p.Revision,
		Identity:   p.Identity,
		Unfinished: uint64(max(0, s.cfg.Machine.OpenAt(p.Name))), //nolint:gosec // a count
	}, nil
}

// Get implements the RPC, from this node's state.
func (s *registry) Get(_ context.Context, req *decreev1.ParticipantsGetRequest) (*decreev1.ParticipantsGetResponse, error) {
	p, ok := s.cfg.Machine.Participant(req.GetName())
	if !ok {
		return nil, refuse(fmt.Errorf("%w %q", coordinator.ErrUnknownParticipant, req.GetName()), "")
	}
	m, err := s.participantMessage(p)
	if err != nil {
		return nil, refuse(err, "")
	}
	return &decreev1.ParticipantsGetResponse{Participant: m}, nil
}

// List implements the RPC, from this node's state.
func (s *registry) List(context.Context, *decreev1.ParticipantsListRequest) (*decreev1.ParticipantsListResponse, error) {
	answer := &decreev1.ParticipantsListResponse{}
	for _, p := range s.cfg.Machine.Participants() {
		m, err := s.participantMessage(p)
		if err != nil {
			return nil, refuse(err, "")
		}
		answer.Participants = append(answer.Participants, m)
	}
	return answer, nil
}

// Delete implements the RPC.
func (s *registry) Delete(ctx context.Context, req *decreev1.DeleteRequest) (*decreev1.DeleteResponse, error) {
	e := &errand[*decreev1.DeleteResponse]{
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.DeleteResponse, error) {
			return &decreev1.DeleteResponse{}, s.cfg.Registrar.DeleteParticipant(ctx, operatorOf(ctx, req.GetReason()), req.GetName())
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.DeleteResponse, error) {
			return decreev1.NewParticipantsClient(conn).Delete(ctx, req)
		},
	}
	answer, err := route(ctx, s.Server, e)
	if err != nil && e.ran && reasonOf(err) == reasonUnknownParticipant {
		return &decreev1.DeleteResponse{}, nil // an earlier attempt deleted it
	}
	return answer, err
}

// Check implements the RPC. That the participant can't be reached is an answer.
func (s *registry) Check(ctx context.Context, req *decreev1.CheckRequest) (*decreev1.CheckResponse, error) {
	return route(ctx, s.Server, &errand[*decreev1.CheckResponse]{
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.CheckResponse, error) {
			found, err := s.cfg.Coordinator.Check(ctx, req.GetName())
			switch {
			case errors.Is(err, coordinator.ErrNotLeader), errors.Is(err, coordinator.ErrUnknownParticipant):
				return nil, err
			case err != nil:
				return &decreev1.CheckResponse{Error: message(err)}, nil
			}
			return &decreev1.CheckResponse{
				Reachable: true,
				Recovers:  found.Recovers,
				Prepared:  uint32(max(0, found.Prepared)), //nolint:gosec // a count
			}, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.CheckResponse, error) {
			return decreev1.NewParticipantsClient(conn).Check(ctx, req)
		},
	})
}
