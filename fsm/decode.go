package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/txn"
)

// errNewer is wrapped where an entry or snapshot has a version above this
// binary's.
var errNewer = errors.New("this node's binary is too old")

// decode reads an entry strictly: each field is checked, and one that this binary
// does not know is an error, because to skip it might be to do something else
// than the nodes that know it. Branches share the names of registered participants.
func decode(b []byte, registered names) (Entry, error) {
	if e, ok := readEntry(b, registered); ok {
		return e, nil
	}
	return decodeAny(b)
}

// decodeAny is decode for what is not as this binary writes it, and says what is
// wrong with it, if anything is.
func decodeAny(b []byte) (Entry, error) {
	var pb fsmpb.Entry
	if err := proto.Unmarshal(b, &pb); err != nil {
		return Entry{}, err
	}
	if err := checkVersion("entry", pb.Version); err != nil {
		return Entry{}, err
	}
	if err := known(&pb); err != nil {
		return Entry{}, err
	}
	e := Entry{Header: txn.Header{Epoch: pb.Epoch, Time: txn.Time(pb.Time), Horizon: txn.Time(pb.Horizon)}}
	if err := checkHeader(e.Header); err != nil {
		return Entry{}, fmt.Errorf("header: %w", err)
	}
	e.Commands = make([]Command, len(pb.Commands))
	for i, c := range pb.Commands {
		out, err := commandFromProto(c)
		if err != nil {
			return Entry{}, fmt.Errorf("command %d: %w", i+1, err)
		}
		if _, ok := out.(Lead); ok && len(pb.Commands) != 1 {
			return Entry{}, fmt.Errorf("command %d: a lead command stands alone in its entry", i+1)
		}
		e.Commands[i] = out
	}
	if needed := entryLevel(e.Commands); Level(pb.Version) != needed {
		return Entry{}, fmt.Errorf("it has version %d, its commands need %d", pb.Version, needed)
	}
	return e, nil
}

func checkVersion(what string, v uint32) error {
	switch {
	case v == 0:
		return fmt.Errorf("the %s has no version", what)
	case Level(v) > Newest:
		return fmt.Errorf("%w for %s version %d: it reads versions up to %d", errNewer, what, v, Newest)
	}
	return nil
}

func checkHeader(h txn.Header) error {
	switch {
	case h.Epoch == 0:
		return errors.New("no epoch")
	case h.Time < 0 || h.Time > maxTime:
		return fmt.Errorf("time %d lies outside of 0 to %d", h.Time, maxTime)
	case h.Horizon < 0 || h.Horizon > h.Time:
		return fmt.Errorf("horizon %d lies outside of 0 to the entry's time %d", h.Horizon, h.Time)
	}
	return nil
}

func commandFromProto(pb *fsmpb.Command) (Command, error) {
	if err := known(pb); err != nil {
		return nil, err
	}
	switch kind := pb.Kind.(type) {
	case *fsmpb.Command_Lead:
		return named("lead", kind.Lead, leadFromProto)
	case *fsmpb.Command_Stage:
		return named("stage", kind.Stage, stageFromProto)
	case *fsmpb.Command_Enlist:
		return named("enlist", kind.Enlist, enlistFromProto)
	case *fsmpb.Command_Prepare:
		return named("prepare", kind.Prepare, prepareFromProto)
	case *fsmpb.Command_Decide:
		return named("decide", kind.Decide, decideFromProto)
	case *fsmpb.Command_Presume:
		return named("presume", kind.Presume, presumeFromProto)
	case *fsmpb.Command_Arbitrate:
		return named("arbitrate", kind.Arbitrate, arbitrateFromProto)
	case *fsmpb.Command_Acknowledge:
		return named("acknowledge", kind.Acknowledge, acknowledgeFromProto)
	case *fsmpb.Command_PutParticipant:
		return named("put participant", kind.PutParticipant, putParticipantFromProto)
	case *fsmpb.Command_DeleteParticipant:
		return named("delete participant", kind.DeleteParticipant, deleteParticipantFromProto)
	case *fsmpb.Command_Collect:
		return named("collect", kind.Collect, collectFromProto)
	case *fsmpb.Command_RaiseLevel:
		return named("raise level", kind.RaiseLevel, raiseLevelFromProto)
	case *fsmpb.Command_SetGroup:
		return named("set group", kind.SetGroup, setGroupFromProto)
	case *fsmpb.Command_Resolve:
		return named("resolve", kind.Resolve, resolveFromProto)
	case *fsmpb.Command_Audited:
		return named("audited", kind.Audited, auditedFromProto)
	default:
		return nil, errors.New("it has no kind")
	}
}

// named decodes one kind of command and puts its name before an error.
func named[M proto.Message, C any](name string, pb M, decode func(M) (C, error)) (Command, error) {
	err := known(pb)
	if err == nil {
		var c C
		if c, err = decode(pb); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}

// known refuses fields that this binary does not know.
func known(m proto.Message) error {
	if n := len(m.ProtoReflect().GetUnknown()); n != 0 {
		return fmt.Errorf("%d bytes of unknown fields in %s", n, m.ProtoReflect().Descriptor().Name())
	}
	return nil
}

func leadFromProto(pb *fsmpb.Lead) (Lead, error) {
	return Lead{Node: pb.Node, Cluster: pb.Cluster}, cmp.Or(
		checkName("node", pb.Node), checkName("cluster", pb.Cluster))
}

func stageFromProto(pb *fsmpb.Stage) (c txn.Stage, err error) {
	c = txn.Stage{Interactive: pb.Interactive, Timeout: time.Duration(pb.Timeout)}
	if c.ID, err = idFromProto(pb.Txid); err != nil {
		return c, err
	}
	if err := checkTimeout(c.Timeout); err != nil {
		return c, err
	}
	if c.Branches, err = newBranchesFromProto(pb.Branches); err != nil {
		return c, err
	}
	if c.Owner, err = ownerFromProto(pb.Owner); err != nil {
		return c, err
	}
	for i, b := range c.Branches {
		if b.External {
			return c, fmt.Errorf("branch %d: an external branch can't be staged, only enlisted", i+1)
		}
	}
	return c, nil
}

func ownerFromProto(name string) (txn.Owner, error) {
	if name == "" {
		return txn.Owner{}, nil
	}
	return txn.OwnerOf(name), checkName("owner", name)
}

func enlistFromProto(pb *fsmpb.Enlist) (c txn.Enlist, err error) {
	if c.ID, err = idFromProto(pb.Txid); err != nil {
		return c, err
	}
	if pb.Branch == nil {
		return c, errors.New("no branch")
	}
	c.Branch, err = newBranchFromProto(pb.Branch)
	return c, err
}

func prepareFromProto(pb *fsmpb.Prepare) (c txn.Prepare, err error) {
	if c.ID, err = idFromProto(pb.Txid); err != nil {
		return c, err
	}
	if err := atMostBranches(len(pb.Votes), "votes"); err != nil {
		return c, err
	}
	for _, v := range pb.Votes {
		n, err := branchNumber(v.Branch)
		if err = cmp.Or(err, known(v), checkVote(v.Vote)); err != nil {
			return c, fmt.Errorf("vote: %w", err)
		}
		c.Votes = append(c.Votes, txn.BranchVote{Branch: n, Vote: txn.Vote(v.Vote)})
	}
	return c, nil
}

func decideFromProto(pb *fsmpb.Decide) (c txn.Decide, err error) {
	if c.ID, err = idFromProto(pb.Txid); err != nil {
		return c, err
	}
	if c.Decision, err = decisionFromProto(pb.Decision); err != nil {
		return c, err
	}
	if c.Reason, err = reasonFromProto(pb.Reason); err != nil {
		return c, err
	}
	if err := atMostBranches(len(pb.ReadOnly), "read-only branches"); err != nil {
		return c, err
	}
	for _, v := range pb.ReadOnly {
		n, err := branchNumber(v)
		if err != nil {
			return c, fmt.Errorf("read-only: %w", err)
		}
		c.ReadOnly = append(c.ReadOnly, n)
	}
	if c.Branches, err = newBranchesFromProto(pb.Branches); err != nil {
		return c, err
	}
	return c, checkDecision(c)
}

func decisionFromProto(d uint32) (txn.Decision, error) {
	if d != uint32(txn.Commit) && d != uint32(txn.Abort) {
		return 0, fmt.Errorf("decision %d is neither commit nor abort", d)
	}
	return txn.Decision(d), nil
}

// checkDecision refuses what the other decision alone may carry.
func checkDecision(c txn.Decide) error {
	switch {
	case c.Decision == txn.Commit && c.Reason != (txn.Reason{}):
		return errors.New("a commit has no reason")
	case c.Decision == txn.Commit && len(c.Branches) > 0:
		return errors.New("a commit takes over no branches")
	case c.Decision == txn.Abort && c.Reason.Code == txn.ReasonNone:
		return errors.New("an abort needs a reason")
	case c.Reason.Code == txn.ReasonOperator:
		return errors.New("what an operator decides is another command")
	case c.Decision == txn.Abort && len(c.ReadOnly) > 0:
		return errors.New("an abort leaves no branch out")
	}
	return nil
}

func presumeFromProto(pb *fsmpb.Presume) (c txn.Presume, err error) {
	c.ID, err = idFromProto(pb.Txid)
	return c, err
}

func arbitrateFromProto(pb *fsmpb.Arbitrate) (c txn.Arbitrate, err error) {
	if c.ID, err = idFromProto(pb.Txid); err != nil {
		return c, err
	}
	if len(pb.Detail) > txn.MaxReasonDetail {
		return c, fmt.Errorf("a detail of %d bytes, at most %d", len(pb.Detail), txn.MaxReasonDetail)
	}
	c.Detail = pb.Detail
	c.Decision, err = decisionFromProto(pb.Decision)
	return c, err
}

func acknowledgeFromProto(pb *fsmpb.Acknowledge) (c txn.Acknowledge, err error) {
	if c.ID, err = idFromProto(pb.Txid); err != nil {
		return c, err
	}
	if err := atMostBranches(len(pb.Receipts), "receipts"); err != nil {
		return c, err
	}
	for _, r := range pb.Receipts {
		n, err := branchNumber(r.Branch)
		if err = cmp.Or(err, known(r), checkReceipt(r.Receipt)); err != nil {
			return c, fmt.Errorf("receipt: %w", err)
		}
		c.Receipts = append(c.Receipts, txn.BranchReceipt{Branch: n, Receipt: txn.Receipt(r.Receipt)})
	}
	return c, nil
}

func resolveFromProto(pb *fsmpb.Resolve) (c txn.Resolve, err error) {
	if c.ID, err = idFromProto(pb.Txid); err != nil {
		return c, err
	}
	if c.As = txn.Decision(pb.As); pb.As < uint32(txn.Commit) || pb.As > uint32(txn.Abort) {
		return c, fmt.Errorf("resolved as %d", pb.As)
	}
	c.Branch, err = branchNumber(pb.Branch)
	return c, err
}

func putParticipantFromProto(pb *fsmpb.PutParticipant) (PutParticipant, error) {
	p := Participant{Name: pb.Name, Driver: pb.Driver, Config: pb.Config, Identity: pb.Identity}
	return PutParticipant{p}, checkParticipant(p)
}

func deleteParticipantFromProto(pb *fsmpb.DeleteParticipant) (DeleteParticipant, error) {
	return DeleteParticipant{Name: pb.Name}, checkName("participant", pb.Name)
}

func collectFromProto(pb *fsmpb.Collect) (Collect, error) {
	if pb.Limit < 1 || pb.Limit > MaxCollect {
		return Collect{}, fmt.Errorf("limit %d lies outside of 1 to %d", pb.Limit, MaxCollect)
	}
	return Collect{Limit: int(pb.Limit)}, nil
}

func raiseLevelFromProto(pb *fsmpb.RaiseLevel) (RaiseLevel, error) {
	if level := Level(pb.Level); level <= LevelFirst || level > Newest {
		return RaiseLevel{}, fmt.Errorf("level %d lies outside of %d to %d", level, LevelFirst+1, Newest)
	}
	return RaiseLevel{Level: Level(pb.Level)}, nil
}

// newBranchesFromProto reads branches as a proposer names them: without a vote or
// a receipt, which only the state machine may set.
func newBranchesFromProto(pb []*fsmpb.Branch) ([]txn.Branch, error) {
	return branchesFromProto(pb, newBranchFromProto)
}

func branchesFromProto(pb []*fsmpb.Branch, decode func(*fsmpb.Branch) (txn.Branch, error)) ([]txn.Branch, error) {
	if err := atMostBranches(len(pb), "branches"); err != nil || len(pb) == 0 {
		return nil, err
	}
	branches := make([]txn.Branch, len(pb))
	for i, b := range pb {
		var err error
		if branches[i], err = decode(b); err != nil {
			return nil, fmt.Errorf("branch %d: %w", i+1, err)
		}
	}
	return branches, nil
}

func newBranchFromProto(pb *fsmpb.Branch) (txn.Branch, error) {
	if pb.Vote != 0 || pb.Receipt != 0 || pb.Resolved != 0 {
		return txn.Branch{}, errors.New("a new branch has neither vote nor receipt")
	}
	return branchFromProto(pb)
}

func branchFromProto(pb *fsmpb.Branch) (txn.Branch, error) {
	err := cmp.Or(known(pb), checkName("participant", pb.Participant), checkVote(pb.Vote), checkReceipt(pb.Receipt), checkResolved(pb.Resolved))
	if err != nil {
		return txn.Branch{}, err
	}
	b := txn.Branch{
		Participant: pb.Participant,
		External:    pb.External,
		Vote:        txn.Vote(pb.Vote),
		Receipt:     txn.Receipt(pb.Receipt),
		Resolved:    txn.Decision(pb.Resolved),
	}
	if len(pb.Payload) > 0 {
		b.Payload = pb.Payload
	}
	if len(pb.Digest) != len(b.Digest) {
		return txn.Branch{}, fmt.Errorf("the digest has %d bytes, want %d", len(pb.Digest), len(b.Digest))
	}
	copy(b.Digest[:], pb.Digest)
	return b, nil
}

func reasonFromProto(pb *fsmpb.Reason) (txn.Reason, error) {
	if pb == nil {
		return txn.Reason{}, nil
	}
	if err := known(pb); err != nil {
		return txn.Reason{}, err
	}
	switch {
	case pb.Code < uint32(txn.ReasonVote) || pb.Code > uint32(txn.ReasonOperator):
		return txn.Reason{}, fmt.Errorf("reason code %d is unknown", pb.Code)
	case pb.Branch > txn.MaxBranches:
		return txn.Reason{}, fmt.Errorf("reason: branch %d of at most %d", pb.Branch, txn.MaxBranches)
	case len(pb.Detail) > txn.MaxReasonDetail:
		return txn.Reason{}, fmt.Errorf("reason: a detail of %d bytes, at most %d", len(pb.Detail), txn.MaxReasonDetail)
	}
	return txn.Reason{Code: txn.ReasonCode(pb.Code), Branch: int(pb.Branch), Detail: pb.Detail}, nil
}

func idFromProto(b []byte) (id txn.TxID, err error) {
	if len(b) != len(id) {
		return id, fmt.Errorf("%w: %d bytes, want %d", txn.ErrMalformedTxID, len(b), len(id))
	}
	copy(id[:], b)
	return id, id.Validate()
}

func branchNumber(n uint32) (int, error) {
	if n < 1 || n > txn.MaxBranches {
		return 0, fmt.Errorf("branch number %d lies outside of 1 to %d", n, txn.MaxBranches)
	}
	return int(n), nil
}

func atMostBranches(n int, what string) error {
	if n > txn.MaxBranches {
		return fmt.Errorf("%d %s, at most %d", n, what, txn.MaxBranches)
	}
	return nil
}

func checkVote(v uint32) error {
	if v > uint32(txn.VoteAbort) {
		return fmt.Errorf("vote %d is unknown", v)
	}
	return nil
}

func checkReceipt(r uint32) error {
	if r > uint32(txn.HeuristicHazard) {
		return fmt.Errorf("receipt %d is unknown", r)
	}
	return nil
}

func checkResolved(d uint32) error {
	if d > uint32(txn.Abort) {
		return fmt.Errorf("resolution %d is unknown", d)
	}
	return nil
}

func checkTimeout(d time.Duration) error {
	if d < 0 || d > MaxTimeout {
		return fmt.Errorf("timeout %s lies outside of 0 to %s", d, MaxTimeout)
	}
	return nil
}

func checkParticipant(p Participant) error {
	if len(p.Config) > MaxConfigBytes {
		return fmt.Errorf("a configuration of %d bytes, at most %d", len(p.Config), MaxConfigBytes)
	}
	if p.Identity != "" {
		if err := checkName("resource", p.Identity); err != nil {
			return err
		}
	}
	return cmp.Or(checkName("participant", p.Name), checkName("driver", p.Driver))
}

func checkName(what, s string) error {
	if s == "" || len(s) > MaxNameBytes || !utf8.ValidString(s) {
		return fmt.Errorf("the name of a %s has 1 to %d bytes of UTF-8, this has %d", what, MaxNameBytes, len(s))
	}
	return nil
}
