package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/decree-tx/decree/cmd/internal/daemon"
	"github.com/decree-tx/decree/participants/participanttest/databases"
	"github.com/decree-tx/decree/transport/client"
)

// The exit codes, as exitCodeHelp documents them. They are part of the interface:
// scripts branch on them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitAborted     = 3
	exitUnknown     = 4
	exitNotFound    = 5
	exitUnavailable = 6
	exitDamaged     = 7
)

const exitCodeHelp = `  0  done; of a transaction: committed, or the decision that was asked for
  1  refused or failed
  2  the command line or the configuration is wrong
  3  the transaction is aborted: none of its branches took effect
  4  the outcome is not known: ask again with the same txid
  5  there is no such transaction, participant or node
  6  no node could be reached, or none could take the request: nothing was done
  7  a branch ended against the decision and needs a person`

// usageError is a mistake on the command line, or in the configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// exitCode maps what a command returned.
func exitCode(err error) int {
	var usage *usageError
	is := func(reasons ...error) bool {
		for _, r := range reasons {
			if errors.Is(err, r) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case is(client.ErrDamaged) || damaged(err):
		return exitDamaged
	case is(client.ErrAborted):
		return exitAborted
	case is(client.ErrOutcomeUnknown, client.ErrUndecided):
		return exitUnknown
	case is(client.ErrNotFound, client.ErrUnknownParticipant, client.ErrUnknownNode):
		return exitNotFound
	case is(client.ErrUnavailable, client.ErrNotLeader, client.ErrBusy, client.ErrShuttingDown, context.DeadlineExceeded):
		return exitUnavailable
	default:
		return exitFailed
	}
}

// damaged reports an abort against which a branch went.
func damaged(err error) bool {
	var aborted *client.AbortedError
	return errors.As(err, &aborted) && aborted.Damage != client.NoDamage
}

// report tells what went wrong on stderr, every problem on a line of its own, and
// gives the exit code. An outcome that has been printed is not told twice.
func (p *program) report(err error) int {
	code := exitCode(err)
	var told *toldError
	if err == nil || errors.As(err, &told) {
		return code
	}
	if p.out.format == formatJSON {
		p.reportJSON(err, code)
		return code
	}
	problems := flatten(err)
	if len(problems) > 1 {
		fmt.Fprintf(p.stderr, "decree: %d problems:\n", len(problems))
		for _, problem := range problems {
			fmt.Fprintf(p.stderr, "  %s\n", problem)
		}
	} else {
		fmt.Fprintf(p.stderr, "decree: %s\n", strings.Join(problems, ""))
	}
	if hint := p.hint(err); hint != "" {
		fmt.Fprintf(p.stderr, "  %s\n", hint)
	}
	return code
}

// reportJSON is report for programs: one object on stderr.
func (p *program) reportJSON(err error, exit int) {
	report := struct {
		Error    string   `json:"error"`
		Problems []string `json:"problems,omitempty"`
		Hint     string   `json:"hint,omitempty"`
		Reason   string   `json:"reason,omitempty"`
		TxID     string   `json:"txid,omitempty"`
		Exit     int      `json:"exit"`
	}{Exit: exit, Hint: p.hint(err)}
	problems := flatten(err)
	report.Error = strings.Join(problems, "; ")
	if len(problems) > 1 {
		report.Problems = problems
	}
	var refusal *client.Error
	if errors.As(err, &refusal) {
		report.Reason, report.TxID = string(refusal.Reason), refusal.TxID
	}
	var unknown *client.UnknownError
	if errors.As(err, &unknown) {
		report.Reason, report.TxID = string(client.ErrOutcomeUnknown), unknown.TxID
	}
	encoder := json.NewEncoder(p.stderr)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(report) // stderr is the last resort
}

// warn tells on stderr what does not end the command.
func (p *program) warn(text string) {
	if p.out.format == formatJSON {
		_ = json.NewEncoder(p.stderr).Encode(map[string]string{"warning": text}) // stderr is the last resort
		return
	}
	fmt.Fprintf(p.stderr, "decree: %s\n", safe(text))
}

// hint says what to do next, where that is known.
func (p *program) hint(err error) string {
	if h := hintFor(err); h != "" {
		return h
	}
	return usageHint(p.mistaken)
}

// hintFor says what to do next, where that is known.
func hintFor(err error) string {
	var unknown *client.UnknownError
	switch {
	case errors.As(err, &unknown):
		return "ask again: decree tx inquire " + safe(unknown.TxID) + "  (or submit again with --txid " + safe(unknown.TxID) + ")"
	case errors.Is(err, client.ErrNotFound):
		return "decree tx list shows what is known; decree tx inquire TXID sees to it that an unknown one never runs"
	case errors.Is(err, client.ErrUnknownParticipant):
		return "decree participant list shows those that are registered"
	case errors.Is(err, client.ErrUnknownNode):
		return "decree cluster status shows the nodes"
	case errors.Is(err, client.ErrReused):
		return "every transaction needs a txid of its own: leave --txid out for a new one"
	case errors.Is(err, client.ErrParticipantInUse):
		return "decree tx list --unfinished --participant NAME shows what touches it"
	case errors.Is(err, client.ErrFuture):
		return "the txid was made by a clock that is ahead of the cluster's: compare date here with decree doctor there"
	case errors.Is(err, client.ErrOtherGroup):
		return "each cluster runs the transactions of its group only: say --endpoints of the other's; decree cluster status shows which group a cluster is"
	case errors.Is(err, client.ErrNodeUnreachable):
		return "is the node started with --join, and is its --raft-addr reachable from the leader?"
	case errors.Is(err, client.ErrWatchLagged):
		return "too much happened for this reader: decree tx list tells the present, and tx watch TXID one transaction"
	case errors.Is(err, client.ErrUnauthenticated):
		return "say who you are: --cert and --key, or --token-file (DECREE_CERT, DECREE_KEY, DECREE_TOKEN_FILE)"
	case errors.Is(err, client.ErrUnavailable):
		return "is a cluster running at these endpoints? (--endpoints, DECREE_ENDPOINTS)"
	case errors.Is(err, daemon.ErrPortInUse):
		return "is another node or cluster running here? choose other ports (decree dev: --port)"
	case errors.Is(err, databases.ErrMissing):
		return "scripts/test-databases.sh installs what is missing"
	default:
		return ""
	}
}

// flatten gives the problems in an error one by one, safe to show. What a server
// said stays on one line, whatever is in it.
func flatten(err error) []string {
	if usage, ok := err.(*usageError); ok {
		return flatten(usage.err)
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && isJoined(err, joined.Unwrap()) {
		var all []string
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	message := strings.TrimPrefix(err.Error(), "decree: ")
	var refusal *client.Error
	if !errors.As(err, &refusal) {
		lines := strings.Split(message, "\n") // of joined errors, further down
		for i, line := range lines {
			lines[i] = safe(strings.TrimPrefix(line, "decree: "))
		}
		return lines
	}
	if len(refusal.Violations) < 2 {
		return []string{safe(message)}
	}
	var all []string // the message names the first of them only
	for _, v := range refusal.Violations {
		all = append(all, safe(v.Field+": "+v.Description))
	}
	return all
}

// isJoined tells what errors.Join made from an error that wraps several in one
// sentence.
func isJoined(err error, parts []error) bool {
	texts := make([]string, len(parts))
	for i, e := range parts {
		texts[i] = e.Error()
	}
	return err.Error() == strings.Join(texts, "\n")
}

// toldError carries an exit code for something that stdout tells already.
type toldError struct{ error }

func (e *toldError) Unwrap() error { return e.error }
