package main

import (
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// What is proven here: what a person or a script sees of the commands that talk
// to a cluster (text, JSON and exit codes), and what those commands send.

const someTxID = "01890a5d-ac96-774b-bcce-b302099a8057"

var (
	committed = &decreev1.Result{Txid: someTxID, Outcome: decreev1.Outcome_OUTCOME_COMMITTED, Delivered: true}
	aborted   = &decreev1.Result{
		Txid: someTxID, Outcome: decreev1.Outcome_OUTCOME_ABORTED, Delivered: true,
		Reason: &decreev1.AbortReason{
			Code: decreev1.AbortCode_ABORT_CODE_VOTE, Branch: 1, Participant: "bank-a", Detail: "alice has 10",
		},
	}
)

func TestOutcomes(t *testing.T) {
	submit := []string{"tx", "submit", "--branch", `bank-a={"a":1}`}
	tests := []struct {
		name string
		node *fakeNode
		args []string
		want ran // stderr by what is in it
	}{
		{
			"committed", &fakeNode{result: committed}, submit,
			ran{exitOK, "txid       " + someTxID + "\noutcome    committed\ndelivered  yes\n", ""},
		},
		{
			"committed, in JSON", &fakeNode{result: committed}, append(submit, "-o", "json"),
			ran{exitOK, `{"txid":"` + someTxID + `","outcome":"OUTCOME_COMMITTED","delivered":true,"damage":"RECEIPT_UNSPECIFIED"}` + "\n", ""},
		},
		{
			"committed, not delivered",
			&fakeNode{result: &decreev1.Result{Txid: someTxID, Outcome: decreev1.Outcome_OUTCOME_COMMITTED}}, submit,
			ran{exitOK, "txid       " + someTxID + "\noutcome    committed\ndelivered  not to every branch yet; the cluster goes on\n", ""},
		},
		{
			"aborted", &fakeNode{result: aborted}, submit,
			ran{exitAborted, "txid       " + someTxID + "\noutcome    aborted\ndelivered  yes\nreason     vote by \"bank-a\": alice has 10\n", ""},
		},
		{
			"abort was asked for", &fakeNode{result: aborted}, []string{"tx", "abort", someTxID},
			ran{exitOK, "txid       " + someTxID + "\noutcome    aborted\ndelivered  yes\nreason     vote by \"bank-a\": alice has 10\n", ""},
		},
		{
			"damaged",
			&fakeNode{result: &decreev1.Result{
				Txid: someTxID, Outcome: decreev1.Outcome_OUTCOME_COMMITTED, Delivered: true,
				Damage: decreev1.Receipt_RECEIPT_HEURISTIC_ABORT,
			}}, submit,
			ran{exitDamaged, "txid       " + someTxID + "\noutcome    committed\ndelivered  yes\ndamage     heuristic abort\n", ""},
		},
		{
			"still running", &fakeNode{result: &decreev1.Result{Txid: someTxID}}, []string{"tx", "inquire", someTxID},
			ran{exitUnknown, "txid       " + someTxID + "\noutcome    undecided\ndelivered  no\n", ""},
		},
		{
			"outcome unknown", &fakeNode{refusal: refuse(codes.Unknown, "OUTCOME_UNKNOWN", "leadership was lost")},
			append(submit, "--txid", someTxID, "--patience", "300ms"),
			ran{exitUnknown, "", "ask again: decree tx inquire " + someTxID},
		},
		{
			"no such transaction", &fakeNode{refusal: refuse(codes.NotFound, "NOT_FOUND", "no such transaction")},
			[]string{"tx", "show", someTxID},
			ran{exitNotFound, "", "decree: no such transaction (not found)"},
		},
		{
			"refused", &fakeNode{refusal: refuse(codes.FailedPrecondition, "SEALED", "it takes no more branches")},
			[]string{"tx", "enlist", someTxID, "--external", "db"},
			ran{exitFailed, "", "decree: it takes no more branches (sealed)"},
		},
		{
			"refused, in JSON", &fakeNode{refusal: refuse(codes.AlreadyExists, "TXID_REUSED", "other content")},
			append(submit, "-o", "json"),
			ran{exitFailed, "", `"reason":"TXID_REUSED","txid":"` + someTxID + `","exit":1}`},
		},
		{
			"nobody can take it", &fakeNode{refusal: refuse(codes.Unavailable, "NOT_LEADER", "no leader")},
			append(submit, "--patience", "300ms"),
			ran{exitUnavailable, "", "no leader"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, tt.node, "", tt.args...)
			if got.exit != tt.want.exit {
				t.Errorf("exit code %d, want %d; stderr: %s", got.exit, tt.want.exit, got.stderr)
			}
			if got.stdout != tt.want.stdout {
				t.Errorf("stdout:\n%s\nwant:\n%s", got.stdout, tt.want.stdout)
			}
			if !strings.Contains(got.stderr, tt.want.stderr) || tt.want.stderr == "" && got.stderr != "" {
				t.Errorf("stderr %q, want %q in it", got.stderr, tt.want.stderr)
			}
		})
	}
}

// TestUsage holds that what is wrong on a command line is told before anything is
// sent: there is no cluster here.
func TestUsage(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"nonsense"}, `unknown command "nonsense" for "decree"`},
		{[]string{"tx", "submti"}, "did you mean submit?"},
		{[]string{"tx", "show"}, "missing TXID"},
		{[]string{"tx", "submit", "--nonsense"}, "unknown flag"},
		{[]string{"tx", "submit", "--brnach", "x"}, "unknown flag --brnach; did you mean --branch?"},
		{[]string{"tx", "submit", "-z"}, "unknown flag -z"},
		{[]string{"tx", "submit", "--txid"}, "--txid: missing its value"},
		{[]string{"tx", "list", "--limit", "many"}, `--limit "many": want a whole number`},
		{[]string{"tx", "list", "--damaged=maybe"}, `--damaged "maybe": want true or false`},
		{[]string{"tx", "show", "a", "b"}, `too many arguments, from "b" on`},
		{[]string{"tx", "list", "a"}, `too many arguments, from "a" on`},
		{[]string{"tx", "show"}, "decree tx show TXID"},
		{[]string{"tx", "list", "--color", "pink"}, `--color "pink": want auto, always or never`},
		{[]string{"tx", "submit", "-o", "xml"}, `--output "xml": want table or json`},
		{[]string{"tx", "submit", "--branch", "bank-a"}, `--branch "bank-a": want participant=content`},
		{[]string{"tx", "submit", "--branch", "bank-a={"}, "--branch bank-a: not JSON: it ends too early"},
		{[]string{"tx", "submit", "--branch", "bank-a={} {}"}, "something follows"},
		{[]string{"tx", "submit", "--branch", "bank-a=@nowhere.json"}, "nowhere.json"},
		{[]string{"tx", "submit", "--branch", "a=x", "--branch", "b=y"}, "2 problems"},
		{[]string{"tx", "submit", "--branch", "a={}", "-f", "x"}, "none of the others can be"},
		{[]string{"tx", "submit", "--wait", "forever"}, "want delivery or decision"},
		{[]string{"tx", "submit", "--timeout", "soon"}, `--timeout "soon": want a duration`},
		{[]string{"tx", "submit", "--patience", "-1s", "--branch", "a={}"}, "--patience -1s"},
		{[]string{"tx", "submit", "-f", "-"}, "-: not a transaction: it ends too early"},
		{[]string{"tx", "list", "--endpoints", "nowhere"}, `endpoint "nowhere": want host:port`},
		{[]string{"tx", "list", "--state", "lost"}, `--state "lost": want one of active, preparing`},
		{[]string{"tx", "list", "--limit", "0"}, "--limit 0"},
		{[]string{"tx", "list", "--since", "yesterday"}, `--since "yesterday": want a time back`},
		{[]string{"tx", "list", "--since", "-5m"}, "lies in the future"},
		{[]string{"tx", "list", "--since", "5m", "--before", "10m"}, "nothing can be found"},
		{[]string{"tx", "list", "--unfinished", "--state", "aborted"}, "none of the others can be"},
		{[]string{"tx", "enlist", someTxID}, "nothing to enlist"},
		{[]string{"tx", "commit", someTxID, "--vote", "1=maybe"}, `--vote "1=maybe": want branch=vote`},
		{[]string{"tx", "commit", someTxID, "--vote", "0=commit"}, `--vote "0=commit": want branch=vote`},
		{[]string{"participant", "put", "x"}, "at least one of the flags"},
		{[]string{"participant", "put", "x", "--driver", "sim", "--config", "[]"}, "--config: want a JSON object"},
		{[]string{"participant", "put", "x", "--driver", "postgres", "--dsn", "postgres://bob:hunter2@db/x"}, "not the DSN itself"},
		{[]string{"participant", "put", "x", "--driver", "postgres", "--dsn", "env:X", "--config", `{"dsn":"env:Y"}`}, `--config has "dsn", and a flag too`},
		{[]string{"participant", "put", "x", "--driver", "postgres", "--dsn", "env:X", "--catalogue", "[]"}, "--catalogue: want a JSON object"},
		{[]string{"participant", "put", "x", "--url", "https://a", "--target", "a:1"}, "none of the others can be"},
		{[]string{"cluster", "status", "--watch", "--interval", "1ms"}, "--interval 1ms: must be at least 100ms"},
		{[]string{"cluster", "status", "--watch", "-q"}, "none of the others can be"},
		{[]string{"cluster", "add", "n4"}, "missing RAFT-ADDRESS"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			got := run(t, nil, "", tt.args...)
			if got.exit != exitUsage || !strings.Contains(got.stderr, tt.want) {
				t.Errorf("exit %d, want %d; stderr %q, want %q in it", got.exit, exitUsage, got.stderr, tt.want)
			}
			if got.stdout != "" {
				t.Errorf("stdout says %q", got.stdout)
			}
		})
	}
}

// TestSameTransactionEitherWay holds that a branch on the command line, one in a
// file, and one in a transaction file reach the cluster as the same bytes, the
// ones that the HTTP API makes: sorted keys, numbers as written.
func TestSameTransactionEitherWay(t *testing.T) {
	const messy = `{ "b": 12345678901234567890, "a": "<x>" }`
	const want = `{"a":"<x>","b":12345678901234567890}`
	dir := t.TempDir()
	branch, whole := filepath.Join(dir, "branch.json"), filepath.Join(dir, "tx.json")
	mustWrite(t, branch, messy)
	mustWrite(t, whole, `{"branches":[{"participant":"p","json":`+messy+`}],"timeout":"5s","wait":"WAIT_DECISION"}`)

	tests := []struct {
		name, stdin string
		args        []string
	}{
		{"inline", "", []string{"--branch", "p=" + messy, "--timeout", "5s", "--wait", "decision"}},
		{"from a file", "", []string{"--branch", "p=@" + branch, "--timeout", "5s", "--wait", "decision"}},
		{"from stdin", messy, []string{"--branch", "p=@-", "--timeout", "5s", "--wait", "decision"}},
		{"as bytes", "", []string{"--branch-bytes", "p=" + want, "--timeout", "5s", "--wait", "decision"}},
		{"a transaction file", "", []string{"-f", whole}},
		{"a flag wins over the file", "", []string{"-f", whole, "--timeout", "5s", "--wait", "decision", "--txid", someTxID}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node := &fakeNode{result: committed}
			if got := run(t, node, tt.stdin, append([]string{"tx", "submit"}, tt.args...)...); got.exit != exitOK {
				t.Fatalf("exit %d: %s", got.exit, got.stderr)
			}
			sent := asked[*decreev1.SubmitRequest](t, node)
			if got := string(sent.GetBranches()[0].GetPayload()); got != want {
				t.Errorf("sent %s, want %s", got, want)
			}
			if sent.GetTimeout().AsDuration().String() != "5s" || sent.GetWait() != decreev1.Wait_WAIT_DECISION || sent.GetTxid() == "" {
				t.Errorf("sent %v", sent)
			}
		})
	}
}

func TestTransactionFileMistakes(t *testing.T) {
	for content, want := range map[string]string{
		`{"branchs":[]}`:   `unknown field "branchs"`,
		`{"timeout":"5"}`:  `timeout "5": want a duration`,
		`{"wait":"maybe"}`: `wait "maybe": want delivery or decision`,
		`{} {}`:            "something follows",
		`{"branches":[{"participant":"p","json":{},"payload":"AA=="}]}`: "branches[0]: json and payload exclude each other",
	} {
		got := run(t, nil, content, "tx", "submit", "-f", "-")
		if got.exit != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: exit %d, stderr %q; want %q in it", content, got.exit, got.stderr, want)
		}
	}
}

// TestTextFromOutsideIsEscaped shows a reason that tries to clear the terminal
// and to fake a line.
func TestTextFromOutsideIsEscaped(t *testing.T) {
	evil := &decreev1.Result{
		Txid: someTxID, Outcome: decreev1.Outcome_OUTCOME_ABORTED, Delivered: true,
		Reason: &decreev1.AbortReason{Code: decreev1.AbortCode_ABORT_CODE_VOTE, Detail: "no\x1b[2J\noutcome    committed\u202e ünïcode is fine"},
	}
	got := run(t, &fakeNode{result: evil}, "", "tx", "inquire", someTxID)
	want := `no\x1b[2J\noutcome    committed\u202e ünïcode is fine`
	if !strings.Contains(got.stdout, want) || strings.Count(got.stdout, "\n") != 4 {
		t.Errorf("stdout %q, want %q in its fourth line", got.stdout, want)
	}
	refused := run(t, &fakeNode{refusal: refuse(codes.InvalidArgument, "INVALID_REQUEST", "bad\r\x00name")}, "", "tx", "inquire", someTxID)
	if !strings.Contains(refused.stderr, `bad\r\x00name`) {
		t.Errorf("stderr %q", refused.stderr)
	}
}

func someTransaction() *decreev1.Transaction {
	stamp := func(index, seconds int64) *decreev1.Stamp {
		return &decreev1.Stamp{Index: uint64(index), Epoch: 3, Time: &timestamppb.Timestamp{Seconds: 1_700_000_000 + seconds}}
	}
	return &decreev1.Transaction{
		Txid: someTxID, State: decreev1.State_STATE_COMMITTING, Timeout: durationpb.New(15e9),
		Staged: stamp(10, 0), Decided: stamp(11, 1),
		Branches: []*decreev1.Branch{
			{Number: 1, Participant: "bank-a", Vote: decreev1.Vote_VOTE_COMMIT, Receipt: decreev1.Receipt_RECEIPT_DONE},
			{Number: 2, Participant: "courier", Vote: decreev1.Vote_VOTE_READ_ONLY, Attempts: 7, LastError: "down\n"},
		},
	}
}

func TestShow(t *testing.T) {
	t.Setenv("TZ", "UTC") // of no effect once time is in use, hence the loose match
	got := run(t, &fakeNode{transaction: someTransaction()}, "", "tx", "show", someTxID)
	for _, want := range []string{
		"state    committing (committed, delivery pending)\n",
		"kind     one-shot\n", "timeout  15s\n", "(entry 11, epoch 3)\n",
		"1       bank-a       commit     done            -  -     -\n",
		"2       courier      read-only  -               7  -     down\\n\n",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is not in:\n%s", want, got.stdout)
		}
	}
}

func TestListAndWatch(t *testing.T) {
	one, two := someTransaction(), someTransaction()
	two.State = decreev1.State_STATE_ABORTED
	two.Reason = aborted.GetReason()
	all := []*decreev1.Transaction{one, two}

	node := &fakeNode{list: all}
	got := run(t, node, "", "tx", "list", "--state", "committing,aborted", "--participant", "bank-a", "--limit", "1")
	if got.exit != exitOK || !strings.Contains(got.stdout, "committing  bank-a,courier") || !strings.Contains(got.stdout, "... and more") {
		t.Errorf("exit %d, stdout:\n%s", got.exit, got.stdout)
	}
	sent := asked[*decreev1.ListRequest](t, node)
	if len(sent.GetStates()) != 2 || sent.GetStates()[1] != decreev1.State_STATE_ABORTED || sent.GetParticipant() != "bank-a" {
		t.Errorf("asked for %v", sent)
	}

	var page struct {
		Transactions []struct{ Txid, State string }
	}
	listed := run(t, &fakeNode{list: all}, "", "tx", "list", "-o", "json")
	if err := json.Unmarshal([]byte(listed.stdout), &page); err != nil || len(page.Transactions) != 2 || page.Transactions[1].State != "STATE_ABORTED" {
		t.Errorf("JSON %s (%v)", listed.stdout, err)
	}

	watched := run(t, &fakeNode{events: all}, "", "tx", "watch", someTxID)
	lines := strings.Split(strings.TrimSpace(watched.stdout), "\n")
	if watched.exit != exitOK || len(lines) != 2 || !strings.HasSuffix(lines[1], "aborted     vote by bank-a: alice has 10") {
		t.Errorf("exit %d, stdout:\n%s", watched.exit, watched.stdout)
	}
	inJSON := run(t, &fakeNode{events: all}, "", "tx", "watch", "-o", "json")
	if strings.Count(inJSON.stdout, "\n") != 2 {
		t.Errorf("want an object a line, got:\n%s", inJSON.stdout)
	}
}

// TestWatchGoesOn breaks every stream off: what was missed is told once, and after the
// user's patience the watch ends.
func TestWatchGoesOn(t *testing.T) {
	node := &fakeNode{events: []*decreev1.Transaction{someTransaction()}, refusal: refuse(codes.Unavailable, "SHUTTING_DOWN", "the node stops")}
	got := run(t, node, "", "tx", "watch", "--patience", "600ms")
	if got.exit != exitUnavailable || strings.Count(got.stdout, someTxID) < 2 ||
		strings.Count(got.stderr, "goes on; changes in between were missed: the node stops") != 1 {
		t.Errorf("%+v", got)
	}
	one := run(t, &fakeNode{refusal: refuse(codes.NotFound, "NOT_FOUND", "no such transaction")}, "", "tx", "watch")
	if one.exit != exitNotFound {
		t.Errorf("refused: %+v", one)
	}
}

func TestInteractive(t *testing.T) {
	node := &fakeNode{}
	begun := run(t, node, "", "tx", "begin", "-q", "--timeout", "2m")
	txid := strings.TrimSpace(begun.stdout)
	if len(txid) != len(someTxID) || asked[*decreev1.BeginRequest](t, node).GetTxid() != txid {
		t.Errorf("begin -q printed %q", begun.stdout)
	}
	node = &fakeNode{}
	if got := run(t, node, "", "tx", "enlist", txid, "--external", "db"); got.stdout != "branch 2 enlisted (cluster c1, epoch 3)\n" {
		t.Errorf("enlist: %+v", got)
	}
	if sent := asked[*decreev1.EnlistRequest](t, node); !sent.GetExternal() || sent.GetBranch().GetParticipant() != "db" {
		t.Errorf("enlisted %v", sent)
	}
	node = &fakeNode{result: committed}
	if got := run(t, node, "", "tx", "commit", txid, "--vote", "2=read-only"); got.exit != exitOK {
		t.Errorf("commit: %+v", got)
	}
	if votes := asked[*decreev1.CommitRequest](t, node).GetVotes(); len(votes) != 1 || votes[0].GetVote() != decreev1.Vote_VOTE_READ_ONLY {
		t.Errorf("votes %v", votes)
	}
}

func TestParticipants(t *testing.T) {
	node := &fakeNode{}
	got := run(t, node, "", "participant", "put", "bank-a", "--target", "127.0.0.1:7401")
	if got.stdout != "bank-a is registered (driver grpc, revision 1)\n" {
		t.Errorf("put: %+v", got)
	}
	put := asked[*decreev1.PutRequest](t, node).GetParticipant()
	if put.GetDriver() != "grpc" || put.GetConfig().GetFields()["target"].GetStringValue() != "127.0.0.1:7401" {
		t.Errorf("put %v", put)
	}

	got = run(t, node, "", "participant", "put", "orders", "--driver", "postgres", "--dsn", "env:ORDERS_DSN", "--raw-sql",
		"--catalogue", `{"debit":{"sql":"UPDATE ..."}}`, "--config", `{"max_connections":8}`)
	put = asked[*decreev1.PutRequest](t, node).GetParticipant()
	want := map[string]any{
		"dsn": "env:ORDERS_DSN", "raw_sql": true, "max_connections": 8.0,
		"catalogue": map[string]any{"debit": map[string]any{"sql": "UPDATE ..."}},
	}
	if config := put.GetConfig().AsMap(); got.exit != exitOK || put.GetDriver() != "postgres" || !reflect.DeepEqual(config, want) {
		t.Errorf("put of a database: %+v\n%v, want %v", got, config, want)
	}
	run(t, node, "", "participant", "put", "stock", "--url", "https://stock.example.com")
	if put := asked[*decreev1.PutRequest](t, node).GetParticipant(); put.GetDriver() != "http" ||
		put.GetConfig().GetFields()["url"].GetStringValue() != "https://stock.example.com" {
		t.Errorf("put of an HTTP service: %v", put)
	}

	shown := run(t, node, "", "participant", "show", "orders").stdout
	for _, line := range []string{"resource     postgresql:7/orders\nconfig\n{\n", "\n  \"dsn\": \"env:ORDERS_DSN\"\n", "a < b" + strings.Repeat("x", 100)} {
		if !strings.Contains(shown, line) {
			t.Errorf("show lacks %q:\n%s", line, shown)
		}
	}
	listed := run(t, node, "", "participant", "list").stdout
	if !strings.Contains(listed, "postgresql:7/orders") || !strings.Contains(listed, "…\n") || strings.Contains(listed, strings.Repeat("x", 60)) {
		t.Errorf("list:\n%s", listed)
	}

	down := &fakeNode{check: &decreev1.CheckResponse{Error: "connection refused"}}
	if got := run(t, down, "", "participant", "check", "bank-a"); got.exit != exitFailed || got.stderr != "" ||
		!strings.Contains(got.stdout, "reachable    no\nerror        connection refused\n") {
		t.Errorf("check of one that is down: %+v", got)
	}
	up := &fakeNode{check: &decreev1.CheckResponse{Reachable: true, Recovers: true, Prepared: 2}}
	if got := run(t, up, "", "participant", "check", "bank-a", "-o", "json"); got.exit != exitOK ||
		!strings.Contains(got.stdout, `"prepared":2`) {
		t.Errorf("check: %+v", got)
	}
	missing := &fakeNode{refusal: refuse(codes.NotFound, "UNKNOWN_PARTICIPANT", "unknown participant \"x\"")}
	if got := run(t, missing, "", "participant", "delete", "x"); got.exit != exitNotFound {
		t.Errorf("delete of one that is not there: %+v", got)
	}
}

// TestClusterStatus asks two nodes, of which one is down.
func TestClusterStatus(t *testing.T) {
	node := &fakeNode{status: &decreev1.StatusResponse{
		Cluster: "c1", Node: "n1", Leader: "n1", Epoch: 4, AppliedIndex: 20, Entries: 9, Version: "v1",
		Nodes: []*decreev1.Node{
			{Id: "n1", RaftAddress: "127.0.0.1:7301", Voter: true, Leader: true},
			{Id: "n2", RaftAddress: "127.0.0.1:7302", Voter: true},
		},
	}}
	down := unusedAddress(t)
	both := "--endpoints=" + node.serve(t) + "," + down

	got := run(t, nil, "", "cluster", "status", both)
	columns := strings.Join(strings.Fields(got.stdout), " ") // whose widths follow the ports
	for _, want := range []string{"leader n1", "n1 leader 127.0.0.1:7301", "n2 follower 127.0.0.1:7302", down + " - - - - cannot connect"} {
		if got.exit != exitOK || !strings.Contains(columns, want) {
			t.Errorf("exit %d, %q is not in:\n%s", got.exit, want, got.stdout)
		}
	}
	if got := run(t, nil, "", "cluster", "status", "-q", both); got.stdout != "n1\n" {
		t.Errorf("status -q: %+v", got)
	}
	var report struct {
		Leader string
		Nodes  []struct{ Endpoint, Error string }
	}
	inJSON := run(t, nil, "", "cluster", "status", "-o", "json", both)
	if err := json.Unmarshal([]byte(inJSON.stdout), &report); err != nil || report.Leader != "n1" || report.Nodes[1].Error == "" {
		t.Errorf("JSON %s (%v)", inJSON.stdout, err)
	}
	if got := run(t, nil, "", "cluster", "status", "--endpoints", down); got.exit != exitUnavailable || !strings.Contains(got.stderr, "is a cluster running") {
		t.Errorf("status of nobody: %+v", got)
	}
	leaderless := &fakeNode{status: &decreev1.StatusResponse{Node: "n1"}}
	if got := run(t, leaderless, "", "cluster", "status"); got.exit != exitUnavailable || !strings.Contains(got.stdout, "leader        none\n") {
		t.Errorf("status without a leader: %+v", got)
	}
}

// TestEveryViolationOnce sends something that the server finds several mistakes
// in; its message names the first.
func TestEveryViolationOnce(t *testing.T) {
	st, err := status.New(codes.InvalidArgument, "branches: at least one").WithDetails(
		&errdetails.ErrorInfo{Domain: "decree", Reason: "EMPTY_TRANSACTION"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "branches", Description: "at least one"}, {Field: "timeout", Description: "is negative"},
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	got := run(t, &fakeNode{refusal: st.Err()}, "", "tx", "submit")
	if want := "decree: 2 problems:\n  branches: at least one\n  timeout: is negative\n"; got.stderr != want || got.exit != exitFailed {
		t.Errorf("exit %d, stderr %q, want %q", got.exit, got.stderr, want)
	}
}

// TestFullDisk holds that output that could not be written is not success.
func TestFullDisk(t *testing.T) {
	var stderr strings.Builder
	exit := Run(t.Context(), []string{"version"}, nil, fullDisk{}, &stderr)
	if exit != exitFailed || !strings.Contains(stderr.String(), errFull.Error()) {
		t.Errorf("exit %d, stderr %q", exit, stderr.String())
	}
}

var errFull = errors.New("no space left on device")

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestHelpAndCompletion(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {}, {"tx"}, {"tx", "submit", "--help"}, {"completion", "bash"}} {
		if got := run(t, nil, "", args...); got.exit != exitOK || got.stdout == "" || got.stderr != "" {
			t.Errorf("%v: exit %d, stderr %q", args, got.exit, got.stderr)
		}
	}
	if got := run(t, nil, "", "tx", "submit", "--help"); !strings.Contains(got.stdout, "4  the outcome is not known") {
		t.Errorf("the exit codes are not in the help of submit:\n%s", got.stdout)
	}
}

// unusedAddress is a loopback address on which nobody listens.
func unusedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
