package branch_test

import (
	"testing"

	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/client"
)

// The SDK for applications and this package know nothing of each other, and yet
// an enlistment of the one names a branch of the other, and a vote goes back. A
// vote that was never given is a no.
func TestEnlistmentAndVoteCrossTheSDKs(t *testing.T) {
	e := client.Enlistment{TxID: "01890a5d-ac96-774b-bcce-b302099a8057", Branch: 3, Cluster: "c1", Epoch: 9}
	var named branch.Enlistment = e
	cluster, txid, number := named.BranchName()
	if got := (branch.Branch{Cluster: cluster, TxID: txid, Number: number}).Name(); got != "c1/"+e.TxID+"/3" {
		t.Errorf("the branch is called %s", got)
	}
	for vote, want := range map[branch.Vote]client.Vote{
		branch.Yes():          client.VoteCommit,
		branch.ReadOnly():     client.VoteReadOnly,
		branch.No("sold out"): client.VoteAbort,
		(branch.Vote{}):       client.VoteAbort,
	} {
		if got := e.Voted(vote); got != (client.BranchVote{Branch: 3, Vote: want}) {
			t.Errorf("%s became %v", vote, got)
		}
	}
	if got := branch.No("%d left", 0).Reason(); got != "0 left" {
		t.Errorf("the reason is %q", got)
	}
}
