package fsm

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/decree-tx/decree/fsm/fsmpb"
	"github.com/decree-tx/decree/fsm/group"
	"github.com/decree-tx/decree/fsm/txn"
)

var (
	someID     = idAt(beginning, 1)
	someHeader = txn.Header{Epoch: 3, Time: beginning, Horizon: beginning - 1}
)

// everyCommand has each kind of command with each field set.
func everyCommand() []Command {
	external := txn.NewBranch("warehouse", nil)
	external.External = true
	return []Command{
		txn.Stage{ID: someID, Branches: []txn.Branch{txn.NewBranch("bank", []byte("-10")), txn.NewBranch("shop", nil)}, Timeout: time.Minute},
		txn.Stage{ID: someID, Interactive: true, Timeout: MaxTimeout},
		txn.Stage{ID: someID, Interactive: true, Timeout: time.Minute, Owner: txn.OwnerOf("client/web")},
		txn.Enlist{ID: someID, Branch: external},
		txn.Prepare{ID: someID, Votes: []txn.BranchVote{{Branch: 1, Vote: txn.VoteCommit}, {Branch: txn.MaxBranches, Vote: txn.VoteNone}}},
		txn.Decide{ID: someID, Decision: txn.Commit, ReadOnly: []int{1, 2}},
		txn.Decide{ID: someID, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonVote, Branch: 2, Detail: "sold out"},
			Branches: []txn.Branch{txn.NewBranch("bank", nil)}},
		txn.Presume{ID: someID},
		txn.Acknowledge{ID: someID, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.HeuristicHazard}}},
		PutParticipant{Participant{Name: "bank", Driver: "sim", Config: []byte("{}"), Identity: "here"}},
		DeleteParticipant{Name: "bank"},
		Collect{Limit: MaxCollect},
		RaiseLevel{Level: Newest},
		txn.Arbitrate{ID: someID, Decision: txn.Abort, Detail: "ann: the bank says so"},
		Audited{Who: "ann", Action: "transfer leadership", Target: "n2", Detail: "from n1", Why: "a new disk"},
		Audited{Who: "ann", Action: "put participant", Command: PutParticipant{Participant{Name: "bank", Driver: "sim"}}},
		Audited{Who: "ann", Action: "delete participant", Command: DeleteParticipant{Name: "bank"}},
		txn.Resolve{ID: someID, Branch: 2, As: txn.Abort},
		Audited{Who: "ann", Action: "resolve", Command: txn.Resolve{ID: someID, Branch: 1, As: txn.Commit}},
		SetGroup{group.Group{Number: 2, Of: group.Slots}},
		Audited{Who: "ann", Action: "set group", Command: SetGroup{group.Group{Number: 1, Of: 1}}},
	}
}

// TestEntriesAreReadAsTheyWereWritten holds that each command with all its fields
// survives the log.
func TestEntriesAreReadAsTheyWereWritten(t *testing.T) {
	for _, e := range []Entry{
		{Header: someHeader, Commands: everyCommand()},
		{Header: someHeader, Commands: []Command{Lead{Node: "n1", Cluster: "c"}}},
		{Header: someHeader, Commands: []Command{}},
	} {
		b, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(b, nil)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, e)
		}
	}
}

// TestSizeIsExact holds that a writer which packs commands by Size fills an entry
// to the byte.
func TestSizeIsExact(t *testing.T) {
	empty, err := Encode(Entry{Header: someHeader})
	if err != nil {
		t.Fatal(err)
	}
	want := len(empty)
	if want > HeaderBytes {
		t.Errorf("a header of %d bytes, HeaderBytes says %d", want, HeaderBytes)
	}
	commands := everyCommand()
	for _, c := range commands {
		want += Size(c)
	}
	b, err := Encode(Entry{Header: someHeader, Commands: commands})
	if err != nil || len(b) != want {
		t.Errorf("%d bytes, want %d, %v", len(b), want, err)
	}
	if Size("no command") != 0 {
		t.Error("no command has a size")
	}
	longest := txn.Header{Epoch: math.MaxUint64, Time: maxTime, Horizon: maxTime}
	if b, err := Encode(Entry{Header: longest}); err != nil || len(b) > HeaderBytes {
		t.Errorf("the longest header has %d bytes, HeaderBytes says %d, %v", len(b), HeaderBytes, err)
	}
}

// TestBadCommandsAreNeverProposed holds R12: what a node could not apply is
// refused before it is committed, with an error that says what is wrong.
func TestBadCommandsAreNeverProposed(t *testing.T) {
	branch := txn.NewBranch("bank", nil)
	with := func(change func(*txn.Branch)) txn.Branch {
		b := branch
		change(&b)
		return b
	}
	many := make([]txn.Branch, txn.MaxBranches+1)
	for i := range many {
		many[i] = txn.NewBranch(fmt.Sprint(i), nil)
	}
	stage := func(b ...txn.Branch) txn.Stage { return txn.Stage{ID: someID, Branches: b} }
	abort := txn.Reason{Code: txn.ReasonTimeout}
	long := strings.Repeat("x", MaxNameBytes+1)
	for name, c := range map[string]struct {
		command Command
		want    string
	}{
		"nothing":             {nil, "no command"},
		"a pointer":           {&txn.Presume{ID: someID}, "no command"},
		"no txid":             {txn.Presume{}, "not version 7"},
		"stage, no txid":      {txn.Stage{}, "not version 7"},
		"enlist, no txid":     {txn.Enlist{}, "not version 7"},
		"prepare, no txid":    {txn.Prepare{}, "not version 7"},
		"decide, no txid":     {txn.Decide{}, "not version 7"},
		"ack, no txid":        {txn.Acknowledge{}, "not version 7"},
		"a long owner":        {txn.Stage{ID: someID, Owner: txn.OwnerOf(long)}, "owner"},
		"a broken owner":      {txn.Stage{ID: someID, Owner: txn.OwnerOf("\xff")}, "owner"},
		"negative timeout":    {txn.Stage{ID: someID, Timeout: -1}, "timeout"},
		"absurd timeout":      {txn.Stage{ID: someID, Timeout: MaxTimeout + 1}, "timeout"},
		"too many branches":   {stage(many...), "257 branches"},
		"no participant":      {stage(with(func(b *txn.Branch) { b.Participant = "" })), "participant"},
		"a long name":         {stage(with(func(b *txn.Branch) { b.Participant = long })), "participant"},
		"a name of no text":   {stage(with(func(b *txn.Branch) { b.Participant = "\xff" })), "UTF-8"},
		"external, one-shot":  {stage(with(func(b *txn.Branch) { b.External = true })), "external"},
		"a vote beforehand":   {stage(with(func(b *txn.Branch) { b.Vote = txn.VoteReadOnly })), "neither vote nor receipt"},
		"a receipt":           {txn.Enlist{ID: someID, Branch: with(func(b *txn.Branch) { b.Receipt = txn.Done })}, "neither vote nor receipt"},
		"vote for branch 0":   {txn.Prepare{ID: someID, Votes: []txn.BranchVote{{Branch: 0}}}, "branch number 0"},
		"vote for branch -1":  {txn.Prepare{ID: someID, Votes: []txn.BranchVote{{Branch: -1}}}, "branch number 4294967295"},
		"vote far out":        {txn.Prepare{ID: someID, Votes: []txn.BranchVote{{Branch: 1<<32 + 1}}}, "branch number 4294967295"},
		"an unknown vote":     {txn.Prepare{ID: someID, Votes: []txn.BranchVote{{Branch: 1, Vote: 4}}}, "vote 4"},
		"too many votes":      {txn.Prepare{ID: someID, Votes: make([]txn.BranchVote, 257)}, "257 votes"},
		"undecided":           {txn.Decide{ID: someID}, "decision 0"},
		"an unknown decision": {txn.Decide{ID: someID, Decision: 3}, "decision 3"},
		"commit with reason":  {txn.Decide{ID: someID, Decision: txn.Commit, Reason: abort}, "no reason"},
		"commit, branches":    {txn.Decide{ID: someID, Decision: txn.Commit, Branches: many[:1]}, "takes over no branches"},
		"abort, no reason":    {txn.Decide{ID: someID, Decision: txn.Abort}, "needs a reason"},
		"abort, read-only":    {txn.Decide{ID: someID, Decision: txn.Abort, Reason: abort, ReadOnly: []int{1}}, "leaves no branch out"},
		"abort, branches":     {txn.Decide{ID: someID, Decision: txn.Abort, Reason: abort, Branches: many}, "257 branches"},
		"read-only 0":         {txn.Decide{ID: someID, Decision: txn.Commit, ReadOnly: []int{0}}, "branch number 0"},
		"too many read-only":  {txn.Decide{ID: someID, Decision: txn.Commit, ReadOnly: make([]int, 257)}, "257 read-only"},
		"unknown reason":      {txn.Decide{ID: someID, Decision: txn.Abort, Reason: txn.Reason{Code: 9}}, "reason code 9"},
		"reason's branch":     {txn.Decide{ID: someID, Decision: txn.Abort, Reason: txn.Reason{Code: 1, Branch: 257}}, "branch 257"},
		"a detail alone":      {txn.Decide{ID: someID, Decision: txn.Abort, Reason: txn.Reason{Detail: "why"}}, "reason code 0"},
		"unknown receipt":     {txn.Acknowledge{ID: someID, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: 9}}}, "receipt 9"},
		"receipt of nothing":  {txn.Acknowledge{ID: someID, Receipts: []txn.BranchReceipt{{Receipt: 1}}}, "branch number 0"},
		"too many receipts":   {txn.Acknowledge{ID: someID, Receipts: make([]txn.BranchReceipt, 257)}, "257 receipts"},
		"lead of nobody":      {Lead{Cluster: "c"}, "node"},
		"lead of nothing":     {Lead{Node: "n"}, "cluster"},
		"participant unnamed": {PutParticipant{Participant{Driver: "sim"}}, "participant"},
		"no driver":           {PutParticipant{Participant{Name: "bank"}}, "driver"},
		"a huge config":       {PutParticipant{Participant{Name: "bank", Driver: "sim", Config: make([]byte, MaxConfigBytes+1)}}, "configuration"},
		"a huge identity":     {PutParticipant{Participant{Name: "bank", Driver: "sim", Identity: strings.Repeat("i", MaxNameBytes+1)}}, "resource"},
		"delete of nothing":   {DeleteParticipant{}, "participant"},
		"collect nothing":     {Collect{}, "limit 0"},
		"collect everything":  {Collect{Limit: MaxCollect + 1}, "limit 10001"},
		"raise to nothing":    {RaiseLevel{}, "level 0"},
		"raise to the first":  {RaiseLevel{Level: LevelFirst}, "level 1"},
		"raise too far":       {RaiseLevel{Level: Newest + 1}, "lies outside of 2 to"},
		"resolve, no txid":    {txn.Resolve{Branch: 1, As: txn.Commit}, "not version 7"},
		"resolve nothing":     {txn.Resolve{ID: someID, As: txn.Commit}, "branch number 0"},
		"resolve as nothing":  {txn.Resolve{ID: someID, Branch: 1}, "resolved as 0"},
		"resolve as what":     {txn.Resolve{ID: someID, Branch: 1, As: 3}, "resolved as 3"},
		"a branch resolved":   {stage(with(func(b *txn.Branch) { b.Resolved = txn.Abort })), "neither vote nor receipt"},
		"a resolution of 3":   {stage(with(func(b *txn.Branch) { b.Resolved = 3 })), "neither vote nor receipt"},
		"nobody's action":     {Audited{Action: "add node"}, "somebody who does it"},
		"an action of none":   {Audited{Who: "ann"}, "and a name"},
		"a long why":          {Audited{Who: "ann", Action: "add node", Why: strings.Repeat("w", MaxAuditText+1)}, "at most 512 bytes"},
		"a why of no text":    {Audited{Who: "ann", Action: "add node", Why: "\xff"}, "UTF-8"},
		"audited decision":    {Audited{Who: "ann", Action: "abort", Command: txn.Presume{ID: someID}}, "no operator's action"},
		"audited twice":       {Audited{Who: "ann", Action: "a", Command: Audited{Who: "bob", Action: "b"}}, "audited again"},
		"audited nonsense":    {Audited{Who: "ann", Action: "a", Command: "no command"}, "no command"},
		"audited, and wrong":  {Audited{Who: "ann", Action: "a", Command: DeleteParticipant{}}, "participant"},
		"no group":            {SetGroup{}, "set group: no group"},
		"group 4 of 3":        {SetGroup{group.Group{Number: 4, Of: 3}}, "group 4 of 3"},
		"too many groups":     {SetGroup{group.Group{Number: 1, Of: group.Slots + 1}}, "want 1 to 1024"},
		"collect less":        {Collect{Limit: -1}, "limit 4294967295"},
		"too large":           {stage(txn.NewBranch("bank", make([]byte, MaxEntryBytes))), "at most"},
	} {
		err := Validate(c.command)
		if !errors.Is(err, ErrInvalidEntry) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Validate says %v, want %q", name, err, c.want)
		}
		if b, err := Encode(Entry{Header: someHeader, Commands: []Command{c.command}}); !errors.Is(err, ErrInvalidEntry) || b != nil {
			t.Errorf("%s: Encode says %v", name, err)
		}
	}
	for _, c := range everyCommand() {
		if err := Validate(c); err != nil {
			t.Errorf("%T: %v", c, err)
		}
	}
}

// TestBadHeadersAreNeverProposed holds R12 for headers and for entries as a whole.
func TestBadHeadersAreNeverProposed(t *testing.T) {
	lead := Lead{Node: "n", Cluster: "c"}
	for name, e := range map[string]Entry{
		"no epoch":         {Header: txn.Header{Time: 1}},
		"time before 1970": {Header: txn.Header{Epoch: 1, Time: -1}},
		"time after 2262":  {Header: txn.Header{Epoch: 1, Time: maxTime + 1}},
		"horizon ahead":    {Header: txn.Header{Epoch: 1, Time: 1, Horizon: 2}},
		"horizon before":   {Header: txn.Header{Epoch: 1, Time: 1, Horizon: -1}},
		"two leads":        {Header: someHeader, Commands: []Command{lead, lead}},
		"a lead with work": {Header: someHeader, Commands: []Command{txn.Presume{ID: someID}, lead}},
	} {
		if b, err := Encode(e); !errors.Is(err, ErrInvalidEntry) || b != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAReasonIsCutAndNotRefused holds that no participant can stop its own abort
// by the text of its no: what is too long or no text is made to fit.
func TestAReasonIsCutAndNotRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		detail := string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "bytes")) +
			strings.Repeat(rapid.SampledFrom([]string{"x", "é", "語", "🙂", "\xff"}).Draw(t, "text"), rapid.IntRange(0, 600).Draw(t, "times"))
		c := txn.Decide{ID: someID, Decision: txn.Abort, Reason: txn.Reason{Code: txn.ReasonVote, Detail: detail}}
		b, err := Encode(Entry{Header: someHeader, Commands: []Command{c}})
		if err != nil {
			t.Fatalf("%q: %v", detail, err)
		}
		e, err := decode(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := e.Commands[0].(txn.Decide).Reason.Detail
		valid := strings.ToValidUTF8(detail, "\uFFFD")
		if !utf8.ValidString(got) || len(got) > txn.MaxReasonDetail || !strings.HasPrefix(valid, got) ||
			len(valid) > txn.MaxReasonDetail && len(got) <= txn.MaxReasonDetail-utf8.UTFMax {
			t.Fatalf("%q became %q", detail, got)
		}
	})
}

// TestUnknownFieldsAreRefused adds a field that this binary does not know to each
// message of an entry: to skip it might be to do something else than the nodes
// which know it (R12).
func TestUnknownFieldsAreRefused(t *testing.T) {
	good, err := Encode(Entry{Header: someHeader, Commands: everyCommand()})
	if err != nil {
		t.Fatal(err)
	}
	lead, err := Encode(Entry{Header: someHeader, Commands: []Command{Lead{Node: "n", Cluster: "c"}}})
	if err != nil {
		t.Fatal(err)
	}
	field := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	tried := map[protoreflect.Name]bool{}
	for _, b := range [][]byte{good, lead} {
		var e fsmpb.Entry
		if err := proto.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		everyMessage(e.ProtoReflect(), func(m protoreflect.Message) {
			tried[m.Descriptor().Name()] = true
			m.SetUnknown(field)
			bad, err := proto.Marshal(&e)
			m.SetUnknown(nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decode(bad, nil); err == nil || !strings.Contains(err.Error(), "unknown fields in "+string(m.Descriptor().Name())) {
				t.Errorf("in %s: %v", m.Descriptor().Name(), err)
			}
		})
	}
	for _, want := range []protoreflect.Name{"Entry", "Command", "Lead", "Branch", "BranchVote", "BranchReceipt", "Reason", "Collect", "RaiseLevel"} {
		if !tried[want] {
			t.Errorf("%s was not tried", want)
		}
	}
}

func everyMessage(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				everyMessage(v.List().Get(i).Message(), visit)
			}
		default:
			everyMessage(v.Message(), visit)
		}
		return true
	})
}

// TestMalformedEntriesAreRefused reads bytes that Encode does not make.
func TestMalformedEntriesAreRefused(t *testing.T) {
	command := func(c *fsmpb.Command) *fsmpb.Entry {
		return &fsmpb.Entry{Version: 1, Epoch: 1, Commands: []*fsmpb.Command{c}}
	}
	enlist := func(b *fsmpb.Branch) *fsmpb.Entry {
		return command(&fsmpb.Command{Kind: &fsmpb.Command_Enlist{Enlist: &fsmpb.Enlist{Txid: someID[:], Branch: b}}})
	}
	decide := func(r *fsmpb.Reason) *fsmpb.Entry {
		return command(&fsmpb.Command{Kind: &fsmpb.Command_Decide{Decide: &fsmpb.Decide{Txid: someID[:], Decision: 2, Reason: r}}})
	}
	for name, c := range map[string]struct {
		entry *fsmpb.Entry
		want  string
	}{
		"no version":       {&fsmpb.Entry{Epoch: 1}, "no version"},
		"a newer version":  {&fsmpb.Entry{Version: uint32(Newest + 1), Epoch: 1}, fmt.Sprintf("too old for entry version %d: it reads versions up to %d", Newest+1, Newest)},
		"a version unused": {&fsmpb.Entry{Version: uint32(Newest), Epoch: 1}, "its commands need 1"},
		"no kind":          {command(&fsmpb.Command{}), "command 1: it has no kind"},
		"a short txid":     {command(&fsmpb.Command{Kind: &fsmpb.Command_Presume{Presume: &fsmpb.Presume{Txid: []byte{1}}}}), "1 bytes, want 16"},
		"enlist nothing":   {enlist(nil), "no branch"},
		"no digest":        {enlist(&fsmpb.Branch{Participant: "bank"}), "digest has 0 bytes"},
		"unknown receipt":  {enlist(&fsmpb.Branch{Participant: "bank", Receipt: 7}), "neither"},
		"a long detail":    {decide(&fsmpb.Reason{Code: 1, Detail: strings.Repeat("x", 513)}), "513 bytes"},
		"a reason of none": {decide(&fsmpb.Reason{}), "reason code 0"},
	} {
		b, err := proto.Marshal(c.entry)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(b, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := decode([]byte("no protobuf"), nil); err == nil {
		t.Error("what is no protobuf was read")
	}
}
