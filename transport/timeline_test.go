package transport_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func (m *member) timeline(x *trio, id string) *decreev1.GetTimelineResponse {
	x.t.Helper()
	conn, err := grpc.NewClient(m.api, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		x.t.Fatal(err)
	}
	defer conn.Close()
	tl, err := decreev1.NewTimelinesClient(conn).GetTimeline(x.ctx(), &decreev1.GetTimelineRequest{Txid: id})
	if err != nil {
		x.t.Fatal(err)
	}
	return tl
}

// Whichever node is asked, the timeline is the leader's; a node that led before adds what
// it has seen itself.
func TestTimelineFromEveryNode(t *testing.T) {
	x := newTrio(t)
	id := newID(t)
	if _, err := x.client.Submit(x.ctx(), transfer(id)); err != nil {
		t.Fatal(err)
	}
	x.audit(id, client.Committed)
	first := x.leader(nil)
	for _, m := range x.members {
		tl := m.timeline(x, id.String())
		if len(tl.GetRecordings()) != 1 || tl.GetNode() != first.id || !tl.GetLeading() {
			t.Fatalf("%s tells %v", m.id, tl)
		}
		r := tl.GetRecordings()[0]
		if r.GetNode() != first.id || r.GetEpoch() != tl.GetTransaction().GetStaged().GetEpoch() || r.GetTakenOver() || len(r.GetBranches()) != 2 {
			t.Errorf("%s tells %v", m.id, r)
		}
		wantOrder(t, r)
	}

	if err := x.client.TransferLeadership(x.ctx(), ""); err != nil {
		t.Fatal(err)
	}
	second := x.leader(first)
	for _, m := range x.members {
		want := 0
		if m == first {
			want = 1
		}
		x.await("the next leader's answer at "+m.id, func() bool {
			return m.timeline(x, id.String()).GetNode() == second.id
		})
		if got := len(m.timeline(x, id.String()).GetRecordings()); got != want {
			t.Errorf("after the transfer %s tells %d recordings, want %d", m.id, got, want)
		}
	}
}

// wantOrder checks that a committed transaction's events come in the protocol's order.
func wantOrder(t *testing.T, r *decreev1.Recording) {
	t.Helper()
	for _, b := range r.GetBranches() {
		last := r.GetSince().AsTime()
		for i, at := range []*timestamppb.Timestamp{
			r.GetBegun(), b.GetPrepareSent(), b.GetVoted(), r.GetDeciding(), r.GetDecided(),
			b.GetFirstAttempt(), b.GetAcknowledged(), r.GetDelivered(),
		} {
			if !at.IsValid() || at.AsTime().Before(last) {
				t.Errorf("event %d of branch %d at %v, after %v: %v", i, b.GetNumber(), at, last, r)
			}
			last = at.AsTime()
		}
	}
}
