package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/participants/participanttest"
)

// fault is one thing that can be done to a cluster.
type fault struct {
	name   string
	weight int
	wait   time.Duration // for what it may do to the leadership
	// do does it and returns how it is undone; nil where nothing is left of it.
	do func(w *World, leader *life) repair
}

// repair undoes a fault, as far as undo does not for all of them: links heal there,
// and nodes start again.
type repair func()

func undone() {}

// Those that end a term are waited for as long as it takes; others may do so, or do
// something that takes effect later.
const (
	election = 400 * time.Millisecond
	soon     = 100 * time.Millisecond
)

// faults are drawn by weight; those that end a term are done more often.
var faults = []fault{
	{"the leader crashes", 22, unrest, (*World).crashLeader},
	{"a follower crashes", 4, soon, (*World).crashFollower},
	{"the leader is isolated", 14, unrest, (*World).isolateLeader},
	{"a follower is isolated", 3, soon, (*World).isolateFollower},
	{"nobody hears the leader", 8, unrest, (*World).silenceLeader},
	{"the leader hears nobody", 8, unrest, (*World).deafenLeader},
	{"one link loses one direction", 3, election, (*World).cutOneWay},
	{"the cluster is parted", 6, election, (*World).part},
	{"the leader hands over", 16, unrest, (*World).transfer},
	{"the leader is stopped", 4, unrest, (*World).stopLeader},
	{"connections break", 3, election, (*World).breakConnections},
	{"the leader's disk fails", 5, unrest, (*World).breakLeadersDisk},
	{"the leader's disk hangs", 4, unrest, (*World).hangLeadersDisk},
	{"the leader stalls", 8, unrest, (*World).stallLeader},
	{"a follower's disk fails", 2, soon, (*World).breakFollowersDisk},
	{"all nodes crash", 2, unrest, (*World).crashAll},
	{"a node is added", 3, soon, (*World).addNode},
	{"a node is removed", 2, soon, (*World).removeFollower},
	{"the leader is removed", 3, unrest, (*World).removeLeader},
	{"a participant is down", 4, soon, (*World).loseParticipant},
	{"the leader loses its way to a participant", 4, soon, (*World).loseWay},
}

// disturb does something to the cluster, waits for what becomes of the leadership,
// and undoes it, mostly at once.
func (w *World) disturb() {
	leader := w.leader()
	if leader == nil {
		w.undo()
		if w.await(unrest, func() bool { return w.leader() != nil }); w.leader() == nil {
			w.mourn()
			return
		}
		leader = w.leader()
	}
	w.mourned = 0
	if w.fragile() && w.rng.IntN(8) > 0 {
		w.undo()
	}
	f := w.draw()
	before := w.epoch
	falls := w.stepsAt(leader)
	w.tell("%s (%s leads; %s)", f.name, leader.member.id, falls)
	w.touched = true
	if r := f.do(w, leader); r != nil {
		w.open = append(w.open, r)
	}
	w.await(f.wait, func() bool { return w.epoch > before })
	w.Faults[f.name]++
	if w.epoch > before {
		w.Ended[f.name]++
		w.count(falls)
	}
	w.pass(between(w.rng, 0, 30*time.Millisecond))
	if w.rng.IntN(4) > 0 {
		w.undo()
	}
}

// mourning is how many times in a row everything may be repaired and nobody lead
// afterwards.
const mourning = 20

// mourn notes that nobody leads although everything is repaired, and ends a world in
// which that stays so (R10 wants more than safety).
func (w *World) mourn() {
	if w.mourned++; w.mourned < mourning {
		return
	}
	w.wrong("nobody leads for %d times %s although nothing is broken", mourning, unrest)
	for _, l := range w.running() {
		w.tell("%s: %+v; on its disk %s", l.member.id, l.node.Cluster.Status(), l.member.disk.Contents())
	}
	w.stuck = true
}

func (w *World) draw() fault {
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	n := w.rng.IntN(total)
	for _, f := range faults {
		if n -= f.weight; n < 0 {
			return f
		}
	}
	panic("unreachable: the weights have changed meanwhile")
}

// fragile is whether one more fault may cost the majority.
func (w *World) fragile() bool {
	return len(w.open) > 0 && len(w.open)+1 > (len(w.all())-1)/2
}

// undo repairs everything, the last fault first, and starts who does not run.
func (w *World) undo() {
	if len(w.open) > 0 {
		w.tell("everything is repaired")
		w.touched = true // by that too
	}
	for i := len(w.open) - 1; i >= 0; i-- {
		w.open[i]()
	}
	w.open = nil
	w.network.Heal()
	for _, m := range w.all() {
		if w.isDown(m) {
			m.disk.Repair()
			w.revive(m)
		}
	}
}

func (w *World) revive(m *member) {
	off := w.clockOffset()
	w.tell("%s starts again%s", m.id, clock(off))
	w.touched = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch err := w.start(ctx, m, off); {
	case err == nil:
	case errors.Is(err, cluster.ErrRemoved):
		w.tell("%s was removed", m.id)
		w.forget(m)
	default:
		w.wrong("%s does not start: %v", m.id, err)
	}
}

func clock(off time.Duration) string {
	if off == 0 {
		return ""
	}
	return fmt.Sprintf(", its clock off by %s", off.Round(time.Second))
}

func (w *World) follower(leader *life) *life {
	var others []*life
	for _, l := range w.running() {
		if l != leader {
			others = append(others, l)
		}
	}
	if len(others) == 0 {
		return leader
	}
	return others[w.rng.IntN(len(others))]
}

func (w *World) crashLeader(leader *life) repair {
	w.crash(leader)
	return undone
}

func (w *World) crashFollower(leader *life) repair {
	w.crash(w.follower(leader))
	return undone
}

func (w *World) crashAll(*life) repair {
	for _, l := range w.running() {
		w.crash(l)
	}
	w.pass(between(w.rng, 0, 50*time.Millisecond))
	w.undo()
	return nil
}

func (w *World) stopLeader(leader *life) repair {
	w.stop(leader)
	return undone
}

func (w *World) isolate(id string) {
	for _, m := range w.all() {
		if m.id != id {
			w.network.CutBoth(id, m.id)
		}
	}
}

func (w *World) isolateLeader(leader *life) repair {
	w.isolate(leader.member.id)
	return undone
}

func (w *World) isolateFollower(leader *life) repair {
	w.isolate(w.follower(leader).member.id)
	return undone
}

// silenceLeader has its followers hear nothing of it, while it hears them.
func (w *World) silenceLeader(leader *life) repair {
	for _, m := range w.all() {
		if m != leader.member {
			w.network.Cut(leader.member.id, m.id)
		}
	}
	return undone
}

// deafenLeader has it hear nothing, while its heartbeats arrive.
func (w *World) deafenLeader(leader *life) repair {
	for _, m := range w.all() {
		if m != leader.member {
			w.network.Cut(m.id, leader.member.id)
		}
	}
	return undone
}

func (w *World) cutOneWay(*life) repair {
	all := w.all()
	from := w.rng.IntN(len(all))
	to := (from + 1 + w.rng.IntN(len(all)-1)) % len(all)
	w.network.Cut(all[from].id, all[to].id)
	return undone
}

// part cuts the nodes into two sides; the leader may be on either.
func (w *World) part(*life) repair {
	all := w.all()
	side := make(map[*member]bool)
	for _, n := range w.rng.Perm(len(all))[:1+w.rng.IntN(len(all)-1)] {
		side[all[n]] = true
	}
	for _, a := range all {
		for _, b := range all {
			if side[a] && !side[b] {
				w.network.CutBoth(a.id, b.id)
			}
		}
	}
	return undone
}

func (w *World) transfer(leader *life) repair {
	w.errand(func(ctx context.Context) { leader.node.Cluster.TransferLeadership(ctx, "") })
	return nil
}

// errand is an operator's call at a node, whose outcome nobody waits for.
func (w *World) errand(call func(context.Context)) {
	w.clients.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), unrest)
		defer cancel()
		call(ctx)
	})
}

func (w *World) breakConnections(leader *life) repair {
	l := w.follower(leader)
	if w.rng.IntN(2) == 0 {
		l = leader
	}
	for _, m := range w.all() {
		l.host.Reset(m.id)
	}
	return nil
}

func (w *World) breakLeadersDisk(leader *life) repair {
	leader.member.disk.Break()
	return leader.member.disk.Repair
}

// hangLeadersDisk lasts until the node has exited over it. Nothing else is done
// meanwhile: Raft never answers a transfer of leadership that is asked of it while
// its main loop is inside a write and does not come out, and a goroutine that waits
// for such an answer outlives its bubble.
func (w *World) hangLeadersDisk(leader *life) repair {
	m, before := leader.member, w.epoch
	m.disk.Hang()
	w.await(unrest, func() bool { return w.isDown(m) || w.epoch > before })
	m.disk.Repair()
	return undone
}

// stallLeader is as close as one process comes to a node that is stopped and goes on
// later, believing that it leads: its Raft is inside a write, nothing reaches it or
// leaves it, and what it was asked for meanwhile is waiting when another leads. It
// goes on before or after it could hear of that.
func (w *World) stallLeader(leader *life) repair {
	m, before := leader.member, w.epoch
	m.disk.Hang()
	w.errand(func(ctx context.Context) { leader.node.Cluster.Barrier(ctx) }) // a write to be inside of
	w.pass(time.Millisecond)
	w.isolate(m.id)
	for _, name := range participantNames {
		w.ways.set(m.id, name, true)
	}
	w.await(storeTimeout/2, func() bool { return w.epoch > before })
	w.network.Heal()
	w.pass(between(w.rng, 0, 300*time.Millisecond))
	w.tell("%s goes on", m.id)
	w.touched = true
	m.disk.Repair()
	for _, name := range participantNames {
		w.ways.set(m.id, name, false)
	}
	return nil
}

func (w *World) breakFollowersDisk(leader *life) repair {
	m := w.follower(leader).member
	m.disk.Break()
	return m.disk.Repair
}

// The voters that a cluster is kept between.
const leastVoters, mostVoters = 3, 5

func votersAt(l *life) int {
	n := 0
	for _, m := range l.node.Cluster.Status().Members {
		if m.Voter {
			n++
		}
	}
	return n
}

// addNode starts a node without peers and has the leader add it. Both go on over
// whatever else happens.
func (w *World) addNode(leader *life) repair {
	if votersAt(leader) >= mostVoters || len(w.all()) > mostVoters {
		return nil
	}
	m, off := w.newMember(), w.clockOffset()
	w.errand(func(ctx context.Context) {
		if err := w.start(ctx, m, off); err != nil {
			w.tell("%s gives up waiting to be added", m.id)
			w.forget(m)
		}
	})
	w.errand(func(ctx context.Context) {
		at := cluster.Peer{ID: m.id, RaftAddress: clustertest.Address(m.id)}
		for ctx.Err() == nil {
			if l := w.leader(); l != nil && l.node.Cluster.AddNode(ctx, at) == nil {
				w.tell("%s is added", m.id)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	return nil
}

func (w *World) removeFollower(leader *life) repair {
	return w.remove(leader, w.follower(leader).member)
}

func (w *World) removeLeader(leader *life) repair { return w.remove(leader, leader.member) }

// remove has a node removed. It exits by itself once it has learnt of that.
func (w *World) remove(leader *life, m *member) repair {
	if votersAt(leader) <= leastVoters {
		return w.addNode(leader)
	}
	w.errand(func(ctx context.Context) { leader.node.Cluster.RemoveNode(ctx, m.id) })
	return nil
}

// outage is how long a participant is away: often longer than receipts wait for the
// other branches' (a second, in coordinator).
func (w *World) outage() time.Duration { return between(w.rng, 0, 2500*time.Millisecond) }

// loseParticipant has one answer nobody, until it is repaired.
func (w *World) loseParticipant(*life) repair {
	f := w.fakes[participantNames[w.rng.IntN(len(participantNames))]]
	ops := []participanttest.Op{participanttest.Prepare, participanttest.Commit, participanttest.Abort}
	for _, op := range ops {
		f.Script(op, participanttest.AnyTx, participanttest.Answer{Fate: participanttest.Dropped, Stay: true})
	}
	w.pass(w.outage())
	return func() {
		for _, op := range ops {
			f.Unscript(op, participanttest.AnyTx)
		}
	}
}

// loseWay cuts the leader, and only it, off from a participant.
func (w *World) loseWay(leader *life) repair {
	id, name := leader.member.id, participantNames[w.rng.IntN(len(participantNames))]
	w.ways.set(id, name, true)
	w.pass(w.outage())
	return func() { w.ways.set(id, name, false) }
}
