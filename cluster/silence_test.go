package cluster_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

// A killed leader's successor comes once its silence has lasted HeartbeatTimeout and
// both followers have looked, a fifth of that apart; by itself Raft takes up to three
// times as long. Half of the leaders fall at rest, half right behind an entry of which
// one follower knows more than the other: that one looks last.
func TestSuccessorComesSoon(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		js := new(journals)
		c := clustertest.New(t, clustertest.Options{FSM: js.make, Memory: true})
		for i := range 10 {
			everywhere(t, c, js, fmt.Sprint("quiet ", i))
			if i%2 == 0 {
				time.Sleep(time.Second)
			} else {
				c.Apply([]byte("the last"))
			}
			old := c.WaitLeader().Status().ID
			killed := time.Now()
			c.Crash(old)
			c.WaitLeaderExcept(old)
			if took := time.Since(killed); took > 13*cluster.DefaultHeartbeatTimeout/10 {
				t.Errorf("a successor came after %s", took)
			}
			c.Start(old)
		}
	})
}

// everywhere has every node apply an entry.
func everywhere(t *testing.T, c *clustertest.Cluster, js *journals, entry string) {
	t.Helper()
	c.Apply([]byte(entry))
	for _, id := range c.IDs() {
		for !js.of(id).has(entry) {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
	}
}
