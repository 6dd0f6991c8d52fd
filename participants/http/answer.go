package httpparticipant

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// This file alone decides what a service has said. It is pure, so that it can be
// fuzzed: everything that arrives is either one of the wire's few answers, word
// for word, or an error that means "not known".

// reply is an HTTP response that was read to its end.
type reply struct {
	code        int
	contentType string
	body        []byte
}

// saying is what makes an answer: the status code, the one field that tells what
// it is about, and that field's word. It is compared as a whole, so that no part
// counts without the others.
type saying struct {
	code  int
	field string
	word  string
}

func (s saying) String() string {
	return fmt.Sprintf("%d %s %q", s.code, s.field, clean(s.word, maxName))
}

// answer is a saying with its text for people.
type answer struct {
	saying
	text string
}

// sayings are the fields that tell what an answer is about, each with the field of
// its text.
var sayings = [...]struct{ field, text string }{
	{fieldVote, "reason"},
	{fieldStatus, "detail"},
	{fieldHeuristic, "detail"},
	{fieldError, "detail"},
}

// vote reads the answer to a prepare.
func (r reply) vote() (participants.Vote, error) {
	a, err := r.answer()
	if err != nil {
		return participants.Vote{}, err
	}
	switch a.saying {
	case saying{http.StatusOK, fieldVote, voteCommit}:
		return participants.Yes(), nil
	case saying{http.StatusOK, fieldVote, voteReadOnly}:
		return participants.ReadOnly(), nil
	case saying{http.StatusConflict, fieldVote, voteAbort}:
		return participants.No("%s", forPeople(a.text)), nil
	default:
		return participants.Vote{}, fmt.Errorf("%s is no answer to a prepare", a)
	}
}

// receipt reads the answer to a commit or abort. done is the status that says so,
// and against the heuristic that makes sense for the call: who answers a commit
// with "heuristically committed" has not understood it.
func (r reply) receipt(call operation, done, against string) error {
	a, err := r.answer()
	if err != nil {
		return err
	}
	switch a.saying {
	case saying{http.StatusOK, fieldStatus, done}:
		return nil
	case saying{http.StatusConflict, fieldHeuristic, against}, saying{http.StatusConflict, fieldHeuristic, heuristicHazard}:
		return &participants.Heuristic{Receipt: heuristicFromWire(a.word), Detail: forPeople(a.text)}
	default:
		return fmt.Errorf("%s is no answer to %s", a, call)
	}
}

// fate reads the answer to a question for a branch's status.
func (r reply) fate() (participants.Status, error) {
	a, err := r.answer()
	if err != nil {
		return participants.StatusUnknown, r.orUnsupported(err)
	}
	switch a.saying {
	case saying{http.StatusOK, fieldStatus, statusUnknown}:
		return participants.StatusUnknown, nil
	case saying{http.StatusOK, fieldStatus, statusPrepared}:
		return participants.StatusPrepared, nil
	case saying{http.StatusOK, fieldStatus, statusCommitted}:
		return participants.StatusCommitted, nil
	case saying{http.StatusOK, fieldStatus, statusAborted}:
		return participants.StatusAborted, nil
	default:
		return participants.StatusUnknown, fmt.Errorf("%s is no branch's status", a)
	}
}

// page reads one page of a list of prepared branches, and the cursor of the next
// one; that of the last page is empty.
func (r reply) page(cluster string) ([]participants.Branch, string, error) {
	if r.code != http.StatusOK {
		return nil, "", r.orUnsupported(r.refusal())
	}
	o, err := r.object()
	if err != nil {
		return nil, "", err
	}
	// A page without its list is no empty list: it would hide branches.
	var listed []preparedBranch
	if err := json.Unmarshal(o["branches"], &listed); err != nil || listed == nil {
		return nil, "", errors.New(`the answer has no list "branches"`)
	}
	next, _, err := o.text("next_cursor")
	if err != nil {
		return nil, "", err
	}
	if len(next) > maxCursor {
		return nil, "", fmt.Errorf("a cursor of %d bytes, want at most %d", len(next), maxCursor)
	}
	branches := make([]participants.Branch, len(listed))
	for i, l := range listed {
		if branches[i], err = (branchRequest{Cluster: cluster, TxID: l.TxID, Branch: l.Branch}).branch(); err != nil {
			return nil, "", fmt.Errorf("the service lists what is no branch: %w", err)
		}
	}
	return branches, next, nil
}

// answer reads a body that carries exactly one saying.
func (r reply) answer() (answer, error) {
	if r.code != http.StatusOK && r.code != http.StatusConflict {
		return answer{}, r.refusal()
	}
	a, err := r.said()
	if err != nil {
		return answer{}, fmt.Errorf("HTTP %d with %w", r.code, err)
	}
	if a.saying == (saying{http.StatusConflict, fieldError, errorStaleEpoch}) {
		return answer{}, fmt.Errorf("%w%s", participants.ErrStaleEpoch, afterColon(a.text))
	}
	return a, nil
}

func (r reply) said() (answer, error) {
	o, err := r.object()
	if err != nil {
		return answer{}, err
	}
	var found []answer
	for _, s := range sayings {
		word, there, err := o.text(s.field)
		if err != nil {
			return answer{}, err
		}
		if !there {
			continue
		}
		text, _, err := o.text(s.text)
		if err != nil {
			return answer{}, err
		}
		found = append(found, answer{saying{r.code, s.field, word}, text})
	}
	if len(found) != 1 {
		return answer{}, fmt.Errorf("a body that has %d of vote, status, heuristic and error, want one", len(found))
	}
	return found[0], nil
}

// object is the body of a reply that is JSON and says so: an error page of a proxy
// is not read as if it were the service's word.
func (r reply) object() (object, error) {
	if kind, _, err := mime.ParseMediaType(r.contentType); err != nil || kind != contentType {
		return nil, fmt.Errorf("a body of type %q, want %s", clean(r.contentType, maxName), contentType)
	}
	o, err := readObject(r.body)
	if err != nil {
		return nil, fmt.Errorf("a body that is no answer: %w", err)
	}
	return o, nil
}

// refusal names what a status code without a meaning usually comes from, with the
// service's own words where it has any.
func (r reply) refusal() error {
	text := fmt.Sprintf("HTTP %d", r.code)
	if hint := hintFor(r.code); hint != "" {
		text += ": " + hint
	}
	if a, err := r.said(); err == nil && a.field == fieldError {
		text += fmt.Sprintf(" (%s%s)", clean(a.word, maxName), afterColon(a.text))
	}
	return errors.New(text)
}

func hintFor(code int) string {
	switch {
	case code/100 == 3:
		return "the service redirects, and redirects are not followed: register the url where it answers"
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return "the service refuses this node: check the participant's token and certificate, and which ones the service takes"
	case code == http.StatusProxyAuthRequired:
		return "the proxy refuses this node: check the proxy of its environment"
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed:
		return "the operation is not there: check the path of the participant's url"
	case code == http.StatusRequestEntityTooLarge:
		return "the service takes no payload of this size"
	case code == http.StatusBadRequest, code == http.StatusUnsupportedMediaType, code == http.StatusUnprocessableEntity:
		return "the service does not understand the request: check that its url is a participant's"
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		return "the service is too busy"
	default:
		return ""
	}
}

// orUnsupported marks the error of a service that does not have an operation. It
// is for those that a service may leave out: an author who does so has no route
// for them, and whoever answers then knows nothing of this wire.
func (r reply) orUnsupported(err error) error {
	switch r.code {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return fmt.Errorf("%w by the service: %w", errors.ErrUnsupported, err)
	default:
		return err
	}
}

func heuristicFromWire(word string) txn.Receipt {
	switch word {
	case heuristicCommit:
		return txn.HeuristicCommit
	case heuristicAbort:
		return txn.HeuristicAbort
	default:
		return txn.HeuristicHazard
	}
}

func heuristicToWire(r txn.Receipt) (word string, ok bool) {
	switch r {
	case txn.HeuristicCommit:
		return heuristicCommit, true
	case txn.HeuristicAbort:
		return heuristicAbort, true
	case txn.HeuristicHazard:
		return heuristicHazard, true
	default:
		return "", false
	}
}
