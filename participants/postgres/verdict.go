package postgres

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// The SQLSTATEs that are told apart from others of their class.
const (
	undefinedObject     = "42704" // no prepared transaction of that name
	notReady            = "55000" // prepared transactions are disabled, or this one is busy
	lockNotAvailable    = "55P03" // the lock timeout
	queryCanceled       = "57014" // by request, or the statement timeout
	readOnlyTransaction = "25006"
	notInEncoding       = "22P05"
	notPermitted        = "42501"
	outOfMemory         = "53200" // too many prepared transactions, among others
	featureNotSupported = "0A000"
	duplicateObject     = "42710" // the gid is in use, in any database of the server
	invalidStatement    = "26000" // no statement of that name in this session
	duplicateStatement  = "42P05"
	adminShutdown       = "57P01" // by pg_terminate_backend, or with the server
)

// fatal reports whether the server has ended the session with this error.
func fatal(e *pgconn.PgError) bool {
	return e.SeverityUnlocalized != "ERROR" && (e.SeverityUnlocalized != "" || e.Severity != "ERROR")
}

// terminated reports whether somebody has ended this one session.
func terminated(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == adminShutdown
}

// untranslatable reports whether the database's encoding has no place for some
// character of a text.
func untranslatable(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == notInEncoding
}

// plain reports whether every encoding has the characters of a text.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// plainly writes a text so that it is plain.
func plainly(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
}

// confused reports whether session and server disagree on which statements are
// parsed, as they do where a pooler hands one session's messages to another's. It
// says nothing about the statement: the connection is of no use.
func confused(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == invalidStatement || e.Code == duplicateStatement)
}

// outdated reports whether a parsed statement's tables have changed so that it has
// to be parsed again.
func outdated(e *pgconn.PgError) bool {
	return e.Code == featureNotSupported && e.Routine == "RevalidateCachedQuery"
}

// certain reports whether an error of PREPARE TRANSACTION proves that nothing was
// prepared. What the server complains about comes before the transaction is
// durable; what happens to the session, or to the server, may come after.
func certain(e *pgconn.PgError) bool {
	if fatal(e) || len(e.Code) != 5 {
		return false
	}
	switch e.Code[:2] {
	case "0A", "21", "22", "23", "25", "2D", "34", "38", "39", "40", "42", "44", "53", "54", "55", "P0":
		// 40003 says itself that it does not know.
		return e.Code != "40003"
	}
	return false
}

// refusal is the vote for a statement that failed: the kind of failure, the
// SQLSTATE and what the server says, at most as long as a reason may be.
func refusal(what string, e *pgconn.PgError) participants.Vote {
	return participants.No("%s", clip(fmt.Sprintf("%s: %s (SQLSTATE %s): %s", what, kindOf(e), e.Code, e.Message)))
}

func kindOf(e *pgconn.PgError) string {
	switch e.Code {
	case lockNotAvailable:
		return "lock timeout"
	case "40P01":
		return "deadlock"
	case "40001":
		return "serialization failure"
	case queryCanceled:
		return "statement timeout"
	case notPermitted:
		return "missing right"
	case outOfMemory:
		return "out of shared memory; where max_prepared_transactions is reached, raise it in postgresql.conf and restart"
	case notReady:
		return "not in a state for this; where prepared transactions are disabled, set max_prepared_transactions in postgresql.conf and restart"
	case featureNotSupported:
		return "not possible in a branch"
	}
	switch e.Code[:min(2, len(e.Code))] {
	case "22":
		return "bad value"
	case "23":
		return "constraint violated"
	case "42":
		return "bad statement"
	case "P0":
		return "raised"
	}
	return "failed"
}

// clip cuts a reason to what is kept of it.
func clip(reason string) string {
	reason = strings.ToValidUTF8(reason, "?")
	if len(reason) <= txn.MaxReasonDetail {
		return reason
	}
	end := txn.MaxReasonDetail
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}

// ending puts a failed COMMIT PREPARED or ROLLBACK PREPARED in words, for whoever
// has to change something before it can succeed.
func ending(gid string, err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case notPermitted:
		return fmt.Errorf("this role may not finish %s: use the role that prepared it (SELECT owner FROM pg_prepared_xacts WHERE gid = '%s') "+
			"in the DSN of every node, or a superuser: %w", gid, gid, err)
	case featureNotSupported:
		return fmt.Errorf("%s was prepared in another database of this server than the one that the DSN leads to: %w", gid, err)
	}
	return err
}
