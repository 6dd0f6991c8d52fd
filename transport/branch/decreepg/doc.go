// Package decreepg lets a service's own PostgreSQL database take part in decree's
// transactions, through pgx. There are two ways.
//
// # The service holds a prepared transaction
//
// [Run] is for an application that opens an interactive transaction of decree and
// does a branch of it itself, in its own database and with its own code. It enlists
// the branch first, does the work, and hands the vote to Commit:
//
//	tx, err := decree.Begin(ctx, 0)
//	...
//	orders, err := tx.Enlist(ctx, client.External("orders"))
//	...
//	vote, err := decreepg.Run(ctx, pool, orders, func(ctx context.Context, tx pgx.Tx) error {
//		_, err := tx.Exec(ctx, "INSERT INTO purchase (item, buyer) VALUES ($1, $2)", item, buyer)
//		return err
//	})
//	...
//	result, err := tx.Commit(ctx, orders.Voted(vote))
//
// The work runs between a marker row, which proves later what became of it, and
// PREPARE TRANSACTION. From then on the database keeps the transaction, with its
// locks, until decree has decided and its postgres driver has ended it. The
// connection is free at once, and nobody needs the application any more: where it
// dies before Commit, decree aborts at the transaction's timeout and rolls back
// what was prepared. [Begin] is the same in steps.
//
// What it takes:
//
//   - The database is registered with decree under the driver "postgres", with
//     --catalogue '{}' where applications run all of its branches themselves.
//     The branch is enlisted under that name. Registering makes the tables; the
//     role of the application needs INSERT and SELECT on decree_branch and SELECT
//     on decree_fence.
//   - PostgreSQL lets nobody end a prepared transaction but the role that prepared
//     it and superusers: the application and decree's driver log in as the same
//     role, or decree's is a superuser. Otherwise the branch stays prepared, and
//     decree says so (42501), until that is mended.
//   - PREPARE TRANSACTION refuses a transaction that touched temporary objects, ran
//     LISTEN or NOTIFY, or made a WITH HOLD cursor. That is a no.
//
// [Read] is for a branch that only looks: it votes read-only and leaves nothing.
//
// # The service tries, confirms and cancels
//
// [NewTCC] serves a [branch.TCC], whose three functions each run in a transaction
// of their own. It needs no prepared transactions (max_prepared_transactions may be
// 0) and holds no lock between try and confirm, which suits work that takes long or
// meets often. The service is registered under the driver "grpc". The barrier's
// tables, decree_tcc and two more, are made where the connection's search_path puts
// new tables.
//
// The functions run at READ COMMITTED, the level at which each statement sees what
// is committed when it begins. The barrier relies on that: it reads the fence after
// it holds the branch's row. So a function that reads a row and decides by it locks
// the row (SELECT ... FOR UPDATE) or lets the statement decide (UPDATE ... WHERE
// balance >= $1).
package decreepg
