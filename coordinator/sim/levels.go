package sim

import "github.com/decree-tx/decree/fsm"

// In a quarter of the worlds the first members begin as an older release, which reads the
// first level only, and are upgraded one by one, each as it starts again. None of them may
// ever be in a cluster whose level it does not read: it would meet entries that stop it.

// levelOf is what the next life of a member reads.
func (w *World) levelOf(m *member) fsm.Level {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.starts++
	if w.plan.Seed%4 != 1 || !m.founder || m.starts > 1+int(m.id[1])%3 {
		return fsm.Newest
	}
	return fsm.LevelFirst
}

// watchLevel holds that a node reads what its cluster writes.
func (w *World) watchLevel(l *life) {
	if level := l.node.Machine.Level(); level > l.reads {
		w.wrong("%s reads levels up to %d, the cluster is at %d", l.member.id, l.reads, level)
	}
}

// levelled is whether the cluster has risen to what the last of its nodes reads.
func (w *World) levelled() bool {
	lowest := fsm.Newest
	for _, l := range w.running() {
		lowest = min(lowest, l.reads)
	}
	leader := w.leader()
	return leader != nil && leader.node.Machine.Level() == lowest
}
