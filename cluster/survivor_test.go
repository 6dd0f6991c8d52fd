package cluster_test

// R15: the node that is left of three begins again alone, with all that it has, in a
// later term; empty nodes join it; and nodes from before, which still run and are a
// majority of what they know, neither reach it nor are followed by it.

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

func TestSurvivorBeginsAgain(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var js journals
		c := clustertest.New(t, clustertest.Options{LogStore: logStore, FSM: js.make})
		for _, entry := range []string{"one", "two"} {
			c.Apply([]byte(entry))
		}
		eventually(t, "n3 has all", func() bool { return js.of("n3").has("two") })
		dir := c.Config("n3").Dir
		for _, id := range c.IDs() {
			c.Crash(id)
		}
		s, done, err := cluster.OpenSurvivor(dir, hclog.NewNullLogger())
		if err != nil || done {
			t.Fatal(done, err)
		}
		state := &journal{}
		if err := s.Replay(state, nil); err != nil || !state.has("two") || len(s.Members) != 3 || s.LastTerm == 0 || s.LastTerm > s.Term {
			t.Fatalf("%v of %v, term %d of %d: %v", state.all(), s.Members, s.LastTerm, s.Term, err)
		}
		life := cluster.NewLife{ID: s.ID, RaftAddress: clustertest.Address(s.ID), Term: s.Term + 1000, Index: s.Last, State: state}
		if _, err := s.Begin(life); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		survivor := c.Start("n3")
		eventually(t, "n3 leads alone", func() bool { l, ok := survivor.Leader(); return ok && l.ID == "n3" })
		if term := survivor.Status().Term; term <= life.Term {
			t.Errorf("term %d follows %d", term, life.Term)
		}
		old := []*cluster.Node{c.Start("n1"), c.Start("n2")} // a majority of the cluster that was
		if _, _, err := survivor.Apply([]byte("new life")).Wait(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // many elections
		for _, n := range old {
			if term := n.Status().Term; term > life.Term {
				t.Errorf("%s has learnt the new life's term, %d", n.Status().ID, term)
			}
			if js.of(n.Status().ID).has("new life") {
				t.Errorf("%s follows", n.Status().ID)
			}
		}
		if l, ok := survivor.Leader(); !ok || l.ID != "n3" || !js.of("n3").has("new life") {
			t.Errorf("n3 is led by %v", l)
		}
	})
}
