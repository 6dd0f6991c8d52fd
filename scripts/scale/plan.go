package main

import "time"

// plan is a deployment with its load.
type plan struct {
	name  string
	costs costs
	trips [][]time.Duration // between sites: network round trips; [i][i] is inside one
	// trip is a frame's way between two processes beside CPU and network: the goroutines
	// that are woken on it. raftTrip is that of Raft's messages, which wake fewer.
	trip, raftTrip time.Duration
	disk           diskPlan
	lent           float64 // the share of every core that goes to what is no process of decree's
	seed           uint64
	warm           time.Duration // virtual time before anything is counted
	length         time.Duration // and then, of what is counted

	// second lets a second entry leave under load too, which decree does not.
	second bool

	machines     []machinePlan
	groups       []groupPlan
	participants []participantPlan
	clients      []clientPlan

	// near has a transaction's id made for a group whose leader is at the client's
	// site; otherwise the id's hash decides, and every group is as likely.
	near bool
	hot  float64 // the share of transactions with a branch at the first participant
	far  float64 // the share whose second branch is at another site than the client
}

type machinePlan struct {
	site  int
	cores int
}

type diskPlan struct {
	store     time.Duration // of one log's append, all syncs included
	perSecond float64       // bytes
	lanes     int           // appends at the same time
}

// groupPlan names machines.
type groupPlan struct {
	leader    int
	followers []int
}

type participantPlan struct {
	machine int
	// A participant that is more than a handler: slots calls at a time, each some
	// service long (exponentially distributed). 0 slots for a trivial one.
	slots   int
	service time.Duration
}

// clientPlan is one process of clients: so many in a closed loop, each with one
// transaction at a time, or an open one with so many a second.
type clientPlan struct {
	machine int
	closed  int
	open    float64
}

// costs is CPU, but for bytes. What it comes to a transaction is printed beside what
// decree was measured to take, and the table of coordinator/DESIGN.md says how a
// leader's share divides.
type costs struct {
	frame time.Duration // one end of one frame of a stream: system calls, wake-ups

	// The leader, outside of what only one goroutine does at a time.
	receive time.Duration // a submission, with the garbage of its whole transaction
	send    time.Duration // a call
	hear    time.Duration // an answer to a call
	answer  time.Duration // a client

	// The leader, under its term's lock.
	admit   time.Duration // a submission
	vote    time.Duration // a vote, or a receipt
	land    time.Duration // what an applied decision made due
	encode  time.Duration // a command
	apply   time.Duration // a command
	propose time.Duration // an entry, up to its store
	spread  time.Duration // an entry, from its store to the followers' answers

	follow      time.Duration // an entry at a follower
	followApply time.Duration // a command at a follower

	call   time.Duration // a call at a participant
	submit time.Duration // a submission at a client
	told   time.Duration // an answer at a client

	bytes int // of the log, a command
}

// Constants of decree that bound batches and flights (coordinator/node/writer.go,
// coordinator/drive.go, coordinator/config.go).
const (
	maxEntryCommands = 4096
	maxEntryBytes    = 512 << 10
	maxInFlight      = 2
	sparseCommands   = 8
	stagingHold      = time.Millisecond
	callsInFlight    = 256 // prepares at one participant, and as many deliveries
	receiptDelay     = 20 * time.Millisecond
	branches         = 2
	commandsEach     = 3 // staging, decision, receipts
)
