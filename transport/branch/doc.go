// Package branch is for services that take part in decree's transactions. You
// write what your service does with a branch; the package does the rest of the
// protocol and remembers everything that must be remembered: in a bbolt file, or in
// your own SQL database.
//
// # What a service does
//
// For each transaction that names your service, decree sends it one branch: a
// payload, which is yours to define. The service is asked twice:
//
//   - Prepare: can this be done? Check, reserve, and vote. After a yes the service
//     must be able to do it and must be able to leave it, however long the
//     decision takes and however often the process is killed meanwhile. Nobody
//     else may see the change yet, nor take away what it needs.
//   - Commit or Abort: do it, or give back what was reserved. By now the decision
//     stands; there is no third answer.
//
// # The simple way: your data in the same file
//
// A service that keeps its data in bbolt implements [Local]. Its three functions
// run inside the very transaction in which the package writes its books, so that
// what they did and the record of it become durable together: each takes effect
// exactly once, whatever crashes, repeats or races. All they must do is use the
// transaction that they are given.
//
//	db, err := bbolt.Open("wallet.db", 0o600, nil)
//	...
//	server, err := branch.NewLocal(db, wallet{}, branch.Config{})
//	...
//	err = server.Serve(ctx, listener)
//
// Isolation is one call: [Tx.Hold] reserves a name, such as an account, until the
// transaction is over, and refuses it to every other branch. The example below is
// a whole service.
//
// The functions may run more than once before one run counts: what a run wrote
// is undone when it votes no or fails, and when the file's transaction, which
// concurrent branches share, is begun again for a neighbour's sake. So they must
// do nothing but read and write through Tx. They must not use db.Update, which
// would wait for the transaction that they are in.
//
// # Your data in your own SQL database
//
// A service that keeps its data in PostgreSQL or MariaDB implements [TCC]: try,
// confirm and cancel, each in a local transaction of that database, in which the
// books are kept too. Packages decreepg and decreesql make its server.
//
// Those packages also serve applications that would rather hold a prepared
// transaction: there the database itself takes part, without a server of this
// package.
//
// # Data somewhere else
//
// A service whose effects lie outside the file (another database, a device,
// somebody's API) implements [Foreign]. The package writes down that a function
// is about to run, runs it, and writes down the outcome. A crash in between
// leaves that open, and then the function is called again. So each must be
// idempotent on [Branch.Name]: use it as the idempotency key. In full:
//
//   - Prepare may be called again after a crash or an error, until a vote was
//     recorded; a vote of yes that the package never recorded was given to nobody.
//   - Abort may be called for a branch whose Prepare failed, never reached the
//     resource, or is still on its way to it. It must make sure that such a
//     Prepare has no effect later.
//   - Commit and Abort may be called again until one call has returned nil. A
//     branch never gets both.
//
// Calls for one branch come one after another; those for different branches come
// at the same time. A function that ignores the end of its context holds up what
// comes next for its branch, the abort first of all.
//
// # Errors
//
// Prepare's certain answers are its votes. An error from it means "not known": it
// is answered as an error, the transaction aborts, and the branch gets an abort.
// An error from Commit or Abort means "ask again", and decree does, without end,
// unless it is a [Heuristic]: the service's word that the branch ended against
// the decision, or that its end cannot be known. That is damage, it is recorded,
// and an operator has to look at it.
//
// # What the package remembers
//
// In the bucket "decree" of the file, or in the tables decree_tcc of the database:
// every branch that is prepared, with its payload; how every finished one ended,
// until the cluster's retention horizon has passed it; aborts of branches that
// never came, so that they are refused when they do come; and the newest leader's
// epoch, so that a deposed one is refused. Give each service its own file, do not switch off its syncs (NewLocal
// and NewForeign refuse a file that has NoSync set), and never restore file or
// database from a backup while transactions are open: that brings back votes that
// were given up.
package branch
