package mysql

import (
	"errors"

	"github.com/go-sql-driver/mysql"
)

// Error numbers of MariaDB that mean something of their own here. DESIGN.md has
// the table.
const (
	errDuplicateKey = 1062 // ER_DUP_ENTRY
	errNoSuchThread = 1094 // ER_NO_SUCH_THREAD
	errKillDenied   = 1095 // ER_KILL_DENIED_ERROR
	errNoSuchTable  = 1146 // ER_NO_SUCH_TABLE
	errLockWait     = 1205 // ER_LOCK_WAIT_TIMEOUT
	errDeadlock     = 1213 // ER_LOCK_DEADLOCK
	errDenied       = 1227 // ER_SPECIFIC_ACCESS_DENIED_ERROR
	errUnknownXID   = 1397 // ER_XAER_NOTA
	errXAState      = 1399 // ER_XAER_RMFAIL
	errRolledBack   = 1402 // ER_XA_RBROLLBACK
	errDuplicateXID = 1440 // ER_XAER_DUPID
	errReadOnlyTx   = 1792 // ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
)

// numberOf is the server's error number, and 0 where err is not the server's.
func numberOf(err error) uint16 {
	var refused *mysql.MySQLError
	if errors.As(err, &refused) {
		return refused.Number
	}
	return 0
}

// classes are the reasons of a no in words, where the server's own are for people
// who know the server.
var classes = map[uint16]string{
	errDuplicateKey: "duplicate key",
	errLockWait:     "lock timeout",
	errDeadlock:     "deadlock",
	errXAState:      "not in a branch",
}

// reasonOf is a server's refusal for people.
func reasonOf(err error) string {
	if class, ok := classes[numberOf(err)]; ok {
		return class + ": " + err.Error()
	}
	return err.Error()
}
