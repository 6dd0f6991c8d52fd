// These tests prove that curl is a full client: plain JSON over real HTTP, on any
// node, with every bad input of the API refused by a clear error of the 400 class
// that carries code, reason and txid, before anything is run.
package transport

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

// curl sends a request and reads a JSON answer.
func (n *testNode) curl(t *testing.T, method, path, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, n.web+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl -d says, whatever it sends
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: content type %q: %s", method, path, got, raw)
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, raw)
	}
	return res.StatusCode, answer
}

const twoBranches = `{"branches":[{"participant":"bank-a","json":{"b":"<1>","a":[true,null,2]}},{"participant":"bank-b","payload":"Y3JlZGl0"}]}`

func TestSubmitOverHTTP(t *testing.T) {
	w := &world{}
	leader, follower := w.leader(t, "n1"), w.serve(t, "n2", nil)
	follower.node.believe("n1")
	code, answer := follower.curl(t, "POST", "/v1/transactions", twoBranches)
	result, _ := answer["result"].(map[string]any)
	if code != 200 || result["outcome"] != "OUTCOME_COMMITTED" || result["delivered"] != true || result["txid"] == "" {
		t.Fatal(code, answer)
	}
	ran := leader.coordinator.submits[0]
	if got := string(ran.Branches[0].Payload); got != `{"a":[true,null,2],"b":"<1>"}` {
		t.Errorf("JSON arrived as %s", got)
	}
	if got := string(ran.Branches[1].Payload); got != "credit" {
		t.Errorf("bytes arrived as %q", got)
	}
	if result["txid"] != ran.ID.String() {
		t.Error("another txid")
	}
}

// A script must find what is false or zero.
func TestZeroFieldsAreWritten(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	n.coordinator.submit = func(_ context.Context, s coordinator.Submission) (coordinator.Result, error) {
		return coordinator.Result{Transaction: &txn.Transaction{ID: s.ID, State: txn.Committing}}, nil
	}
	_, answer := n.curl(t, "POST", "/v1/transactions", twoBranches)
	result, _ := answer["result"].(map[string]any)
	if delivered, ok := result["delivered"]; !ok || delivered != false {
		t.Error(answer)
	}
	if _, ok := result["reason"]; ok {
		t.Error("a reason, although it committed")
	}
}

func TestInteractiveOverHTTP(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	for _, step := range []struct{ path, body, want string }{
		{"/v1/transactions:begin", `{"timeout":"30s"}`, "txid"},
		{"/v1/transactions/" + someTxID + ":enlist", `{"branch":{"participant":"bank-a"},"external":true}`, "branch"},
		{"/v1/transactions/" + someTxID + ":commit", `{"votes":[{"branch":1,"vote":"VOTE_COMMIT"}],"wait":"WAIT_DECISION"}`, "result"},
		{"/v1/transactions/" + someTxID + ":abort", "", "result"},
		{"/v1/transactions/" + someTxID + ":inquire", "{}", "result"},
	} {
		if code, answer := n.curl(t, "POST", step.path, step.body); code != 200 || answer[step.want] == nil {
			t.Errorf("%s: %d %v", step.path, code, answer)
		}
	}
}

func TestParticipantsAndClusterOverHTTP(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	n.log.register("bank-a")
	for _, step := range []struct{ method, path, body, want string }{
		{"PUT", "/v1/participants/bank-b", `{"driver":"fake","config":{"path":"x"}}`, `map[participant:map[config:map[path:x] driver:fake identity: name:bank-b revision:9 unfinished:0]]`},
		{"GET", "/v1/participants/bank-a", "", `map[participant:map[config:map[] driver:fake identity: name:bank-a revision:1 unfinished:0]]`},
		{"GET", "/v1/participants", "", `map[participants:[map[config:map[] driver:fake identity: name:bank-a revision:1 unfinished:0]]]`},
		{"POST", "/v1/participants/bank-a:check", "", `map[error: prepared:2 reachable:true recovers:true]`},
		{"DELETE", "/v1/participants/bank-a", "", `map[]`},
		{"POST", "/v1/cluster/nodes", `{"id":"n4","raft_address":"127.0.0.1:1"}`, `map[]`},
		{"DELETE", "/v1/cluster/nodes/n4", "", `map[]`},
		{"POST", "/v1/cluster:transferLeadership", "", `map[]`},
	} {
		code, answer := n.curl(t, step.method, step.path, step.body)
		if got := fmt.Sprint(answer); code != 200 || got != step.want {
			t.Errorf("%s %s: %d %s\n want %s", step.method, step.path, code, got, step.want)
		}
	}
	_, st := n.curl(t, "GET", "/v1/cluster", "")
	for field, want := range map[string]any{"node": "n1", "leader": "n1", "epoch": "1", "commit_index": "41", "last_index": "42", "applied_index": "2", "cluster": "test", "version": "v0.0.0-test", "entries": "2",
		"disk_free": "3221225472", "disk_reserve": "67108864", "disk_low": true} {
		if st[field] != want {
			t.Errorf("status: %s is %v, want %v", field, st[field], want)
		}
	}
}

// Every bad input of the API: its HTTP status, code and reason, and nothing runs.
func TestBadInput(t *testing.T) {
	n := (&world{}).serve(t, "n1", func(c *Config) { c.MaxRequestBytes = 64 << 10 })
	n.coordinator.lead(true)
	n.node.believe("n1")
	many := strings.Repeat(`{"participant":"p"},`, txn.MaxBranches+1)
	tx := "/v1/transactions"
	for _, bad := range []struct {
		what, method, path, body string
		status                   int
		reason                   string
	}{
		{"no branches", "POST", tx, `{}`, 400, reasonEmpty},
		{"empty body", "POST", tx, ``, 400, reasonEmpty},
		{"duplicate branch", "POST", tx, `{"branches":[{"participant":"a"},{"participant":"b"},{"participant":"a"}]}`, 400, reasonDuplicateBranch},
		{"too many branches", "POST", tx, `{"branches":[` + strings.TrimSuffix(many, ",") + `]}`, 400, reasonTooManyBranches},
		{"nameless participant", "POST", tx, `{"branches":[{}]}`, 400, reasonInvalidRequest},
		{"malformed txid", "POST", tx, `{"txid":"42","branches":[{"participant":"a"}]}`, 400, reasonMalformedTxID},
		{"UUIDv4", "POST", tx, `{"txid":"9c5b94b1-35ad-49bb-b118-8e8fc24abf80","branches":[{"participant":"a"}]}`, 400, reasonMalformedTxID},
		{"SQL in a txid", "GET", tx + `/x'%3BDROP%20TABLE`, ``, 400, reasonMalformedTxID},
		{"zero timeout", "POST", tx, `{"timeout":"0s","branches":[{"participant":"a"}]}`, 400, reasonInvalidTimeout},
		{"negative timeout", "POST", tx, `{"timeout":"-1s","branches":[{"participant":"a"}]}`, 400, reasonInvalidTimeout},
		{"absurd timeout", "POST", tx, `{"timeout":"3601s","branches":[{"participant":"a"}]}`, 400, reasonInvalidTimeout},
		{"astronomical timeout", "POST", tx, `{"timeout":"315576000000s","branches":[{"participant":"a"}]}`, 400, reasonInvalidTimeout},
		{"timeout that is none", "POST", tx, `{"timeout":"soon","branches":[{"participant":"a"}]}`, 400, reasonInvalidRequest},
		{"unknown wait", "POST", tx, `{"wait":9,"branches":[{"participant":"a"}]}`, 400, reasonInvalidRequest},
		{"unknown field", "POST", tx, `{"branchs":[]}`, 400, reasonInvalidRequest},
		{"not JSON", "POST", tx, `{"branches":`, 400, reasonInvalidRequest},
		{"two JSON values", "POST", tx, twoBranches + `{}`, 400, reasonInvalidRequest},
		{"JSON of another type", "POST", tx, `[]`, 400, reasonInvalidRequest},
		{"a number that would be rounded", "POST", tx, `{"branches":[{"participant":"a","json":{"cents":9007199254740993}}]}`, 400, reasonInvalidRequest},
		{"JSON too deep", "POST", tx, `{"branches":[{"participant":"a","json":` + deep(1001) + `}]}`, 400, reasonInvalidRequest},
		{"oversized body", "POST", tx, `{"txid":"` + strings.Repeat("x", 64<<10) + `"}`, 413, reasonTooLarge},
		{"begin: absurd timeout", "POST", tx + ":begin", `{"timeout":"86401s"}`, 400, reasonInvalidTimeout},
		{"enlist: no branch", "POST", tx + "/" + someTxID + ":enlist", `{}`, 400, reasonInvalidRequest},
		{"enlist: external with content", "POST", tx + "/" + someTxID + ":enlist", `{"branch":{"participant":"a","json":1},"external":true}`, 400, reasonInvalidRequest},
		{"commit: vote of branch 0", "POST", tx + "/" + someTxID + ":commit", `{"votes":[{"vote":"VOTE_COMMIT"}]}`, 400, reasonNoSuchBranch},
		{"commit: no vote", "POST", tx + "/" + someTxID + ":commit", `{"votes":[{"branch":1}]}`, 400, reasonInvalidRequest},
		{"commit: two votes", "POST", tx + "/" + someTxID + ":commit", `{"votes":[{"branch":1,"vote":1},{"branch":1,"vote":3}]}`, 400, reasonInvalidRequest},
		{"txid twice, differently", "POST", tx + "/" + someTxID + ":abort", `{"txid":"42"}`, 200, ""}, // the path's wins
		{"unknown parameter", "GET", tx + "?state=STATE_ACTIVE", ``, 400, reasonInvalidRequest},
		{"unknown state", "GET", tx + "?states=HAPPY", ``, 400, reasonInvalidRequest},
		{"unspecified state", "GET", tx + "?states=0", ``, 400, reasonInvalidRequest},
		{"a path that is not UTF-8", "GET", tx + "/%ff", ``, 400, reasonInvalidRequest},
		{"a parameter that is not UTF-8", "GET", tx + "?participant=%ff", ``, 400, reasonInvalidRequest},
		{"a parameter's name that is not UTF-8", "GET", tx + "?%ff=1", ``, 400, reasonInvalidRequest},
		{"made up page token", "GET", tx + "?page_token=x", ``, 400, reasonInvalidRequest},
		{"unknown transaction", "GET", tx + "/" + txid(t).String(), ``, 404, reasonNotFound},
		{"bad participant name", "PUT", "/v1/participants/9lives", `{"driver":"fake"}`, 400, reasonInvalidRequest},
		{"unknown driver", "PUT", "/v1/participants/a", `{"driver":"oracle"}`, 400, reasonUnknownDriver},
		{"bad driver configuration", "PUT", "/v1/participants/a", `{"driver":"fake","config":{"wrong":true}}`, 400, reasonInvalidRequest},
		{"unknown participant", "GET", "/v1/participants/nobody", ``, 404, reasonUnknownParticipant},
		{"no such path", "GET", "/v2/transactions", ``, 404, "NO_SUCH_METHOD"},
		{"wrong method", "PATCH", tx, `{}`, 405, "NO_SUCH_METHOD"},
	} {
		t.Run(bad.what, func(t *testing.T) {
			status, answer := n.curl(t, bad.method, bad.path, bad.body)
			if bad.reason == "" {
				if status != bad.status {
					t.Errorf("got %d %v", status, answer)
				}
				return
			}
			if status != bad.status || answer["reason"] != bad.reason {
				t.Errorf("got %d %v, want %d %s", status, answer, bad.status, bad.reason)
			}
			if answer["message"] == "" || answer["code"] == "" {
				t.Errorf("no explanation: %v", answer)
			}
		})
	}
	if ids := n.coordinator.ids(); len(ids) != 0 {
		t.Errorf("ran %v", ids)
	}
}

func deep(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }

// JSON may be nested as deep as the bound says, and what looks like nesting inside a
// string counts for nothing.
func TestNestingUpToItsBound(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	for _, content := range []string{deep(maxNesting - 3), `"` + strings.Repeat(`[\"{`, 2000) + `"`} { // the request itself nests three
		body := `{"branches":[{"participant":"bank-a","json":` + content + `}]}`
		if code, answer := n.curl(t, "POST", "/v1/transactions", body); code != 200 {
			t.Errorf("got %d %v", code, answer)
		}
	}
	if code, answer := n.curl(t, "POST", "/v1/transactions", `{"branches":[{"participant":"bank-a","json":`+deep(maxNesting-2)+`}]}`); code != 400 {
		t.Errorf("past the bound: %d %v", code, answer)
	}
}

// What only the leader's state can refuse keeps its class in HTTP, with the txid.
func TestRefusalsOfTheLeader(t *testing.T) {
	w := &world{}
	leader, follower := w.leader(t, "n1"), w.serve(t, "n2", nil)
	follower.node.believe("n1")
	for _, row := range rows() {
		if f, _ := judge(row.err); f != answered && row.reason != reasonBusy {
			continue
		}
		leader.coordinator.mu.Lock()
		leader.coordinator.submit = func(context.Context, coordinator.Submission) (coordinator.Result, error) {
			return coordinator.Result{}, fmt.Errorf("refused: %w", row.err)
		}
		leader.coordinator.mu.Unlock()
		status, answer := follower.curl(t, "POST", "/v1/transactions", `{"txid":"`+someTxID+`",`+twoBranches[1:])
		if answer["reason"] != row.reason || answer["txid"] != someTxID || answer["code"] != codeName(row.code) {
			t.Errorf("%v: got %v", row.err, answer)
		}
		if status < 400 || status > 499 {
			t.Errorf("%s: HTTP %d", row.reason, status)
		}
	}
}

func TestAllViolationsAreToldAtOnce(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	_, answer := n.curl(t, "POST", "/v1/transactions", `{"txid":"x","timeout":"-1s","wait":7}`)
	if list, _ := answer["violations"].([]any); len(list) != 4 {
		t.Errorf("got %v", answer)
	}
}

func TestGetAndListOverHTTP(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	n.log.register("bank-a", "bank-b")
	var ids []string
	for range 3 {
		id := txid(t)
		n.log.apply(txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank-a", []byte("x")), txn.NewBranch("bank-b", nil)}, Timeout: 1e9})
		ids = append(ids, id.String())
	}
	n.coordinator.deliveries = []coordinator.Delivery{{Branch: 2, Vote: txn.VoteCommit, Attempts: 4, LastError: "no route"}}
	_, answer := n.curl(t, "GET", "/v1/transactions/"+ids[0], "")
	tx, _ := answer["transaction"].(map[string]any)
	branch, _ := tx["branches"].([]any)[1].(map[string]any)
	if tx["state"] != "STATE_PREPARING" || branch["last_error"] != "no route" || branch["attempts"] != 4.0 || branch["vote"] != "VOTE_COMMIT" {
		t.Error(answer)
	}

	n.coordinator.timelines = []coordinator.Timeline{{Epoch: 3, Begun: 1e9 + 5e6, Branches: []coordinator.BranchTimeline{
		{Branch: 1, LastError: "no\xffroute", Failed: []coordinator.Try{{Sent: 2e9, Failed: 3e9}}},
	}}}
	_, answer = n.curl(t, "GET", "/v1/transactions/"+ids[0]+"/timeline", "")
	recordings, _ := answer["recordings"].([]any)
	recording, _ := recordings[0].(map[string]any)
	branch, _ = recording["branches"].([]any)[0].(map[string]any)
	failed, _ := branch["failed"].([]any)[0].(map[string]any)
	if recording["begun"] != "1970-01-01T00:00:01.005Z" || branch["last_error"] != "no\uFFFDroute" || failed["failed"] != "1970-01-01T00:00:03Z" {
		t.Error(answer)
	}

	_, answer = n.curl(t, "GET", "/v1/transactions?page_size=2&states=STATE_PREPARING&participant=bank-b", "")
	page, _ := answer["transactions"].([]any)
	token, _ := answer["next_page_token"].(string)
	if len(page) != 2 || token == "" || page[0].(map[string]any)["txid"] != ids[2] {
		t.Fatal(answer)
	}
	_, answer = n.curl(t, "GET", "/v1/transactions?pageSize=2&page_token="+token, "")
	if page, _ = answer["transactions"].([]any); len(page) != 1 || page[0].(map[string]any)["txid"] != ids[0] {
		t.Error(answer)
	}
}

func TestWatchOverHTTP(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	n.log.register("bank-a")
	id := txid(t)
	n.log.apply(txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank-a", nil)}, Timeout: 1e9})
	req, _ := http.NewRequestWithContext(t.Context(), "GET", n.web+"/v1/transactions:watch?txid="+id.String(), nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for _, step := range []struct {
		want string
		then fsm.Command
	}{
		{"STATE_PREPARING", txn.Decide{ID: id, Decision: txn.Commit}},
		{"STATE_COMMITTING", txn.Acknowledge{ID: id, Receipts: []txn.BranchReceipt{{Branch: 1, Receipt: txn.Done}}}},
		{"STATE_COMMITTED", nil},
	} {
		if !lines.Scan() || !strings.Contains(lines.Text(), `"state":"`+step.want+`"`) {
			t.Fatalf("got %q, want %s", lines.Text(), step.want)
		}
		if step.then != nil {
			n.log.apply(step.then)
		}
	}
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("after the end: %q, %v", lines.Text(), lines.Err())
	}
}

// An error in the middle of a stream looks as it does elsewhere.
func TestWatchEndsWithAnError(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	n.log.register("bank-a")
	id := txid(t)
	n.log.apply(txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank-a", nil)}, Timeout: 1e9})
	req, _ := http.NewRequestWithContext(t.Context(), "GET", n.web+"/v1/transactions:watch?txid="+id.String(), nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	if !lines.Scan() {
		t.Fatal("no event", lines.Err())
	}
	go n.Stop(t.Context())
	if !lines.Scan() || !strings.Contains(lines.Text(), `{"error":{"code":"UNAVAILABLE","reason":"SHUTTING_DOWN"`) {
		t.Errorf("got %q", lines.Text())
	}
}

func TestHealthOverHTTP(t *testing.T) {
	n := (&world{}).serve(t, "n1", nil)
	check := func(path string, want int) {
		t.Helper()
		if got, answer := n.curl(t, "GET", path, ""); got != want {
			t.Errorf("%s: %d %v, want %d", path, got, answer, want)
		}
	}
	check("/healthz", 200)
	check("/readyz", 503) // no leader
	n.node.believe("n2")
	check("/readyz", 200)
	n.Retire()
	check("/healthz", 503)
	check("/readyz", 503)
}

// A page of another origin must not move money through its visitor's browser.
func TestCrossOriginRequestsAreRefused(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	req, _ := http.NewRequestWithContext(t.Context(), "POST", n.web+"/v1/transactions", strings.NewReader(twoBranches))
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden || len(n.coordinator.ids()) != 0 {
		t.Errorf("got %s", res.Status)
	}
}

// Headers don't become metadata: a browser or proxy can't pose as a node.
func TestHeadersDoNotReachTheNode(t *testing.T) {
	w := &world{}
	w.leader(t, "n1")
	follower := w.serve(t, "n2", nil)
	follower.node.believe("n1")
	req, _ := http.NewRequestWithContext(t.Context(), "POST", follower.web+"/v1/transactions", strings.NewReader(twoBranches))
	req.Header.Set("Grpc-Metadata-"+metadataHop, "1")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("got %s", res.Status)
	}
}

// TestAPageThatLeadsItsNameHereIsRefused, whatever it asks for: only a node that asks who
// calls has no need to.
func TestAPageThatLeadsItsNameHereIsRefused(t *testing.T) {
	var w world
	n := w.serve(t, "n1", nil)
	n.coordinator.lead(true)
	for _, path := range []string{"/v1/transactions:begin", "/healthz"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.web+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "evil.example"
		r.Header.Set("Origin", "http://evil.example")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	c := newCastle(t)
	secured, cfg := c.leaderNode("n1"), c.source("reader/eve").Client("127.0.0.1")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(secured.web, "http:", "https:", 1)+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "n1.example"
	answer, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("with certificates: %s", answer.Status)
	}
}
