// Package postgres drives PostgreSQL databases as participants: a branch is a
// transaction of the database that is prepared with PREPARE TRANSACTION, and its
// decision is COMMIT PREPARED or ROLLBACK PREPARED.
//
// It owns the conversation with the server: connections and what they are checked
// for, the two trips of a prepare, what each SQLSTATE means for a vote, and the
// proof of what became of a branch, which is kept in the marker tables of package
// marker. It refuses to understand the statements that it runs: beyond their first
// word, the server is the judge of them. And it refuses to guess: a commit that
// finds nothing prepared is done, or damage, only on proof that the database
// itself keeps.
//
// DESIGN.md, beside this file, tells why it is built as it is.
package postgres
