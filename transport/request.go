package transport

import (
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/group"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// This file checks requests as far as that needs no state: whatever is wrong is
// told at once, by any node, and before anything is forwarded.

// participantName is the rule of participants.proto.
var participantName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,62}$`)

func (e *invalidError) add(reason, field, format string, args ...any) {
	*e = append(*e, violation{reason: reason, field: field, text: fmt.Sprintf(format, args...)})
}

// err is nil if nothing is wrong.
func (e invalidError) err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// newTxID makes a txid for a request without one. The node that the client talks
// to makes it, before it forwards, so that its own retries are the same run. It is one of
// the group's: of n groups, n draws on average.
func newTxID(g group.Group) (txn.TxID, error) {
	for {
		id, err := uuid.NewV7()
		if err != nil {
			return txn.TxID{}, fmt.Errorf("make a txid: %w", err)
		}
		if g.Takes(id) {
			return txn.TxID(id), nil
		}
	}
}

func parseTxID(s string, bad *invalidError) txn.TxID {
	id, err := txn.ParseTxID(s)
	switch {
	case s == "":
		bad.add(reasonMalformedTxID, "txid", "is missing")
	case err != nil:
		bad.add(reasonMalformedTxID, "txid", "%v", err)
	}
	return id
}

// txidOf reads the txid of a request that has no other field to check.
func txidOf(s string) (txn.TxID, error) {
	var bad invalidError
	id := parseTxID(s, &bad)
	return id, bad.err()
}

func parseWait(w decreev1.Wait, bad *invalidError) coordinator.Wait {
	switch w {
	case decreev1.Wait_WAIT_UNSPECIFIED, decreev1.Wait_WAIT_DELIVERY:
		return coordinator.WaitDelivery
	case decreev1.Wait_WAIT_DECISION:
		return coordinator.WaitDecision
	}
	bad.add(reasonInvalidRequest, "wait", "no such value: %d", w)
	return 0
}

// parseBranches reads the branches of a one-shot transaction.
func parseBranches(list []*decreev1.NewBranch, bad *invalidError) []txn.Branch {
	switch {
	case len(list) == 0:
		bad.add(reasonEmpty, "branches", "a transaction has at least one branch")
		return nil
	case len(list) > txn.MaxBranches:
		bad.add(reasonTooManyBranches, "branches", "%d branches, at most %d", len(list), txn.MaxBranches)
		return nil
	}
	branches := make([]txn.Branch, len(list))
	earlier := repeated(list)
	for i, b := range list {
		branches[i] = parseBranch(place(i), b, bad)
		if first := earlier(i); first < i {
			bad.add(reasonDuplicateBranch, place(i).field(".participant"), "%q has branches[%d] already", b.GetParticipant(), first)
		}
	}
	return branches
}

// fewBranches are looked through faster than a map is made.
const fewBranches = 16

// repeated tells the first branch at the participant of each.
func repeated(list []*decreev1.NewBranch) func(i int) int {
	if len(list) <= fewBranches {
		return func(i int) int {
			return slices.IndexFunc(list, func(b *decreev1.NewBranch) bool { return b.GetParticipant() == list[i].GetParticipant() })
		}
	}
	first := make(map[string]int, len(list))
	for i, b := range list {
		if _, ok := first[b.GetParticipant()]; !ok {
			first[b.GetParticipant()] = i
		}
	}
	return func(i int) int { return first[list[i].GetParticipant()] }
}

// place is where a branch stands in its request: its index, or theOne.
type place int

const theOne place = -1

// field names one of the branch's fields. Only what is wrong needs a name.
func (p place) field(name string) string {
	if p == theOne {
		return "branch" + name
	}
	return fmt.Sprintf("branches[%d]%s", int(p), name)
}

func parseBranch(at place, b *decreev1.NewBranch, bad *invalidError) txn.Branch {
	if b.GetParticipant() == "" {
		bad.add(reasonInvalidRequest, at.field(".participant"), "is missing")
	}
	payload := b.GetPayload()
	if content, ok := b.GetContent().(*decreev1.NewBranch_Json); ok {
		var err error
		if payload, err = canonicalJSON(content.Json, content.Json.AsInterface()); err != nil {
			bad.add(reasonInvalidRequest, at.field(".json"), "%v", err)
		}
	}
	return txn.NewBranch(b.GetParticipant(), payload)
}

// parseEnlisted reads the branch of an Enlist.
func parseEnlisted(req *decreev1.EnlistRequest, bad *invalidError) txn.Branch {
	if req.GetExternal() && req.GetBranch().GetContent() != nil {
		bad.add(reasonInvalidRequest, "branch", "an external branch has no content: the application runs it")
	}
	b := parseBranch(theOne, req.GetBranch(), bad)
	b.External = req.GetExternal()
	return b
}

func parseVotes(list []*decreev1.BranchVote, bad *invalidError) []txn.BranchVote {
	if len(list) > txn.MaxBranches {
		bad.add(reasonTooManyBranches, "votes", "%d votes, at most %d", len(list), txn.MaxBranches)
		return nil
	}
	votes := make([]txn.BranchVote, 0, len(list))
	seen := make(map[uint32]bool, len(list))
	for i, v := range list {
		field := fmt.Sprintf("votes[%d]", i)
		if v.GetBranch() < 1 || v.GetBranch() > txn.MaxBranches {
			bad.add(reasonNoSuchBranch, field+".branch", "branches count from 1 to %d", txn.MaxBranches)
		}
		if v.GetVote() < decreev1.Vote_VOTE_COMMIT || v.GetVote() > decreev1.Vote_VOTE_ABORT {
			bad.add(reasonInvalidRequest, field+".vote", "want a vote, not %s", v.GetVote())
		}
		if seen[v.GetBranch()] {
			bad.add(reasonInvalidRequest, field+".branch", "branch %d has voted already", v.GetBranch())
		}
		seen[v.GetBranch()] = true
		votes = append(votes, txn.BranchVote{Branch: int(v.GetBranch()), Vote: txn.Vote(v.GetVote())}) //nolint:gosec // checked above
	}
	return votes
}

func parseStates(list []decreev1.State, bad *invalidError) []txn.State {
	states := make([]txn.State, 0, len(list))
	for i, st := range list {
		if st < decreev1.State_STATE_ACTIVE || st > decreev1.State_STATE_ABORTED {
			bad.add(reasonInvalidRequest, fmt.Sprintf("states[%d]", i), "want a state, not %s", st)
			continue
		}
		states = append(states, txn.State(st)) //nolint:gosec // checked above
	}
	return states
}

// parseCursor reads a page token, which is the last txid of the page before.
func parseCursor(token string, bad *invalidError) txn.TxID {
	if token == "" {
		return txn.TxID{}
	}
	id, err := txn.ParseTxID(token)
	if err != nil {
		bad.add(reasonInvalidRequest, "page_token", "not one that a page came with")
	}
	return id
}

// clip bounds words that are replicated, at a rune's edge.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
