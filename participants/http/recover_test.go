package httpparticipant_test

// These tests prove R4's footing: Recovers is true only once the service has
// listed its branches, and a list that cannot be trusted is an error.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
)

// R4: Open waits for nobody. Recovers is false until the service is up, has been
// asked in the background, and has listed its branches.
func TestRecoversIsLearntInTheBackground(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close() //nolint:errcheck // so that nobody answers there
	p := open(t, httpparticipant.Config{URL: "http://" + addr})
	if p.Recovers() {
		t.Fatal("a service that never answered is taken to list its branches")
	}
	s := httptest.NewUnstartedServer(httpparticipant.Handler(&scripted{recovers: true}, httpparticipant.Options{}))
	s.Listener.Close() //nolint:errcheck // it gets the address that the driver knows
	if s.Listener, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Close)
	until(t, "Recovers", p.Recovers)
}

// R4: a service without the optional operations is driven with staging first.
// Whatever its framework says to a path that it does not have, the driver names it.
func TestServiceThatCannotList(t *testing.T) {
	for _, answer := range []http.HandlerFunc{
		http.NotFound,
		says(405, "text/plain", "no"),
		saysJSON(501, `{"error": "unsupported"}`),
	} {
		p := open(t, httpparticipant.Config{URL: serve(t, answer)})
		if _, err := p.Recover(bounded(t), "c1"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("recover: %v; want errors.ErrUnsupported", err)
		}
		if p.Recovers() {
			t.Error("Recovers is true")
		}
		if _, err := p.(participants.StatusReporter).Status(bounded(t), newBranch("")); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("status: %v; want errors.ErrUnsupported", err)
		}
	}
}

// R4: a participant behind Handler that may hold branches it does not list is not
// taken at its list's word.
func TestParticipantThatIsNotKnownToListAll(t *testing.T) {
	p := openOver(t, &scripted{recovers: false})
	if _, err := p.Recover(bounded(t), "c1"); !errors.Is(err, errors.ErrUnsupported) || p.Recovers() {
		t.Errorf("recover: %v, recovers %v", err, p.Recovers())
	}
}

// R4: a service that has lost the ability is not believed on its past; one that is
// merely down is.
func TestRecoversIsUnlearnt(t *testing.T) {
	var answer atomic.Pointer[http.HandlerFunc]
	set := func(h http.HandlerFunc) { answer.Store(&h) }
	set(saysJSON(200, `{"branches": []}`))
	p := openKnown(t, httpparticipant.Config{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*answer.Load())(w, r)
	}))})
	set(says(503, "text/plain", "down"))
	if _, err := p.Recover(bounded(t), "c1"); err == nil || !p.Recovers() {
		t.Errorf("recover of a service that is down: %v, recovers %v", err, p.Recovers())
	}
	set(http.NotFound)
	if _, err := p.Recover(bounded(t), "c1"); err == nil || p.Recovers() {
		t.Errorf("recover of a service without it: %v, recovers %v", err, p.Recovers())
	}
}

// Every prepared branch is listed, over as many pages as they need.
func TestRecoverListsThemAll(t *testing.T) {
	const many = 2500
	want := make([]participants.Branch, many)
	for i := range want {
		want[i] = participants.Branch{Cluster: "c1", TxID: txn.TxID(uuid.Must(uuid.NewV7())), Number: 1 + i%txn.MaxBranches}
	}
	// Two branches of one transaction, on either side of a page's end.
	want[1000].TxID, want[1000].Number = want[999].TxID, want[999].Number+1
	p := openOver(t, &scripted{recovers: true, list: func(_ context.Context, cluster string) ([]participants.Branch, error) {
		if cluster != "c1" {
			return nil, nil
		}
		mixed := slices.Clone(want)
		slices.Reverse(mixed)
		return mixed, nil
	}})
	got, err := p.Recover(bounded(t), "c1")
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b participants.Branch) bool {
		return a.Cluster == b.Cluster && a.TxID == b.TxID && a.Number == b.Number
	}
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("%d branches listed, %d held", len(got), len(want))
	}
}

// A list of exactly one full page ends there, and a cursor is answered by itself:
// also where its branch has ended meanwhile.
func TestPagesOfTheHandler(t *testing.T) {
	const full = 1000
	held := make([]participants.Branch, full)
	for i := range held {
		held[i] = participants.Branch{TxID: txn.TxID(uuid.Must(uuid.NewV7())), Number: 1}
	}
	url := serve(t, httpparticipant.Handler(&scripted{recovers: true, list: func(context.Context, string) ([]participants.Branch, error) {
		return held, nil
	}}, httpparticipant.Options{}))
	type page struct {
		Branches   []struct{ TxID string }
		NextCursor string `json:"next_cursor"`
	}
	ask := func(body string) (p page) {
		t.Helper()
		code, text := post(t, url+"/recover", body)
		if err := json.Unmarshal([]byte(text), &p); err != nil || code != 200 {
			t.Fatalf("recover %s: %d %s, %v", body, code, text, err)
		}
		return p
	}
	if p := ask(`{"cluster": "c1", "limit": 5000}`); len(p.Branches) != full || p.NextCursor != "" {
		t.Errorf("%d branches and then %q; want the %d that there are", len(p.Branches), p.NextCursor, full)
	}
	first := ask(`{"cluster": "c1", "limit": 10}`)
	if len(first.Branches) != 10 || first.NextCursor == "" {
		t.Fatalf("%d branches and then %q; want 10 and more", len(first.Branches), first.NextCursor)
	}
	next := held[10].TxID.String()
	held = slices.Delete(slices.Clone(held), 0, 10)
	if p := ask(fmt.Sprintf(`{"cluster": "c1", "limit": 1, "cursor": %q}`, first.NextCursor)); p.Branches[0].TxID != next {
		t.Errorf("the second page begins with %v, want %s", p.Branches, next)
	}
	if code, _ := post(t, url+"/recover", `{"cluster": "c1", "limit": 1, "cursor": "zzz"}`); code != 400 {
		t.Errorf("a cursor that was never given: %d, want 400", code)
	}
}

// A list that is not one is refused whole: ids that are none, more than anybody
// holds, or pages without an end.
func TestListsThatCannotBeTrusted(t *testing.T) {
	good := uuid.Must(uuid.NewV7()).String()
	full := `{"branches": [` + strings.TrimSuffix(strings.Repeat(fmt.Sprintf(`{"txid": %q, "branch": 1},`, good), 1000), ",") + `]`
	const noList, noBranch = `no list "branches"`, "no branch"
	for name, tc := range map[string]struct{ body, want string }{
		"no list":           {`{}`, noList},
		"null":              {`{"branches": null}`, noList},
		"no txid":           {`{"branches": [{"branch": 1}]}`, noBranch},
		"no branch":         {fmt.Sprintf(`{"branches": [{"txid": %q}]}`, good), noBranch},
		"branch as text":    {fmt.Sprintf(`{"branches": [{"txid": %q, "branch": "1"}]}`, good), noList},
		"nothing":           {`{"branches": [null]}`, noBranch},
		"cursor no text":    {`{"branches": [], "next_cursor": 7}`, "not a string"},
		"long cursor":       {fmt.Sprintf(`{"branches": [], "next_cursor": %q}`, strings.Repeat("c", 1025)), "cursor of 1025 bytes"},
		"the same cursor":   {`{"branches": [], "next_cursor": "c"}`, "the same cursor"},
		"cut short":         {full, "cut short"},
		"longer than taken": {`{"branches": [], "x": "` + strings.Repeat("x", 1<<20) + `"}`, "more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			mustNotBeListed(t, saysJSON(200, tc.body), tc.want)
		})
	}
	for name, tc := range map[string]struct{ page, want string }{
		"endless":           {full, "more than 100000 branches"},
		"endless and empty": {`{"branches": []`, "not ended after 1000 pages"},
	} {
		t.Run(name, func(t *testing.T) {
			var page atomic.Int64
			mustNotBeListed(t, func(w http.ResponseWriter, r *http.Request) {
				saysJSON(200, fmt.Sprintf(`%s, "next_cursor": "%d"}`, tc.page, page.Add(1)))(w, r)
			}, tc.want)
		})
	}
	t.Run("cut short on the second page", func(t *testing.T) {
		mustNotBeListed(t, func(w http.ResponseWriter, r *http.Request) {
			var request struct{ Cursor string }
			if err := json.NewDecoder(r.Body).Decode(&request); err != nil || request.Cursor != "" {
				http.Error(w, "disk", http.StatusInternalServerError)
				return
			}
			saysJSON(200, full+`, "next_cursor": "c"}`)(w, r)
		}, "HTTP 500")
	})
}

func mustNotBeListed(t *testing.T, h http.HandlerFunc, want string) {
	t.Helper()
	p := open(t, httpparticipant.Config{URL: serve(t, h)})
	got, err := p.Recover(bounded(t), "c1")
	if err == nil || got != nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%d branches, %v; want none, and an error with %q", len(got), err, want)
	}
	if p.Recovers() {
		t.Error("Recovers is true after a list that failed")
	}
}
