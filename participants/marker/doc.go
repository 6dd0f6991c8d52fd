// Package marker is what decree keeps in an SQL database: the names of branches
// there, and the tables that prove what became of them.
//
// It owns the names (PostgreSQL's gid, the XA id of MariaDB and MySQL) and the
// text of the SQL around the marker tables, so that the drivers, which run a
// branch's statements themselves, and the helpers of transport/branch, with which
// an application runs its own, leave exactly the same traces. It refuses to know
// any database driver: nothing here opens a connection.
//
// # The marker
//
// A branch's own transaction begins by inserting a row under the branch's name
// into decree_branch. The row becomes visible when the branch is committed, and
// so proves the commit (rule R9). An abort inserts a row of its own under the same
// name. The table's key lets one of the two in: a branch that is still on its way
// when its abort arrives fails, before or at its prepare (rule R8).
package marker
