package grpcparticipant_test

// These tests prove that what cannot be a branch never reaches the participant,
// and that a configuration is refused with everything that is wrong with it.

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

func dial(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Whatever is wrong with a request is answered INVALID_ARGUMENT; the participant
// is not asked.
func TestMalformedRequests(t *testing.T) {
	asked := func(context.Context, participants.Branch) error { t.Error("the participant was asked"); return nil }
	api := participantv1.NewParticipantClient(dial(t, serve(t, &scripted{
		prepare: func(ctx context.Context, b participants.Branch) (participants.Vote, error) {
			return participants.Yes(), asked(ctx, b)
		},
		commit: asked,
		abort:  asked,
		status: func(ctx context.Context, b participants.Branch) (participants.Status, error) { return 0, asked(ctx, b) },
	})))
	good := func() *participantv1.Branch {
		return &participantv1.Branch{Cluster: "c1", Txid: uuid.Must(uuid.NewV7()).String(), Number: 1}
	}
	broken := map[string]func(*participantv1.Branch){
		"no cluster":       func(b *participantv1.Branch) { b.Cluster = "" },
		"long cluster":     func(b *participantv1.Branch) { b.Cluster = strings.Repeat("c", 1000) },
		"no txid":          func(b *participantv1.Branch) { b.Txid = "" },
		"txid not v7":      func(b *participantv1.Branch) { b.Txid = uuid.NewString() },
		"number 0":         func(b *participantv1.Branch) { b.Number = 0 },
		"number 257":       func(b *participantv1.Branch) { b.Number = 257 },
		"negative horizon": func(b *participantv1.Branch) { b.Horizon = -1 },
	}
	digest := make([]byte, 32)
	refused := func(name string, err error) {
		t.Helper()
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v; want INVALID_ARGUMENT", name, err)
		}
	}
	each := func(name string, b *participantv1.Branch) {
		ctx := bounded(t)
		_, err := api.Prepare(ctx, &participantv1.PrepareRequest{Branch: b, Digest: digest})
		refused(name, err)
		_, err = api.Commit(ctx, &participantv1.CommitRequest{Branch: b})
		refused(name, err)
		_, err = api.Abort(ctx, &participantv1.AbortRequest{Branch: b})
		refused(name, err)
		_, err = api.Status(ctx, &participantv1.StatusRequest{Branch: b})
		refused(name, err)
	}
	for name, spoil := range broken {
		b := good()
		spoil(b)
		each(name, b)
	}
	each("no branch", nil)
	for _, n := range []int{0, 31, 33} {
		_, err := api.Prepare(bounded(t), &participantv1.PrepareRequest{Branch: good(), Digest: make([]byte, n)})
		refused("digest", err)
	}
	all := good()
	proto.Merge(all, &participantv1.Branch{Cluster: strings.Repeat("c", 1000), Txid: "x", Number: 1000})
	_, err := api.Commit(bounded(t), &participantv1.CommitRequest{Branch: all})
	for _, problem := range []string{"cluster", "transaction id", "number"} {
		if err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%v; want it to name the %s", err, problem)
		}
	}
}

// A participant that breaks its contract, with no vote or an untyped error, has
// not answered.
func TestBrokenParticipantIsAmbiguous(t *testing.T) {
	p := open(t, serve(t, &scripted{
		prepare: func(context.Context, participants.Branch) (participants.Vote, error) { return participants.Vote{}, nil },
		commit:  func(context.Context, participants.Branch) error { return errors.New("disk") },
		abort:   func(context.Context, participants.Branch) error { return &participants.Heuristic{} },
	}))
	for call, err := range calls(bounded(t), p, newBranch("")) {
		mustBeAmbiguous(t, call, err)
	}
}

// Every fate that a participant can prove crosses the wire.
func TestStatusCrossesTheWire(t *testing.T) {
	for _, want := range []participants.Status{
		participants.StatusUnknown, participants.StatusPrepared, participants.StatusCommitted, participants.StatusAborted,
	} {
		p := open(t, serve(t, &scripted{
			status: func(context.Context, participants.Branch) (participants.Status, error) { return want, nil },
		}))
		got, err := p.(participants.StatusReporter).Status(bounded(t), newBranch(""))
		if err != nil || got != want {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
}

// A payload past the wire's bound fails on the way out, as no vote.
func TestPayloadPastTheBound(t *testing.T) {
	p := open(t, serve(t, &scripted{
		prepare: func(context.Context, participants.Branch) (participants.Vote, error) { return participants.Yes(), nil },
	}))
	b := newBranch("")
	b.Payload = make([]byte, 5<<20)
	_, err := p.Prepare(bounded(t), b)
	mustBeAmbiguous(t, "5 MiB", err)
}

// Serve tells orchestrators that it is up, and describes itself to grpcurl.
func TestServeOffersHealth(t *testing.T) {
	conn := dial(t, serve(t, &scripted{}))
	for _, service := range []string{"", participantv1.Participant_ServiceDesc.ServiceName} {
		answer, err := healthv1.NewHealthClient(conn).Check(bounded(t), &healthv1.HealthCheckRequest{Service: service})
		if err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, answer, err)
		}
	}
}

// A stop lets calls under way end: their answers still arrive.
func TestServeStopsGracefully(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	p := open(t, l.Addr().String())
	served := make(chan error, 1)
	go func() {
		served <- grpcparticipant.Serve(ctx, l, &scripted{
			prepare: func(context.Context, participants.Branch) (participants.Vote, error) {
				stop()
				return participants.Yes(), nil
			},
		})
	}()
	until(t, "the service is up", func() bool {
		_, err := p.Recover(bounded(t), "c1")
		return errors.Is(err, errors.ErrUnsupported)
	})
	if vote, err := p.Prepare(bounded(t), newBranch("")); err != nil || vote != participants.Yes() {
		t.Errorf("a call under way at the stop: %v, %v", vote, err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// A listener that fails is the one error of Serve.
func TestServeReportsAFailedListener(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	l.Close()
	if err := grpcparticipant.Serve(bounded(t), l, &scripted{}); err == nil {
		t.Error("a closed listener was served")
	}
}

func TestConfig(t *testing.T) {
	for config, problems := range map[string][]string{
		`{"target":"127.0.0.1:7301"}`:                                 nil,
		`{"target":"[::1]:7301"}`:                                     nil,
		`{"target":"inventory.internal:443","authority":"inventory"}`: nil,
		`{"target":"10.0.0.1:7301","insecure":true}`:                  nil,
		``:                               {"empty"},
		`[]`:                             {"config"},
		`{}`:                             {"target: missing"},
		`{"target":"127.0.0.1:7301"} {}`: {"follows"},
		`{"target":"127.0.0.1:7301","timeout":"1s"}`:           {"timeout"},
		`{"target":"127.0.0.1"}`:                               {"host:port"},
		`{"target":":7301"}`:                                   {"no host"},
		`{"target":"a:http"}`:                                  {"port"},
		`{"target":"a:0"}`:                                     {"port"},
		`{"target":"a:70000"}`:                                 {"port"},
		`{"target":"localhost:0","authority":"x"}`:             {"port", "authority"},
		`{"target":"a:99999","insecure":true,"authority":"b"}`: {"port", "authority"},
	} {
		err := grpcparticipant.Driver{}.Check([]byte(config))
		if (err == nil) != (len(problems) == 0) {
			t.Errorf("%s: %v", config, err)
		}
		for _, p := range problems {
			if err != nil && !strings.Contains(err.Error(), p) {
				t.Errorf("%s: %v; want it to name %q", config, err, p)
			}
		}
	}
}
