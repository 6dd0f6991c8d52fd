package transport_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/decree-tx/decree/fsm"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// upgraded waits until every node has applied the newest level.
func (x *trio) upgraded() {
	x.t.Helper()
	x.await("the newest level", func() bool {
		for _, m := range x.members {
			if m.node.Machine.Level() != fsm.Newest {
				return false
			}
		}
		return true
	})
}

// What operators do through any node is on every node's record, with the reason, in the
// order in which it was done, also where it was refused or failed.
func TestOperatorsAreOnRecord(t *testing.T) {
	x := newTrio(t)
	x.upgraded()
	before, err := x.client.Audit(x.ctx(), 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(len(before.Records)) // the trio's own registrations, if the level had risen by then
	spare := &decreev1.Participant{Name: "spare", Driver: "fake"}
	if _, err := x.client.PutParticipant(client.Because(x.ctx(), "growth"), spare); err != nil {
		t.Fatal(err)
	}
	if err := x.client.DeleteParticipant(client.Because(x.ctx(), "not needed"), "b"); err != nil {
		t.Fatal(err)
	}
	if err := x.client.DeleteParticipant(x.ctx(), "nobody"); !errors.Is(err, client.ErrUnknownParticipant) {
		t.Fatal(err)
	}
	if err := x.client.RemoveNode(client.Because(x.ctx(), "worn out"), "n9"); !errors.Is(err, client.ErrUnknownNode) {
		t.Fatal(err)
	}
	leader := x.leader(nil)
	if err := x.client.TransferLeadership(client.Because(x.ctx(), "maintenance"), ""); err != nil {
		t.Fatal(err)
	}
	x.leader(leader)
	want := []string{
		"anonymous: put participant spare (driver fake), growth",
		"anonymous: delete participant b, not needed",
		"anonymous: delete participant nobody, refused",
		"anonymous: remove node n9, worn out",
		"anonymous: remove node: failed n9 (remove node n9: no such node in the cluster), worn out",
		"anonymous: transfer leadership, maintenance",
	}
	for _, m := range x.members {
		c, err := client.New(client.Config{Endpoints: []string{m.api}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		x.await("the records at "+m.id, func() bool {
			page, err := c.Audit(x.ctx(), last, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			got = got[:0]
			for _, r := range page.Records {
				got = append(got, line(r))
			}
			slices.Reverse(got)
			return len(got) >= len(want)
		})
		if !slices.Equal(got, want) {
			t.Errorf("%s has\n%s", m.id, strings.Join(got, "\n"))
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}

	page, err := x.client.Audit(x.ctx(), last+1, 0, 2)
	if err != nil || len(page.Records) != 2 || page.Next != last+5 {
		t.Errorf("%v, %v", page, err)
	}
	gone, err := http.NewRequest(http.MethodDelete, x.members["n1"].web+"/v1/participants/a?reason=moved", nil)
	if err != nil {
		t.Fatal(err)
	}
	done, err := http.DefaultClient.Do(gone)
	if err != nil || done.StatusCode != http.StatusOK {
		t.Fatal(done, err)
	}
	done.Body.Close()
	x.await("the reason of a call by HTTP", func() bool {
		page, err := x.client.Audit(x.ctx(), 0, 0, 1)
		return err == nil && line(page.Records[0]) == "anonymous: delete participant a, moved"
	})
	over, err := http.Get(fmt.Sprintf("%s/v1/audit?page_size=1&before=%d", x.members["n1"].web, last+3))
	if err != nil {
		t.Fatal(err)
	}
	defer over.Body.Close()
	body, err := io.ReadAll(over.Body)
	if err != nil || !strings.Contains(string(body), `"action":"delete participant"`) {
		t.Errorf("%v, %s", err, body)
	}
}

func line(r *decreev1.AuditRecord) string {
	s := strings.TrimSpace(fmt.Sprintf("%s: %s %s", r.GetWho(), r.GetAction(), r.GetTarget()))
	if r.GetDetail() != "" {
		s += " (" + r.GetDetail() + ")"
	}
	if r.GetReason() != "" {
		s += ", " + r.GetReason()
	}
	if r.GetRefused() {
		s += ", refused"
	}
	return s
}
