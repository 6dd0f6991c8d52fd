package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/decree-tx/decree/participants/statements"
)

// allowed refuses the statements that would end or bend the transaction that the
// branch is, or leave something behind in the connection that the next branch
// would find. It reads words, not SQL: what gets past it meets the tag that PREPARE
// TRANSACTION must answer with, and the server takes one statement at a time.
func allowed(sql string) error {
	first, rest := word(sql)
	switch first {
	case "":
		return errors.New("there is no statement in it")
	case "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE":
		return fmt.Errorf("%s is not for a branch: its transaction is decree's to begin and to end", first)
	case "SET":
		return allowedSet(rest)
	case "RESET", "DISCARD", "LISTEN", "UNLISTEN", "NOTIFY", "LOAD", "DECLARE", "FETCH", "MOVE", "CLOSE", "DEALLOCATE", "EXECUTE", "COPY":
		return fmt.Errorf("%s is not for a branch: it is about the connection, which others use too", first)
	}
	return nil
}

func allowedSet(rest string) error {
	scope, rest := word(rest)
	what, _ := word(rest)
	switch {
	case scope == "CONSTRAINTS":
		return nil
	case scope != "LOCAL":
		return errors.New("SET outlives the branch: say SET LOCAL")
	case what == "ROLE" || what == "SESSION":
		// Only the role that is set while it prepares may finish the branch.
		return errors.New("a branch runs as the participant's role to its end")
	}
	return nil
}

// allRead reports whether all statements look as if they only read. Where one
// writes after all, the server says so: it is asked in a read-only transaction.
func allRead(work []statements.Statement) bool {
	for _, s := range work {
		if !reads(s.SQL) {
			return false
		}
	}
	return true
}

func reads(sql string) bool {
	switch first, rest := word(sql); first {
	case "SELECT", "VALUES", "TABLE", "SHOW":
		return true
	case "WITH":
		// A query that writes in its WITH would be asked twice each time.
		rest = strings.ToUpper(rest)
		for _, writes := range []string{"INSERT", "UPDATE", "DELETE", "MERGE"} {
			if strings.Contains(rest, writes) {
				return false
			}
		}
		return true
	}
	return false
}

// word is the first word of some SQL, in capitals, and what follows it. Spaces,
// comments and opening parentheses before it do not count.
func word(sql string) (first, rest string) {
	sql = skip(sql)
	end := strings.IndexFunc(sql, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_')
	})
	if end < 0 {
		end = len(sql)
	}
	return strings.ToUpper(sql[:end]), sql[end:]
}

// skip passes over what may stand before a statement.
func skip(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f\v(;")
		switch {
		case strings.HasPrefix(sql, "--"):
			if end := strings.IndexAny(sql, "\r\n"); end >= 0 {
				sql = sql[end:]
			} else {
				sql = ""
			}
		case strings.HasPrefix(sql, "/*"):
			sql = skipComment(sql[len("/*"):])
		default:
			return sql
		}
	}
}

// skipComment passes over a comment that has begun; PostgreSQL's may hold others.
func skipComment(sql string) string {
	for depth := 1; depth > 0; {
		next := strings.IndexAny(sql, "/*")
		switch {
		case next < 0:
			return ""
		case strings.HasPrefix(sql[next:], "*/"):
			depth--
			next += 2
		case strings.HasPrefix(sql[next:], "/*"):
			depth++
			next += 2
		default:
			next++
		}
		sql = sql[next:]
	}
	return sql
}
