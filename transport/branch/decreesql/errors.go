package decreesql

import (
	"errors"
	"slices"

	"github.com/go-sql-driver/mysql"
)

// The server's errors that mean something here.
const (
	accessDenied      = 1044 // to the database
	duplicateEntry    = 1062
	tableAccessDenied = 1142
	noSuchTable       = 1146
	lockWaitTimeout   = 1205
	deadlock          = 1213 // the whole transaction was rolled back
	savepointGone     = 1305 // and the transaction with it
	xaDuplicate       = 1440 // the XA id is in use
)

// is reports whether the server answered with one of these errors.
func is(err error, numbers ...uint16) bool {
	var answer *mysql.MySQLError
	return errors.As(err, &answer) && slices.Contains(numbers, answer.Number)
}

// answered reports whether the server answered at all, and so has not done what
// it was asked.
func answered(err error) bool {
	var answer *mysql.MySQLError
	return errors.As(err, &answer)
}
