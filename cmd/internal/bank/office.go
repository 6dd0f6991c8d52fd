package bank

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/decree-tx/decree/cmd/internal/papers"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/kv"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// Office is a participant that keeps accounts, seen from both sides: what decree
// is asked to do there, and what the resource itself shows to one who goes round
// decree. Its methods may be called from many goroutines.
type Office interface {
	// Participant is how it is registered.
	Participant() *decreev1.Participant
	// Payload is the content of a branch that makes the moves, all of them or
	// none; where they are opening the accounts do not exist yet. A move that takes
	// is refused where there is less.
	Payload(moves []Move, opening bool) any
	// Prepared lists what the resource holds prepared for the cluster, and never
	// asks decree. Names that are not the cluster's are in the error.
	Prepared(ctx context.Context, cluster string) ([]Branch, error)
	// Books reads everything, balances and branches, as they are at one moment. An
	// office that keeps its books in a file can be read only while its service does
	// not run.
	Books(ctx context.Context, cluster string) (Books, error)
	// Close frees what the office holds.
	Close() error
}

// Live is implemented by offices whose books can be read while business goes on.
type Live interface {
	// Posted reads the balances and the finished branches in one snapshot. Branches
	// that are prepared do not show in either.
	Posted(ctx context.Context, cluster string) (Books, error)
}

// Branch names one branch of a transaction.
type Branch struct {
	TxID   string
	Number int // from 1
}

func (b Branch) String() string { return fmt.Sprintf("%s/%d", b.TxID, b.Number) }

// Books are what one participant holds.
type Books struct {
	Participant string
	Balances    map[string]int64 // by account; nil where it is no bank
	Fates       map[Branch]participants.Status
	Strangers   []string // what stands among the branches and is none of the cluster's
}

func newBooks(participant string) Books {
	return Books{Participant: participant, Balances: map[string]int64{}, Fates: map[Branch]participants.Status{}}
}

// registration makes a participant of a name, a driver and its configuration.
func registration(name, driver string, config any) *decreev1.Participant {
	text, err := json.Marshal(config)
	fields := &structpb.Struct{}
	if err == nil {
		err = fields.UnmarshalJSON(text)
	}
	if err != nil {
		panic(fmt.Sprintf("bank: the configuration of %s: %v", name, err)) // all of it is written here
	}
	return &decreev1.Participant{Name: name, Driver: driver, Config: fields}
}

// service is the side of an office that a gRPC participant shows to decree.
type service struct {
	Service
	conn *grpc.ClientConn
	api  participantv1.ParticipantClient
}

// Service says where a gRPC participant is.
type Service struct {
	Name, Address string
	Path          string         // of the file in which it keeps its books
	Papers        *papers.Papers // by which it is reached; nil is plain text
}

func newService(at Service) (*service, error) {
	conn, err := grpc.NewClient(at.Address, grpc.WithTransportCredentials(at.Papers.Calls()))
	if err != nil {
		return nil, err
	}
	return &service{at, conn, participantv1.NewParticipantClient(conn)}, nil
}

// Participant is how it is registered.
func (s *service) Participant() *decreev1.Participant {
	return registration(s.Name, "grpc", s.Papers.Registration(s.Address))
}

// Close ends the connection.
func (s *service) Close() error { return s.conn.Close() }

// Prepared asks the service itself.
func (s *service) Prepared(ctx context.Context, cluster string) ([]Branch, error) {
	stream, err := s.api.Recover(ctx, &participantv1.RecoverRequest{Cluster: cluster})
	if err != nil {
		return nil, err
	}
	var held []Branch
	for {
		page, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return held, nil
		case err != nil:
			return nil, err
		}
		for _, b := range page.GetBranches() {
			held = append(held, Branch{b.GetTxid(), int(b.GetNumber())})
		}
	}
}

// kvOffice keeps its accounts in package kv's store, served over gRPC.
type kvOffice struct{ *service }

// NewKV is the office of a `decree participant kv`.
func NewKV(at Service) (Office, error) {
	s, err := newService(at)
	if err != nil {
		return nil, err
	}
	return &kvOffice{s}, nil
}

// operation is one of package kv's.
type operation struct {
	Op     string `json:"op"`
	Key    string `json:"key"`
	Amount int64  `json:"amount"`
	Min    *int64 `json:"min,omitempty"`
}

// Payload adds to keys; a key that is not there counts as 0.
func (o *kvOffice) Payload(moves []Move, _ bool) any {
	var operations []operation
	for _, m := range moves {
		op := operation{Op: "add", Key: m.Account.Name, Amount: m.Amount}
		if m.Amount < 0 {
			op.Min = new(int64) // never below zero
		}
		operations = append(operations, op)
	}
	return map[string]any{"ops": operations}
}

// Books reads the file of the service, which has stopped.
func (o *kvOffice) Books(ctx context.Context, cluster string) (Books, error) {
	store, err := kv.Open(ctx, o.Path, hclog.NewNullLogger())
	if err != nil {
		return Books{}, err
	}
	defer store.Close() //nolint:errcheck // it was only read
	books := newBooks(o.Name)
	var malformed error
	err = store.Read(ctx, func(at kv.Snapshot) error {
		at.Range("", func(key, value string) bool {
			books.Balances[key], malformed = strconv.ParseInt(value, 10, 64)
			return malformed == nil
		})
		if malformed != nil {
			return malformed
		}
		return at.Outcomes(func(outcome kv.Outcome) bool {
			if b := outcome.Branch; b.Cluster == cluster {
				books.Fates[Branch{b.TxID.String(), b.Number}] = outcome.Status
			} else {
				books.Strangers = append(books.Strangers, b.Cluster+"/"+b.Name())
			}
			return true
		})
	})
	return books, err
}
