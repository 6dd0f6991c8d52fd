package node

import (
	"strings"
	"testing"

	"github.com/decree-tx/decree/fsm"
)

// R10, R12: a rolling upgrade, one node after the other. The cluster's level rises once
// the last node reads what the first does, and not while one is of another mind or down;
// what was under way goes on throughout.
func TestTheLevelFollowsTheLastNode(t *testing.T) {
	old := map[string]bool{"n1": true, "n2": true, "n3": true}
	x := newTrio(t, func(x *trio) {
		x.adjust = func(id string, c *Config) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if old[id] {
				c.Cluster.Level = uint32(fsm.LevelFirst)
			}
		}
	})
	upgrade := func(id string) {
		x.mu.Lock()
		delete(old, id)
		x.mu.Unlock()
		x.stop(id)
		x.start(id)
	}
	stays := func(why string) {
		t.Helper()
		x.await("a reason why the level stays: "+why, func() bool {
			err := x.leader(nil).tryToRaiseLevel(x.ctx())
			if err == nil {
				t.Fatal("it was raised")
			}
			return strings.Contains(err.Error(), why)
		})
		for _, n := range x.all() {
			if level := n.Machine.Level(); level != fsm.LevelFirst {
				t.Errorf("%s is at level %d", n.cfg.Cluster.ID, level)
			}
		}
	}

	first := transfer(newID())
	x.submit(first)
	stays("levels up to 1 only")
	upgrade("n1")
	upgrade("n2")
	stays("levels up to 1 only")
	x.stop("n3")
	stays("the node does not answer: n3")
	upgrade("n3")
	x.await("the newest level everywhere", func() bool {
		for _, n := range x.all() {
			if n.Machine.Level() != fsm.Newest {
				return false
			}
		}
		return true
	})
	x.submit(transfer(newID()))
	x.sameOutcome(first.ID)
}

// What the operator of a new cluster does first is on the record, which takes a level
// that the first node alone does not have.
func TestANewClusterRecordsWhatIsDoneFirst(t *testing.T) {
	x := newTrio(t, func(*trio) {})
	m := x.leader(nil).Machine
	trail, _ := m.Trail(0, 0, 100)
	if puts := m.Stats().Participants; len(trail) != puts || puts == 0 {
		t.Errorf("%d of %d registrations are recorded, at level %d", len(trail), puts, m.Level())
	}
}
