// Package sim plays whole clusters in virtual time: real nodes, with their Raft,
// over a network and disks in memory, whose leaders fall again and again while
// clients and participants behave as badly as they do in the field.
//
// A [World] is one cluster in one testing/synctest bubble. Its [Plan] has a seed,
// from which everything is drawn that the world does to the cluster: which faults,
// when, to whom; what clients ask for and how long they wait; what each participant
// answers; how long links and disks take. A world ends with everything repaired and
// finished, and with an audit: what clients were told is a history that
// coordinator/history judges, and nodes and participants must agree on every
// transaction, each with one effect or none.
//
// What a failover is: another term than the last begins to drive transactions,
// after something was done to the cluster, by a fault or by its repair. Terms are
// observed at the nodes; faults are not counted.
//
// TestFailovers plays worlds side by side until there were as many failovers as
// -sim.failovers says: 5,000 by default, 500 with -short, 50,000 with make sim. It
// prints its first seed; -sim.seed plays from there again, -sim.world says how many
// failovers a world lasts, and -sim.story prints the stories. A world that went wrong
// leaves its evidence in the directory DECREE_SIM_DIR, or else the temporary one,
// with the command that plays it again.
//
// What a seed replays: the same plan of faults, transactions and answers, round by
// round. It does not replay every interleaving. Goroutines of a bubble that are ready
// at the same virtual moment run in the order that the Go scheduler chooses, so that
// the draws of one source, such as how long links take, move between them; and Raft
// draws its election timeouts from a source of its own. Who leads when is therefore
// another from one play to the next, and a violation comes again often, not always:
// the story and the history that the world saves are the evidence. The simulator of
// the pure core (fsm/txn) is the level that replays exactly.
package sim
