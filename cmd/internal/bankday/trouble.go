package bankday

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/faults"
	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// queued is how many faults may wait at a station for the one before to be over: a
// few, so that a crowded one does not hold up the others, and the plan is not far
// behind.
const queued = 3

// troubles are what faults did to the day.
type troubles struct {
	mu     sync.Mutex
	struck map[Kind]int  // guarded by mu
	found  bank.Findings // what did not recover; guarded by mu
}

func (t *troubles) strike(k Kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.struck == nil {
		t.struck = map[Kind]int{}
	}
	t.struck[k]++
}

// count is how many struck, by kind.
func (t *troubles) count() map[Kind]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[Kind]int{}
	maps.Copy(all, t.struck)
	return all
}

func (t *troubles) find(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.found.Add(bank.Findings{Texts: []string{text}, Count: 1})
}

// errStuck says that the cluster did not recover. It is for the audit to tell.
var errStuck = errors.New("the cluster has not recovered")

// suffer has the faults of the plan strike until ctx ends, and returns when all are
// taken back; the next shift goes on in the plan. The day closes early when the
// cluster does not recover from one.
func (d *day) suffer(ctx context.Context) error {
	if len(d.cfg.Faults) == 0 {
		return nil
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	queues := map[string]chan fault{}
	var work sync.WaitGroup
	for _, station := range stations {
		queue := make(chan fault, queued)
		queues[station] = queue
		work.Go(func() {
			if err := d.attend(ctx, queue); err != nil {
				fail(err)
			}
		})
	}
	began := time.Now().Add(-d.plan.reached())
	for f := d.plan.next(); sleep(ctx, f.at-time.Since(began)); f = d.plan.next() {
		select {
		case queues[f.station()] <- f:
		case <-ctx.Done():
		}
	}
	work.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// attend has the faults of one station strike, one after the other.
func (d *day) attend(ctx context.Context, queue <-chan fault) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-queue:
			switch err := d.bear(ctx, f); {
			case err == nil:
			case errors.Is(err, errStuck):
				d.out.say("WRONG: %v", err)
				d.troubles.find(err.Error())
				d.close()
			default:
				return fmt.Errorf("fault %d, %s: %w", f.number, f, err)
			}
		}
	}
}

// bear lets a fault strike, last, and be over. Whatever ends the day, a fault that
// struck is taken back.
func (d *day) bear(ctx context.Context, f fault) error {
	undo, hit, err := d.strike(ctx, f)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // the day is over
	case err != nil:
		return err
	}
	d.troubles.strike(f.kind)
	d.out.say("fault %d: %s%s, for %s", f.number, f, hit, f.lasts.Round(time.Millisecond))
	sleep(ctx, f.lasts)
	if err := undo(); err != nil {
		return err
	}
	d.out.say("fault %d is over", f.number)
	if f.station() != clusterStation || ctx.Err() != nil {
		return nil
	}
	if err := d.recovered(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w from fault %d, %s: %w", errStuck, f.number, f, err)
	}
	return nil
}

// strike carries a fault out. It tells which node is hit where the fault only says
// in which part.
func (d *day) strike(ctx context.Context, f fault) (undo faults.Undo, hit string, err error) {
	switch f.kind {
	case KillDatabase:
		undo, err = killDatabase(d.office(f.victim).server)
		return undo, "", err
	case HangDatabase:
		server := d.office(f.victim).server
		return server.Resume, "", server.Suspend()
	case KillService:
		undo, err = faults.Kill(d.office(f.victim).service)
		return undo, "", err
	}
	leader, err := d.awaitLeader(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("%w before fault %d: %w", errStuck, f.number, err)
	}
	node := leader
	switch f.kind {
	case KillLeader:
		undo, err = faults.Kill(leader.Process)
	case KillFollower:
		node = d.others(leader)[0]
		if f.second {
			node = d.others(leader)[1]
		}
		undo, err = faults.Kill(node.Process)
	case PauseLeader:
		undo, err = faults.Pause(leader.Process)
	case Partition:
		undo = d.partition(f.way, leader)
	case CutLink:
		undo = d.cut(f.way, leader.Name(), f.victim)
	default:
		err = fmt.Errorf("bankday: nobody knows how to carry out %q", f.kind)
	}
	if f.kind == CutLink && f.way == everyone {
		return undo, "", err
	}
	return undo, ": " + node.Name(), err
}

func killDatabase(s *databases.Server) (faults.Undo, error) {
	return func() error { return s.Restart(context.Background()) }, s.Kill() // which bounds itself
}

func (d *day) partition(w way, leader *fleet.Node) faults.Undo {
	var others []string
	for _, n := range d.others(leader) {
		others = append(others, n.Name())
	}
	switch w {
	case outOnly:
		return d.links.Mute(leader.Name(), others...)
	case inOnly:
		return d.links.Deafen(leader.Name(), others...)
	default:
		return d.links.Isolate(leader.Name(), others...)
	}
}

func (d *day) cut(w way, leader, victim string) faults.Undo {
	switch w {
	case outOnly:
		return d.links.Cut(leader, victim)
	case inOnly:
		return d.links.Cut(victim, leader)
	case everyone:
		return d.links.Isolate(victim)
	default:
		return d.links.CutPair(leader, victim)
	}
}

// others are the nodes beside one, in their order.
func (d *day) others(node *fleet.Node) []*fleet.Node {
	var all []*fleet.Node
	for _, n := range d.cluster {
		if n != node {
			all = append(all, n)
		}
	}
	return all
}

func (d *day) office(name string) *branchOffice {
	for _, o := range d.banks {
		if o.name == name {
			return o
		}
	}
	panic("bankday: no office " + name) // the names are constants
}

// awaitLeader waits until a node leads.
func (d *day) awaitLeader(ctx context.Context) (leader *fleet.Node, err error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.cfg.recovery, patience))
	defer cancel()
	err = poll(ctx, "a leader", func() (found bool, err error) {
		leader, found = d.leader(ctx)
		return found, nil
	})
	return leader, err
}

// recovered waits until every node answers and all name the same leader. A node
// that ended by itself, as one does whose disk seems to hang, is started again, as
// who runs it in earnest would.
func (d *day) recovered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.cfg.recovery, patience))
	defer cancel()
	return poll(ctx, "all nodes to follow one", func() (bool, error) {
		leader := ""
		for _, n := range d.cluster {
			if !n.Alive() {
				d.out.say("%s has ended by itself, and is started again", n.Name())
				if err := n.Start(); err != nil {
					return false, err
				}
			}
			status, err := d.glance(ctx, n)
			if err != nil || status.GetLeader() == "" || leader != "" && status.GetLeader() != leader {
				return false, nil
			}
			leader = status.GetLeader()
		}
		return true, nil
	})
}
