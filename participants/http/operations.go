package httpparticipant

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

func (s *server) prepare(ctx context.Context, body []byte) (response, error) {
	b, err := readPrepare(body)
	if err != nil {
		return response{}, invalid(err)
	}
	vote, err := s.participant.Prepare(ctx, b)
	if err != nil {
		return response{}, err
	}
	switch vote.Kind {
	case txn.VoteCommit:
		return ok(voteAnswer{Vote: voteCommit}), nil
	case txn.VoteReadOnly:
		return ok(voteAnswer{Vote: voteReadOnly}), nil
	case txn.VoteAbort:
		return conflict(voteAnswer{Vote: voteAbort, Reason: forPeople(vote.Reason)}), nil
	default:
		return response{}, fmt.Errorf("the participant gave no vote but %s", vote.Kind)
	}
}

func (s *server) commit(ctx context.Context, body []byte) (response, error) {
	b, err := readBranch(body)
	if err != nil {
		return response{}, invalid(err)
	}
	return receiptToWire(statusCommitted, s.participant.Commit(ctx, b))
}

func (s *server) abort(ctx context.Context, body []byte) (response, error) {
	b, err := readBranch(body)
	if err != nil {
		return response{}, invalid(err)
	}
	return receiptToWire(statusAborted, s.participant.Abort(ctx, b))
}

// receiptToWire turns the contract's answer to commit or abort into the wire's.
// Only nil and a heuristic are receipts.
func receiptToWire(done string, err error) (response, error) {
	var h *participants.Heuristic
	switch {
	case err == nil:
		return ok(statusAnswer{done}), nil
	case errors.As(err, &h):
		word, known := heuristicToWire(h.Receipt)
		if !known {
			return response{}, fmt.Errorf("the participant reported %s as a heuristic", h.Receipt)
		}
		return conflict(heuristicAnswer{word, forPeople(h.Detail)}), nil
	default:
		return response{}, err
	}
}

func (s *server) status(ctx context.Context, body []byte) (response, error) {
	b, err := readBranch(body)
	if err != nil {
		return response{}, invalid(err)
	}
	reporter, can := s.participant.(participants.StatusReporter)
	if !can {
		return response{}, refuse(http.StatusNotImplemented, errorUnsupported, "the participant cannot prove what became of a branch")
	}
	fate, err := reporter.Status(ctx, b)
	if err != nil {
		return response{}, err
	}
	switch fate {
	case participants.StatusUnknown:
		return ok(statusAnswer{statusUnknown}), nil
	case participants.StatusPrepared:
		return ok(statusAnswer{statusPrepared}), nil
	case participants.StatusCommitted:
		return ok(statusAnswer{statusCommitted}), nil
	case participants.StatusAborted:
		return ok(statusAnswer{statusAborted}), nil
	default:
		return response{}, fmt.Errorf("the participant gave no status but %s", fate)
	}
}

// recover answers "unsupported" where the participant lists branches but is not
// known to list every one: the caller would build on a list that has holes (rule
// R4). A page's cursor is the name of its last branch and pages are sorted, so a
// branch that stays prepared is on one of them whatever else comes and goes.
func (s *server) recover(ctx context.Context, body []byte) (response, error) {
	request, err := readRecover(body)
	if err != nil {
		return response{}, invalid(err)
	}
	after, err := readCursor(request.Cursor)
	if err != nil {
		return response{}, invalid(err)
	}
	branches, err := s.participant.Recover(ctx, request.Cluster)
	if err != nil {
		return response{}, err
	}
	if !s.participant.Recovers() {
		return response{}, refuse(http.StatusNotImplemented, errorUnsupported,
			"the participant cannot list every branch that it holds prepared")
	}
	return ok(pageOf(branches, after, request.Limit)), nil
}

// pageOf makes the page of the branches that come after a cursor's.
func pageOf(branches []participants.Branch, after participants.Branch, limit int) recoverAnswer {
	branches = slices.SortedFunc(slices.Values(branches), byName)
	start, found := slices.BinarySearchFunc(branches, after, byName)
	if found {
		start++
	}
	branches = branches[start:]
	page := recoverAnswer{Branches: []preparedBranch{}} // an empty list, never null
	if limit = min(limit, pageLimit); len(branches) > limit {
		branches = branches[:limit]
		last := branches[limit-1]
		page.NextCursor = last.TxID.String() + "/" + strconv.Itoa(last.Number)
	}
	for _, b := range branches {
		page.Branches = append(page.Branches, preparedBranch{b.TxID.String(), b.Number})
	}
	return page
}

// readCursor finds the name in a cursor. That of the first page is no branch's,
// and before all others.
func readCursor(cursor string) (participants.Branch, error) {
	if cursor == "" {
		return participants.Branch{}, nil
	}
	id, number, _ := strings.Cut(cursor, "/")
	txid, err := txn.ParseTxID(id)
	n, numberErr := strconv.Atoi(number)
	if err != nil || numberErr != nil {
		return participants.Branch{}, errors.New("cursor: not one that was given out here")
	}
	return participants.Branch{TxID: txid, Number: n}, nil
}

func byName(a, b participants.Branch) int {
	return cmp.Or(bytes.Compare(a.TxID[:], b.TxID[:]), cmp.Compare(a.Number, b.Number))
}
