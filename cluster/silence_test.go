package cluster_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

// A killed leader's successor comes once its silence has lasted HeartbeatTimeout and
// the followers have looked, a quarter of that apart; by itself Raft takes up to
// three times as long. Now and then both stand in the same moment nevertheless.
func TestSuccessorComesSoon(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := clustertest.New(t, clustertest.Options{FSM: new(journals).make, Memory: true})
		late := 0
		for range 10 {
			c.Apply([]byte("a"))
			synctest.Wait()
			old := c.WaitLeader().Status().ID
			killed := time.Now()
			c.Crash(old)
			c.WaitLeaderExcept(old)
			if took := time.Since(killed); took > 3*cluster.DefaultHeartbeatTimeout/2 {
				t.Logf("a successor came after %s", took)
				late++
			}
			c.Start(old)
		}
		if late > 2 {
			t.Errorf("%d of 10 successors came late", late)
		}
	})
}
