// Package mysql is the driver for databases of MariaDB: each branch is one XA
// transaction in the database, and its marker row, written first, proves what
// became of it.
//
// It owns the sessions with the server and the fate of what is attached to them.
// It refuses to hand a branch's end to chance: a branch that another session
// prepared is committed only once the server shows that nobody holds it, and is
// done only once its row is visible. DESIGN.md beside this file says why that is
// needed, and what each of the server's errors means here.
//
// It was tried on MariaDB 10.11. Servers that call themselves MySQL are refused
// when they are registered: they keep a prepared branch differently, and nothing
// here was tried on one.
//
// # Configuration
//
//	{"dsn": "env:PAYMENTS_DSN",
//	 "catalogue": {"debit": {
//	   "sql": "UPDATE account SET balance = balance - ? WHERE id = ? AND balance >= ?",
//	   "params": ["amount", "account", "amount"], "expect_rows": 1}}}
//
// The dsn is a reference to user:password@tcp(host:3306)/database, the form that
// github.com/go-sql-driver/mysql documents, with TLS and timeouts as it has them;
// each node resolves it for itself, anew for every connection. What the driver
// needs of a session it sets whatever the dsn says. Fields with a default:
//
//	raw_sql          false   requests may carry SQL of their own
//	schema           ""      where the marker tables are; empty is the dsn's database
//	max_connections  100     for branches: each holds one from its prepare to its end
//	lock_timeout     "2s"    how long a statement waits for a lock, in whole seconds
//	connect_timeout  "5s"
//
// # Payload
//
// As package statements has it: statements of the catalogue by name, or SQL where
// raw_sql is true. A statement is a SELECT, VALUES, WITH, INSERT, UPDATE, DELETE,
// REPLACE or CALL, with question marks for arguments and without comments or
// semicolons. Numbers are exact. expect_rows counts the rows that a statement
// matched, whether it changed them or not, as other databases do, or that it
// returned.
//
// A branch of statements that only read votes ReadOnly and leaves nothing behind.
// Locking reads (FOR UPDATE) are held to the decision like writes.
package mysql
