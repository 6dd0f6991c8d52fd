package cluster_test

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

// voter is a node that grants every vote. Each of its lives ends by close.
type voter struct {
	transport raft.Transport
	wait      func()
	ended     chan struct{}
	answering sync.WaitGroup
}

func newVoter(t *testing.T, network *clustertest.Network, id string) *voter {
	t.Helper()
	v := &voter{ended: make(chan struct{})}
	var err error
	if v.transport, v.wait, err = cluster.NewTransport(network.Host(id), clustertest.Address(id), cluster.TransportOptions{Direct: true}); err != nil {
		t.Fatal(err)
	}
	v.answering.Go(v.answer)
	return v
}

func (v *voter) answer() {
	for {
		select {
		case m := <-v.transport.Consumer():
			if _, ok := m.Command.(*raft.RequestPreVoteRequest); ok {
				m.Respond(&raft.RequestPreVoteResponse{Granted: true}, nil)
			} else {
				m.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
			}
		case <-v.ended:
			return
		}
	}
}

func (v *voter) close(t *testing.T) {
	t.Helper()
	if err := v.transport.(raft.WithClose).Close(); err != nil {
		t.Error(err)
	}
	close(v.ended)
	v.answering.Wait()
	v.wait()
}

// A node that was restarted hears the first request for its vote, though all idle
// connections are to its former life: else each restart would cost the next election a
// second round.
func TestRestartedNodeIsAskedForItsVote(t *testing.T) {
	for name, o := range map[string]cluster.TransportOptions{"transport": {}, "library": {Direct: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := clustertest.NewNetwork()
				candidate, wait, err := cluster.NewTransport(network.Host("n1"), clustertest.Address("n1"), o)
				if err != nil {
					t.Fatal(err)
				}
				defer wait()
				defer candidate.(raft.WithClose).Close()
				ask := func() (vote, pre error) {
					const id = "n2"
					to := raft.ServerAddress(clustertest.Address(id))
					var granted raft.RequestVoteResponse
					vote = candidate.RequestVote(id, to, &raft.RequestVoteRequest{Term: 2}, &granted)
					if vote == nil && !granted.Granted {
						t.Error("the vote was not granted")
					}
					return vote, candidate.(raft.WithPreVote).RequestPreVote(id, to, &raft.RequestPreVoteRequest{Term: 2}, new(raft.RequestPreVoteResponse))
				}
				for life := range 3 {
					v := newVoter(t, network, "n2")
					vote, pre := ask()
					if heard := vote == nil && pre == nil; heard != (life == 0 || name == "transport") {
						t.Errorf("life %d: vote %v, pre-vote %v", life, vote, pre)
					}
					v.close(t)
				}
			})
		})
	}
}
