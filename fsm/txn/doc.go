// Package txn is decree's protocol: two-phase commit with presumed abort, as
// pure functions over the state of one transaction.
//
// It owns the states a transaction can be in, the commands that move it, the
// rule by which votes become a decision, and what remains to be done in each
// state. It refuses everything that could make two nodes disagree: there is no
// clock, no randomness, no map iteration, no logging, no goroutine and no I/O
// here. Time arrives inside a [Header]; whatever must happen in the world leaves
// as [Work].
//
// A few functions carry the protocol:
//
//   - [Step] applies one command of the replicated log to one transaction. It
//     runs on every node and must give the same result on each (rule R12).
//   - [Pending] says what is still owed to a transaction, from its replicated
//     state alone. A leader that has just been elected calls it, and so does the
//     one that has led for a year (rule R13).
//   - [Drive] is what one leader does about one transaction in its epoch: each event
//     (an answer of the log, a vote, a receipt, the deadline) returns the [Acts] that
//     it made due. [Orphan] says what a prepared branch is told that nobody drives.
//   - [Ballot.Verdict] turns what one leader has heard in one epoch into the
//     decision that it may propose (rules R2 and R4).
//
// The commit point of a transaction is the moment [Step] applies a [Decide]
// command. A crash just before it leaves the transaction Preparing, and the next
// leader prepares it again, or unknown, where its staging was on its way too, and
// what it prepared ends by a retry or as an orphan; a crash just after it leaves it
// Committing or Aborting, and the next leader delivers that decision. Nothing else in
// decree makes an outcome.
package txn
