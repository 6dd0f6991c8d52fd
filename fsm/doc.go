// Package fsm is the replicated state machine of decree: the raft.FSM around the
// protocol of package txn.
//
// It owns the form of log entries and snapshots, the transactions and the
// registered participants, retention, the epoch, and what readers may see. It
// decides nothing about a transaction itself: every command goes through
// [txn.Step], every header through [txn.Cluster].
//
// It refuses whatever could make two nodes differ (rule R12): there is no clock,
// no randomness, no map iteration and no I/O in [Machine.Apply]. A committed entry
// that cannot be read stops the node through [Options.Halt], and so that no such
// entry is ever committed, [Encode] reads back what it has written before a leader
// may propose it.
//
// # What a transaction costs
//
// A million finished transactions are kept for those who ask again. Each is there as
// the record that a snapshot has of it, end to end with others in blocks, and the tree
// that finds it holds no pointers: the garbage collector has little to follow, and a
// snapshot nothing to encode. The commands that make up nearly all of the log, and the
// records, are read and written by hand (wire.go), to the byte as the generated types
// would.
//
// # Who may call what
//
// Raft calls Apply, ApplyBatch, Snapshot and Restore from one goroutine. All other
// methods are safe from any goroutine. A reader of one transaction or participant
// holds a read lock for a lookup; a reader of many takes a clone, which is a copy
// of a few pointers, and then reads without any lock. Values that reads return
// are shared and must not be changed.
package fsm
