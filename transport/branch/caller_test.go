package branch_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// pretendToBeDecree runs three transactions of one branch, as a leader would.
func pretendToBeDecree(target string, stop func()) {
	defer stop()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	api := participantv1.NewParticipantClient(conn)
	run(api, "give alice 100", `{"account": "alice", "amount": 100}`)
	run(api, "take 130 from alice", `{"account": "alice", "amount": -130}`)
	run(api, "take 30 from alice", `{"account": "alice", "amount": -30}`)
}

func run(api participantv1.ParticipantClient, what, payload string) {
	ctx := context.Background()
	b := newBranch(1)
	vote, err := api.Prepare(ctx, prepareRequest(b, payload))
	if err != nil {
		log.Fatal(err)
	}
	if vote.GetVote() != participantv1.Vote_VOTE_COMMIT {
		fmt.Printf("%s: no: %s\n", what, vote.GetReason())
		if _, err := api.Abort(ctx, &participantv1.AbortRequest{Branch: b}); err != nil {
			log.Fatal(err)
		}
		return
	}
	if _, err := api.Commit(ctx, &participantv1.CommitRequest{Branch: b}); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: yes, committed\n", what)
}

// newBranch names a branch of a new transaction, in an epoch.
func newBranch(epoch uint64) *participantv1.Branch {
	return &participantv1.Branch{Cluster: "c1", Txid: uuid.Must(uuid.NewV7()).String(), Number: 1, Epoch: epoch}
}

func prepareRequest(b *participantv1.Branch, payload string) *participantv1.PrepareRequest {
	digest := sha256.Sum256([]byte(payload))
	return &participantv1.PrepareRequest{Branch: b, Payload: []byte(payload), Digest: digest[:]}
}
