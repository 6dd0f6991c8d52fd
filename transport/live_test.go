package transport_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/decree-tx/decree/participants/participanttest"
	"github.com/decree-tx/decree/transport/client"
)

// watched reads a stream of server-sent events.
type watched struct {
	t     *testing.T
	lines *bufio.Scanner
}

type view struct {
	Node    string
	Error   string
	Leading bool
	Oldest  string `json:"oldest_txid"`
	Status  struct{ Unfinished, Retained string }
	Pulse   *struct{ Transactions string }
	Loads   []struct {
		Participant string
		Unfinished  int
	}
}

func (m *member) watchCluster(x *trio) *watched {
	x.t.Helper()
	req, err := http.NewRequestWithContext(x.ctx(), http.MethodGet, m.web+"/v1/live:watch", nil)
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { res.Body.Close() })
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" {
		x.t.Fatalf("HTTP %d, %q", res.StatusCode, kind)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	return &watched{x.t, lines}
}

// next is the next event's views. Each event is one line of data and an empty one.
func (w *watched) next() []view {
	w.t.Helper()
	if !w.lines.Scan() {
		w.t.Fatalf("the stream ended: %v", w.lines.Err())
	}
	data, ok := strings.CutPrefix(w.lines.Text(), "data: ")
	if !ok || !w.lines.Scan() || w.lines.Text() != "" {
		w.t.Fatalf("no event: %q, then %q", data, w.lines.Text())
	}
	var message struct{ Result struct{ Views []view } }
	if err := json.Unmarshal([]byte(data), &message); err != nil {
		w.t.Fatal(err)
	}
	return message.Result.Views
}

// A follower shows its own view first, and those of the others; only the leader's has
// figures of what goes on.
func TestLiveFromAFollower(t *testing.T) {
	x := newTrio(t)
	id := newID(t)
	x.fakes["b"].Script(participanttest.Commit, id, participanttest.Answer{Fate: participanttest.Dropped, Stay: true})
	tx := transfer(id)
	tx.Wait = client.WaitDecision
	if _, err := x.client.Submit(x.ctx(), tx); err != nil {
		t.Fatal(err)
	}
	m := x.follower()
	w := m.watchCluster(x)
	all := func() (seen bool) {
		views := w.next()
		if len(views) != 3 || views[0].Node != m.id || views[0].Leading {
			t.Fatalf("the views are %+v", views)
		}
		for _, v := range views {
			if v.Error != "" || v.Oldest != id.String() || v.Status.Unfinished != "1" {
				return false // not there yet
			}
			if v.Leading {
				seen = v.Pulse != nil && len(v.Loads) == 2 && v.Loads[1].Participant == "b" && v.Loads[1].Unfinished == 1
			} else if v.Pulse != nil || len(v.Loads) > 0 {
				t.Errorf("a follower has figures: %+v", v)
			}
		}
		return seen
	}
	x.await("the views of all", all)

	x.fakes["b"].Unscript(participanttest.Commit, id)
	x.audit(id, client.Committed)
	x.await("its end", func() bool { v := w.next(); return v[0].Oldest == "" && v[0].Status.Unfinished == "0" })
	leader := x.leader(nil)
	if err := x.client.TransferLeadership(x.ctx(), ""); err != nil {
		t.Fatal(err)
	}
	x.await("the next leader, from "+m.id, func() bool {
		leads := 0
		for _, v := range w.next() {
			if v.Leading && v.Node != leader.id {
				leads++
			}
		}
		return leads == 1
	})
}
