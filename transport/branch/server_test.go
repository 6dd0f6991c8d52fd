package branch_test

// These tests prove that what cannot be a branch is refused, that a file which
// cannot keep promises is not opened, and that Serve ends as it says.

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	"github.com/decree-tx/decree/transport/branch"
)

// Whatever is wrong with a request is said, all of it, and leaves nothing behind.
func TestMalformedRequests(t *testing.T) {
	s := newLocal(t, newFile(t), &inFile{}, branch.Config{MaxPayload: 10})
	for name, c := range map[string]struct {
		spoil func(*participantv1.Branch)
		says  string
	}{
		"no cluster":       {func(b *participantv1.Branch) { b.Cluster = "" }, "cluster"},
		"long cluster":     {func(b *participantv1.Branch) { b.Cluster = strings.Repeat("c", 256) }, "cluster"},
		"no txid":          {func(b *participantv1.Branch) { b.Txid = "" }, "txid"},
		"txid of v4":       {func(b *participantv1.Branch) { b.Txid = uuid.NewString() }, "txid"},
		"txid in braces":   {func(b *participantv1.Branch) { b.Txid = "{" + b.GetTxid() + "}" }, "txid"},
		"number 0":         {func(b *participantv1.Branch) { b.Number = 0 }, "number"},
		"number 257":       {func(b *participantv1.Branch) { b.Number = 257 }, "number"},
		"negative horizon": {func(b *participantv1.Branch) { b.Horizon = -1 }, "horizon"},
	} {
		b := newBranch(1)
		c.spoil(b)
		_, err := prepare(t, s, b, "x")
		fails(t, name+": prepare", err, codes.InvalidArgument, c.says)
		_, err = s.Commit(t.Context(), &participantv1.CommitRequest{Branch: b})
		fails(t, name+": commit", err, codes.InvalidArgument, c.says)
		_, err = s.Abort(t.Context(), &participantv1.AbortRequest{Branch: b})
		fails(t, name+": abort", err, codes.InvalidArgument, c.says)
		_, err = s.Status(t.Context(), &participantv1.StatusRequest{Branch: b})
		fails(t, name+": status", err, codes.InvalidArgument, c.says)
	}
	_, err := s.Commit(t.Context(), &participantv1.CommitRequest{})
	fails(t, "no branch", err, codes.InvalidArgument, "branch: missing")
	_, err = prepare(t, s, newBranch(1), "eleven bytes")
	fails(t, "payload", err, codes.InvalidArgument, "payload: 12 bytes, at most 10")
	_, err = s.Prepare(t.Context(), &participantv1.PrepareRequest{Branch: &participantv1.Branch{Number: 999}, Digest: []byte("short")})
	for _, problem := range []string{"cluster", "txid", "number", "digest"} {
		fails(t, "everything at once", err, codes.InvalidArgument, problem)
	}
}

// A txid in upper case names the same branch.
func TestTxIDIsCaseless(t *testing.T) {
	s := newLocal(t, newFile(t), &inFile{}, branch.Config{})
	b := newBranch(1)
	votes(t, s, b, "x", "COMMIT")
	upper := proto.CloneOf(b)
	upper.Txid = strings.ToUpper(b.GetTxid())
	votes(t, s, upper, "y", "ABORT: the branch is prepared with other content")
	commits(t, s, upper, done)
}

// A file that loses what it was told, or that somebody else wrote, is refused.
func TestFilesThatAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "service.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := branch.NewLocal(db, tally{}, branch.Config{}); err == nil || !strings.Contains(err.Error(), "synced") {
		t.Errorf("a file without syncs: %v", err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("decree"))
		if err != nil {
			return err
		}
		return b.Put([]byte("format"), []byte("2"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	newer := openFile(t, path)
	defer newer.Close()
	if _, err := branch.NewForeign(newer, &script{}, branch.Config{}); err == nil || !strings.Contains(err.Error(), `format is "2"`) {
		t.Errorf("a file of a newer version: %v", err)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	_, err := branch.NewLocal(newFile(t), tally{}, branch.Config{MaxPayload: -1, MaxOpen: 1 << 30, Grace: -time.Second})
	for _, field := range []string{"MaxPayload", "MaxOpen", "Grace"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v; want it to name %s", err, field)
		}
	}
}

func dial(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Serve says that it is up, and lets calls under way end when it stops.
func TestServe(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s := newForeign(t, &script{prepare: func(context.Context, branch.Branch) (branch.Vote, error) {
		stop()
		return branch.Yes(), nil
	}}, branch.Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	conn := dial(t, l.Addr().String())
	for _, name := range []string{"", participantv1.Participant_ServiceDesc.ServiceName} {
		answer, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: name})
		if err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", name, answer, err)
		}
	}
	vote, err := participantv1.NewParticipantClient(conn).Prepare(t.Context(), prepareRequest(newBranch(1), "x"))
	if err != nil || vote.GetVote() != participantv1.Vote_VOTE_COMMIT {
		t.Errorf("a call under way at the stop: %v, %v", vote, err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// A file that failed ends Serve, so that the process starts anew and finds out
// what is on disk; a listener that failed does too.
func TestServeEndsWhenTheFileFails(t *testing.T) {
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "service.db"), 0o600, &bbolt.Options{MaxSize: 128 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := newLocal(t, db, &inFile{}, branch.Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), l) }()
	api := participantv1.NewParticipantClient(dial(t, l.Addr().String()))
	if _, err := api.Prepare(t.Context(), prepareRequest(newBranch(1), "fits")); err != nil {
		t.Fatal(err)
	}
	large := prepareRequest(newBranch(1), strings.Repeat("x", 512<<10))
	if vote, err := api.Prepare(t.Context(), large); err == nil {
		t.Errorf("a vote that is not on disk: %v", vote)
	}
	if err := <-served; err == nil || !strings.Contains(err.Error(), "commit to") {
		t.Errorf("serve: %v; want the file's failure", err)
	}
	if err := s.Serve(t.Context(), l); err == nil {
		t.Error("a closed listener was served")
	}
}

// A server takes messages of many calls whatever its bound on payloads: the driver
// fills them up to 48 KiB.
func TestSmallPayloadsBearLargeMessages(t *testing.T) {
	s := newLocal(t, newFile(t), tally{}, branch.Config{MaxPayload: 1})
	target, stop := serve(t, s)
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := participantv1.NewParticipantClient(dial(t, target)).CallMany(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	m := &participantv1.CallManyRequest{Cluster: strings.Repeat("c", 255), Epoch: 1}
	for size := 0; size < 48<<10; size = proto.Size(m) {
		b := &participantv1.Branch{Txid: newBranch(1).GetTxid(), Number: 1}
		m.Calls = append(m.Calls, &participantv1.Call{Sequence: uint64(len(m.Calls)), Abort: &participantv1.AbortRequest{Branch: b}})
		m.Cancelled = append(m.Cancelled, 1<<63)
	}
	if err := stream.Send(m); err != nil {
		t.Fatal(err)
	}
	for answered := 0; answered < len(m.GetCalls()); {
		got, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d answers of %d: %v", answered, len(m.GetCalls()), err)
		}
		for _, a := range got.GetAnswers() {
			if a.GetAbort().GetReceipt() != participantv1.Receipt_RECEIPT_DONE {
				t.Errorf("answered %v", a)
			}
		}
		answered += len(got.GetAnswers())
	}
}
