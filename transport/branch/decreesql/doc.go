// Package decreesql lets a service's own MariaDB database take part in decree's
// transactions, through database/sql and go-sql-driver/mysql. It was tried on
// MariaDB 10.11; MySQL has the same statements, and nobody has tried it here.
//
// There are two ways, as in package decreepg.
//
// # The service holds a prepared transaction
//
// [Run] is for an application that opens an interactive transaction of decree and
// does a branch of it itself, in its own database and with its own code:
//
//	tx, err := decree.Begin(ctx, 0)
//	...
//	payment, err := tx.Enlist(ctx, client.External("payments"))
//	...
//	vote, err := decreesql.Run(ctx, db, payment, func(ctx context.Context, tx *sql.Tx) error {
//		_, err := tx.ExecContext(ctx, "INSERT INTO payment (payer, amount) VALUES (?, ?)", payer, amount)
//		return err
//	})
//	...
//	result, err := tx.Commit(ctx, payment.Voted(vote))
//
// The function gets a real *sql.Tx, on a connection where an XA transaction is
// open and marked. It leaves out Commit and Rollback: decree ends the transaction.
// And it need not fear what MariaDB does after an error: there the transaction
// lives on without what the failed statement should have done, and would prepare.
// Here any error of any statement, also one that the function swallows, makes the
// vote a no. A statement that may fail says so in SQL: INSERT IGNORE, ON DUPLICATE
// KEY UPDATE.
//
// After XA PREPARE the branch is attached to the session that prepared it, and
// nobody else can end it. So the connection is closed, and the vote is given once
// the session has ended: a branch costs the pool one connection.
//
// What it takes:
//
//   - The database is registered with decree under the driver "mysql", with
//     --catalogue '{}' where applications run all of its branches themselves.
//     The branch is enlisted under that name. Registering makes the tables; the
//     user of the application needs INSERT and SELECT on decree_branch and SELECT
//     on decree_fence. Where decree logs in as another user than the application,
//     that user needs CONNECTION ADMIN: an application that hangs in the middle of
//     a branch would otherwise keep its locks for as long as its session lives.
//   - Statements that commit by themselves, such as CREATE TABLE, are refused in an
//     XA transaction. Tables of engines without transactions (MyISAM, Aria) keep
//     what was written to them whatever is decided.
//
// [Read] is for a branch that only looks: it votes read-only and leaves nothing.
//
// # The service tries, confirms and cancels
//
// [NewTCC] serves a [branch.TCC], whose three functions each run in an ordinary
// transaction, and holds no lock and no connection between try and confirm. The
// service is registered under the driver "grpc". The barrier's tables, decree_tcc
// and two more, are made in the connection's own database.
//
// The functions run at READ COMMITTED. A function that reads a row and decides by
// it locks the row (SELECT ... FOR UPDATE) or lets the statement decide (UPDATE ...
// WHERE balance >= ?).
package decreesql
