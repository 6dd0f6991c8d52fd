package httpparticipant

// These tests prove that nobody votes, acknowledges or reports damage by accident:
// the wire's few answers are read word for word, and whatever else a service, a
// proxy or a framework may say is "not known" (R5, R9).

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// heard is what each of the calls would make of a reply: "" where it is ambiguous.
type heard struct{ prepare, commit, abort, status string }

func hear(r reply) heard {
	var h heard
	if v, err := r.vote(); err == nil {
		h.prepare = v.Kind.String()
	} else {
		h.prepare = meaning(err)
	}
	h.commit = receiptOf(r.receipt(opCommit, statusCommitted, heuristicAbort))
	h.abort = receiptOf(r.receipt(opAbort, statusAborted, heuristicCommit))
	if s, err := r.fate(); err == nil {
		h.status = s.String()
	}
	return h
}

func receiptOf(err error) string {
	if err == nil {
		return "done"
	}
	return meaning(err)
}

// meaning is what an error says for certain, "" if it says nothing.
func meaning(err error) string {
	var h *participants.Heuristic
	switch {
	case errors.Is(err, participants.ErrStaleEpoch):
		return "stale"
	case errors.As(err, &h):
		return h.Receipt.String()
	default:
		return ""
	}
}

var (
	nothing = heard{}
	stale   = heard{prepare: "stale", commit: "stale", abort: "stale"}
)

func TestAnswers(t *testing.T) {
	hazard := txn.HeuristicHazard.String()
	for _, tc := range []struct {
		code int
		body string
		want heard
	}{
		{200, `{"vote": "commit"}`, heard{prepare: txn.VoteCommit.String()}},
		{200, ` {"vote":"commit","new_in_v9":{"a":[1]}} `, heard{prepare: txn.VoteCommit.String()}},
		{200, `{"vote": "read_only"}`, heard{prepare: txn.VoteReadOnly.String()}},
		{409, `{"vote": "abort"}`, heard{prepare: txn.VoteAbort.String()}},
		{409, `{"vote": "abort", "reason": "sold out"}`, heard{prepare: txn.VoteAbort.String()}},
		{200, `{"status": "committed"}`, heard{commit: "done", status: "committed"}},
		{200, `{"status": "aborted"}`, heard{abort: "done", status: "aborted"}},
		{200, `{"status": "prepared"}`, heard{status: "prepared"}},
		{200, `{"status": "unknown"}`, heard{status: "unknown"}},
		{409, `{"heuristic": "abort"}`, heard{commit: txn.HeuristicAbort.String()}},
		{409, `{"heuristic": "commit"}`, heard{abort: txn.HeuristicCommit.String()}},
		{409, `{"heuristic": "hazard", "detail": "gone"}`, heard{commit: hazard, abort: hazard}},
		{409, `{"error": "stale_epoch", "detail": "heard of 9"}`, stale},

		// A word with the other's status code.
		{409, `{"vote": "commit"}`, nothing},
		{409, `{"vote": "read_only"}`, nothing},
		{200, `{"vote": "abort"}`, nothing},
		{409, `{"status": "committed"}`, nothing},
		{200, `{"heuristic": "abort"}`, nothing},
		{200, `{"error": "stale_epoch"}`, nothing},
		// Words that are none.
		{200, `{"vote": "Commit"}`, nothing},
		{200, `{"vote": "yes"}`, nothing},
		{200, `{"vote": ""}`, nothing},
		{200, `{"vote": null}`, nothing},
		{200, `{"vote": true}`, nothing},
		{200, `{"vote": ["commit"]}`, nothing},
		{200, `{"VOTE": "commit"}`, nothing},
		{200, `{"status": "done"}`, nothing},
		{409, `{"heuristic": "mixed"}`, nothing},
		{409, `{"error": "conflict"}`, nothing},
		{409, `{"error": {"code": "stale_epoch"}}`, nothing},
		// More than one word, or none.
		{200, `{"vote": "commit", "status": "committed"}`, nothing},
		{200, `{"vote": "commit", "error": "internal"}`, nothing},
		{409, `{"vote": "abort", "vote": "commit"}`, nothing},
		{200, `{"vote": "abort", "vote": "commit"}`, nothing},
		{409, `{"vote": "abort", "reason": 7}`, nothing},
		{200, `{}`, nothing},
		{409, `{}`, nothing},
		// What is no object, or not all of one.
		{200, ``, nothing},
		{200, `commit`, nothing},
		{200, `"commit"`, nothing},
		{200, `[{"vote": "commit"}]`, nothing},
		{200, `{"vote": "commit"`, nothing},
		{200, `{"vote": "commit",}`, nothing},
		{200, `{"vote": "commit"} {"vote": "abort"}`, nothing},
		{200, `{"vote": "commit"}x`, nothing},
		{409, "{\"vote\": \"abort\", \"reason\": \"\xff\"}", nothing},
		{409, `{"message": "Conflict", "statusCode": 409}`, nothing},
		// Status codes that a body may not overrule.
		{201, `{"vote": "commit"}`, nothing},
		{202, `{"vote": "commit"}`, nothing},
		{204, ``, nothing},
		{206, `{"vote": "commit"}`, nothing},
		{301, `{"vote": "commit"}`, nothing},
		{400, `{"vote": "abort"}`, nothing},
		{401, `{"vote": "abort"}`, nothing},
		{404, `{"heuristic": "abort"}`, nothing},
		{410, `{"heuristic": "abort"}`, nothing},
		{412, `{"error": "stale_epoch"}`, nothing},
		{422, `{"vote": "abort"}`, nothing},
		{500, `{"vote": "abort"}`, nothing},
		{503, `{"status": "committed"}`, nothing},
	} {
		if got := hear(reply{tc.code, contentType, []byte(tc.body)}); got != tc.want {
			t.Errorf("%d %s is heard as %+v; want %+v", tc.code, tc.body, got, tc.want)
		}
	}
}

func TestContentTypes(t *testing.T) {
	for kind, counts := range map[string]bool{
		"application/json":                true,
		"Application/JSON; charset=utf-8": true,
		"application/problem+json":        false,
		"text/html":                       false,
		"text/plain":                      false,
		"":                                false,
		";":                               false,
	} {
		_, err := reply{200, kind, []byte(`{"vote": "commit"}`)}.vote()
		if (err == nil) != counts {
			t.Errorf("a yes of type %q: %v", kind, err)
		}
	}
}

// An error that an operator reads says what to look at.
func TestRefusalsSayWhatToCheck(t *testing.T) {
	for code, want := range map[int]string{
		302: "redirects are not followed", 307: "redirects are not followed",
		401: "check the participant's token", 403: "check the participant's token",
		404: "check the path", 405: "check the path",
		413: "no payload of this size", 429: "too busy", 503: "too busy",
		500: "HTTP 500 (internal: the disk is full)",
	} {
		r := reply{code, contentType, []byte(`{"error": "internal", "detail": "the disk is full"}`)}
		_, err := r.vote()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("%d: %v; want %q and the service's words", code, err, want)
		}
	}
	_, err := reply{501, contentType, []byte(`{"error": "unsupported"}`)}.vote()
	if err == nil || err.Error() != "HTTP 501 (unsupported)" {
		t.Errorf("an error without a text: %v", err)
	}
	_, err = reply{502, "text/html", []byte("<html>secret stack trace")}.vote()
	if err == nil || err.Error() != "HTTP 502" {
		t.Errorf("a page of a proxy: %v; want the status code and none of the page", err)
	}
}

// Whatever arrives, an answer is one of the wire's, and a text fits the log.
func FuzzReply(f *testing.F) {
	for _, code := range []int{200, 409, 401, 302} {
		for _, body := range []string{
			`{"vote": "commit"}`, `{"vote": "abort", "reason": "\u001b[2J"}`, `{"status": "committed"}`,
			`{"heuristic": "hazard", "detail": "x"}`, `{"error": "stale_epoch", "detail": "heard of 9"}`,
			`{"branches": [{"txid": "01960f2e-8a00-7c3d-9e5f-1b2a3c4d5e6f", "branch": 1}], "next_cursor": "a"}`,
			`{"branches": null}`, `{"vote": "commit", "vote": "abort"}`, `{"vote": "commit"`, `<html>`, `{"a":` + strings.Repeat("[", 100),
		} {
			f.Add(code, contentType, []byte(body))
		}
	}
	f.Add(200, "text/html; \x00", []byte(`{"vote": "commit"}`))
	f.Fuzz(func(t *testing.T, code int, kind string, body []byte) {
		r := reply{code, kind, body}
		h := hear(r)
		if h != nothing && code != 200 && code != 409 {
			t.Fatalf("HTTP %d is heard as %+v", code, h)
		}
		positive := h.prepare == txn.VoteCommit.String() || h.prepare == txn.VoteReadOnly.String() ||
			h.commit == "done" || h.abort == "done" || h.status != ""
		if positive && code != 200 {
			t.Fatalf("HTTP %d is heard as %+v", code, h)
		}
		vote, err := r.vote()
		mustBeLegible(t, vote.Reason)
		mustBeLegible(t, fmt.Sprint(err))
		var damage *participants.Heuristic
		if errors.As(r.receipt(opCommit, statusCommitted, heuristicAbort), &damage) {
			mustBeLegible(t, damage.Detail)
		}
		branches, next, err := r.page("c1")
		mustBeLegible(t, fmt.Sprint(err))
		if err != nil && (branches != nil || next != "") {
			t.Fatalf("%d branches of a page that is none: %v", len(branches), err)
		}
		for _, b := range branches {
			if err := b.Validate(); err != nil {
				t.Fatalf("listed: %v", err)
			}
		}
	})
}

// Whatever arrives at a service, what reaches its participant is a branch.
func FuzzRequest(f *testing.F) {
	for _, body := range []string{
		`{"cluster": "c1", "txid": "01960f2e-8a00-7c3d-9e5f-1b2a3c4d5e6f", "branch": 1, "epoch": 7, "horizon_ms": 0}`,
		`{"cluster": "c1", "txid": "01960f2e-8a00-7c3d-9e5f-1b2a3c4d5e6f", "branch": 256, "epoch": 9007199254740991, "horizon_ms": 9223372036854,
			"digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "payload": null}`,
		`{"cluster": "c1", "limit": 10, "cursor": "01960f2e-8a00-7c3d-9e5f-1b2a3c4d5e6f/1"}`,
		`{"cluster": "c1", "CLUSTER": "", "branch": 1e2}`, `{`, `null`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, read := range []func([]byte) (participants.Branch, error){readBranch, readPrepare} {
			b, err := read(body)
			if err != nil {
				continue
			}
			if err := b.Validate(); err != nil || b.Horizon < 0 || b.Epoch > maxEpoch {
				t.Fatalf("%s is read as %+v, %v", body, b, err)
			}
			if _, err := requestFor(opPrepare, b); err != nil {
				t.Fatalf("%s is read as what cannot be sent: %v", body, err)
			}
		}
		if r, err := readRecover(body); err == nil && (r.Limit < 1 || r.Cluster == "") {
			t.Fatalf("%s is read as %+v", body, r)
		}
	})
}

// maxText is a reason with the words that this side puts around it.
const maxText = 2*txn.MaxReasonDetail + 256

func mustBeLegible(t *testing.T, text string) {
	t.Helper()
	if len(text) > maxText || !utf8.ValidString(text) {
		t.Fatalf("a text of %d bytes, UTF-8 %v", len(text), utf8.ValidString(text))
	}
	for _, r := range text {
		if r < ' ' && r != '\n' || r == 0x7f { // errors.Join puts lines under each other
			t.Fatalf("text %q", text)
		}
	}
}
