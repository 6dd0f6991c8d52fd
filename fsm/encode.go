package fsm

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// commandToProto translates and checks nothing but the type: commandFromProto
// has the only list of what is valid.
func commandToProto(c Command) (*fsmpb.Command, error) {
	switch c := c.(type) {
	case Lead:
		return &fsmpb.Command{Kind: &fsmpb.Command_Lead{Lead: &fsmpb.Lead{Node: c.Node, Cluster: c.Cluster}}}, nil
	case txn.Stage:
		return &fsmpb.Command{Kind: &fsmpb.Command_Stage{Stage: &fsmpb.Stage{
			Txid: c.ID[:], Interactive: c.Interactive, Branches: branchesToProto(c.Branches), Timeout: int64(c.Timeout),
			Owner: c.Owner.String(),
		}}}, nil
	case txn.Enlist:
		return &fsmpb.Command{Kind: &fsmpb.Command_Enlist{Enlist: &fsmpb.Enlist{Txid: c.ID[:], Branch: branchToProto(c.Branch)}}}, nil
	case txn.Prepare:
		return &fsmpb.Command{Kind: &fsmpb.Command_Prepare{Prepare: &fsmpb.Prepare{Txid: c.ID[:], Votes: votesToProto(c.Votes)}}}, nil
	case txn.Decide:
		return &fsmpb.Command{Kind: &fsmpb.Command_Decide{Decide: decideToProto(c)}}, nil
	case txn.Presume:
		return &fsmpb.Command{Kind: &fsmpb.Command_Presume{Presume: &fsmpb.Presume{Txid: c.ID[:]}}}, nil
	case txn.Arbitrate:
		return &fsmpb.Command{Kind: &fsmpb.Command_Arbitrate{Arbitrate: &fsmpb.Arbitrate{
			Txid: c.ID[:], Decision: uint32(c.Decision), Detail: clipDetail(c.Detail),
		}}}, nil
	case txn.Acknowledge:
		return &fsmpb.Command{Kind: &fsmpb.Command_Acknowledge{Acknowledge: &fsmpb.Acknowledge{
			Txid: c.ID[:], Receipts: receiptsToProto(c.Receipts),
		}}}, nil
	case txn.Resolve:
		return &fsmpb.Command{Kind: &fsmpb.Command_Resolve{Resolve: &fsmpb.Resolve{
			Txid: c.ID[:], Branch: number(c.Branch), As: uint32(c.As),
		}}}, nil
	case PutParticipant:
		p := c.Participant
		return &fsmpb.Command{Kind: &fsmpb.Command_PutParticipant{PutParticipant: &fsmpb.PutParticipant{
			Name: p.Name, Driver: p.Driver, Config: p.Config, Identity: p.Identity,
		}}}, nil
	case DeleteParticipant:
		return &fsmpb.Command{Kind: &fsmpb.Command_DeleteParticipant{DeleteParticipant: &fsmpb.DeleteParticipant{Name: c.Name}}}, nil
	case Collect:
		return &fsmpb.Command{Kind: &fsmpb.Command_Collect{Collect: &fsmpb.Collect{Limit: number(c.Limit)}}}, nil
	case RaiseLevel:
		return &fsmpb.Command{Kind: &fsmpb.Command_RaiseLevel{RaiseLevel: &fsmpb.RaiseLevel{Level: uint32(c.Level)}}}, nil
	case SetGroup:
		return &fsmpb.Command{Kind: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{Group: groupToProto(c.Group)}}}, nil
	case Audited:
		audited, err := auditedToProto(c)
		return &fsmpb.Command{Kind: &fsmpb.Command_Audited{Audited: audited}}, err
	default:
		return nil, fmt.Errorf("a %T is no command", c)
	}
}

func decideToProto(c txn.Decide) *fsmpb.Decide {
	pb := &fsmpb.Decide{
		Txid: c.ID[:], Decision: uint32(c.Decision), Reason: reasonToProto(c.Reason), Branches: branchesToProto(c.Branches),
	}
	for _, n := range c.ReadOnly {
		pb.ReadOnly = append(pb.ReadOnly, number(n))
	}
	return pb
}

func votesToProto(votes []txn.BranchVote) []*fsmpb.BranchVote {
	var pb []*fsmpb.BranchVote
	for _, v := range votes {
		pb = append(pb, &fsmpb.BranchVote{Branch: number(v.Branch), Vote: uint32(v.Vote)})
	}
	return pb
}

func receiptsToProto(receipts []txn.BranchReceipt) []*fsmpb.BranchReceipt {
	var pb []*fsmpb.BranchReceipt
	for _, r := range receipts {
		pb = append(pb, &fsmpb.BranchReceipt{Branch: number(r.Branch), Receipt: uint32(r.Receipt)})
	}
	return pb
}

// number translates what should be a small count. A negative one becomes one that
// is out of every range, instead of wrapping into a valid one.
func number(n int) uint32 {
	const outOfRange = 1<<32 - 1
	if n < 0 || n > outOfRange {
		return outOfRange
	}
	return uint32(n)
}

func branchesToProto(branches []txn.Branch) []*fsmpb.Branch {
	if len(branches) == 0 {
		return nil
	}
	pb := make([]*fsmpb.Branch, len(branches))
	for i, b := range branches {
		pb[i] = branchToProto(b)
	}
	return pb
}

func branchToProto(b txn.Branch) *fsmpb.Branch {
	return &fsmpb.Branch{
		Participant: b.Participant,
		Payload:     b.Payload,
		Digest:      b.Digest[:],
		External:    b.External,
		Vote:        uint32(b.Vote),
		Receipt:     uint32(b.Receipt),
		Resolved:    uint32(b.Resolved),
	}
}

func reasonToProto(r txn.Reason) *fsmpb.Reason {
	if r == (txn.Reason{}) {
		return nil
	}
	return &fsmpb.Reason{Code: uint32(r.Code), Branch: number(r.Branch), Detail: clipDetail(r.Detail)}
}

// clipDetail cuts at a character, because a detail with half of one would be no
// valid string, and a decision must not fail for that.
func clipDetail(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= txn.MaxReasonDetail {
		return s
	}
	end := txn.MaxReasonDetail
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

func participantToProto(p Participant) *fsmpb.Participant {
	return &fsmpb.Participant{Name: p.Name, Driver: p.Driver, Config: p.Config, Revision: p.Revision, Identity: p.Identity}
}
