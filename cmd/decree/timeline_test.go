package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// What is proven here: a timeline is drawn as it happened, one that spans leaders, fails
// and goes on as well as one that nobody remembers.

type fakeTimelines struct {
	decreev1.UnimplementedTimelinesServer
	*fakeNode
}

func (f fakeTimelines) GetTimeline(_ context.Context, r *decreev1.GetTimelineRequest) (*decreev1.GetTimelineResponse, error) {
	if f.timeline == nil {
		return f.UnimplementedTimelinesServer.GetTimeline(context.Background(), r)
	}
	return f.timeline, f.heard(r)
}

// after is a moment of a story that began at a round time.
func after(d time.Duration) *timestamppb.Timestamp {
	return timestamppb.New(time.Unix(1_700_000_000, 0).Add(d))
}

func someTimeline() *decreev1.GetTimelineResponse {
	const ms = time.Millisecond
	return &decreev1.GetTimelineResponse{
		Node: "n1", Leading: true,
		Transaction: &decreev1.Transaction{
			Txid: someTxID, State: decreev1.State_STATE_COMMITTING,
			Staged:  &decreev1.Stamp{Index: 10, Epoch: 3, Time: after(20 * ms)},
			Decided: &decreev1.Stamp{Index: 11, Epoch: 3, Time: after(50 * ms)},
			Branches: []*decreev1.Branch{
				{Number: 1, Participant: "bank-a", Vote: decreev1.Vote_VOTE_COMMIT, Receipt: decreev1.Receipt_RECEIPT_DONE},
				{Number: 2, Participant: "courier", Vote: decreev1.Vote_VOTE_COMMIT, LastError: "down\x1b[2J"},
			},
		},
		Recordings: []*decreev1.Recording{{
			Node: "n1", Epoch: 3, AsOf: after(120 * ms),
			Begun: after(0), Staging: after(0), Staged: after(20 * ms), Deciding: after(40 * ms), Decided: after(50 * ms),
			Branches: []*decreev1.RecordedBranch{
				{
					Number: 1, PrepareSent: after(0), Prepares: 1, Voted: after(10 * ms), Vote: decreev1.Vote_VOTE_COMMIT,
					Attempts: 1, FirstAttempt: after(50 * ms), Acknowledged: after(60 * ms), Receipt: decreev1.Receipt_RECEIPT_DONE,
				},
				{
					Number: 2, PrepareSent: after(0), Prepares: 1, Voted: after(40 * ms), Vote: decreev1.Vote_VOTE_COMMIT,
					Attempts: 2, FirstAttempt: after(50 * ms), LastAttempt: after(100 * ms), LastError: "down\x1b[2J", NextAttempt: after(120 * ms),
					Failed: []*decreev1.FailedAttempt{{Sent: after(50 * ms), Failed: after(70 * ms)}, {Sent: after(100 * ms), Failed: after(110 * ms)}},
				},
			},
		}},
	}
}

func TestShowDrawsTheTimeline(t *testing.T) {
	shown := run(t, &fakeNode{timeline: someTimeline()}, "", "tx", "show", someTxID)
	_, timeline, _ := strings.Cut(shown.stdout, "LAST ERROR\n")
	_, timeline, _ = strings.Cut(timeline, "\n\n")
	want := `
           0                                                     +120ms
log        ▒▒▒▒▒▒▒▒▒▒▒·········▒▒▒▒▒▒··································
1 bank-a   ░░░░░░···················██████·····························
2 courier  ░░░░░░░░░░░░░░░░░░░░░····██████████✗███████████████████✗███›
           ▒ log  ░ prepare  █ delivery  ✗ failed attempt  › not ended

AFTER   WHO        WHAT
+0s     n1         begins to drive it (epoch 3)
+0s     1 bank-a   prepare leaves
+0s     2 courier  prepare leaves
+10ms   1 bank-a   votes commit
+20ms   log        staged (entry 10, epoch 3)
+40ms   2 courier  votes commit
+50ms   log        decided: commit (entry 11, epoch 3)
+50ms   1 bank-a   decision leaves
+50ms   2 courier  decision leaves, the first of 2 times
+60ms   1 bank-a   acknowledges: done
+70ms   2 courier  did not take it
+100ms  2 courier  last error: down\x1b[2J
+110ms  2 courier  did not take it
+120ms  2 courier  next attempt is due
`
	if want = strings.TrimPrefix(want, "\n"); timeline != want {
		t.Errorf("got:\n%s\nwant:\n%s", timeline, want)
	}
}

// TestShowOfWhatNobodyRemembers has the log only, and a node that knows no timelines.
func TestShowOfWhatNobodyRemembers(t *testing.T) {
	forgotten := someTimeline()
	forgotten.Recordings, forgotten.Leading = nil, false
	old := &fakeNode{transaction: someTransaction()}
	for why, node := range map[string]*fakeNode{"no leader remembers more of it\n": {timeline: forgotten}, "its timeline is not told": old} {
		got := run(t, node, "", "tx", "show", someTxID)
		if got.exit != exitOK || !strings.Contains(got.stdout, "staged (entry 10, epoch 3)\n") ||
			!strings.Contains(got.stdout, why) || strings.Contains(got.stdout, legend) {
			t.Errorf("exit %d:\n%s%s", got.exit, got.stdout, got.stderr)
		}
	}
}

func TestShowInJSON(t *testing.T) {
	got := run(t, &fakeNode{timeline: someTimeline()}, "", "tx", "show", someTxID, "-o", "json")
	var whole struct {
		Txid       string
		Recordings []struct {
			Branches []struct{ Failed []struct{ Sent string } }
		}
	}
	if err := json.Unmarshal([]byte(got.stdout), &whole); err != nil || whole.Txid != someTxID || len(whole.Recordings[0].Branches[1].Failed) != 2 {
		t.Errorf("JSON %s (%v)", got.stdout, err)
	}
}

// TestStoriesWithoutTime holds that no story makes the picture fail.
func TestStoriesWithoutTime(t *testing.T) {
	one := &decreev1.Recording{Begun: after(0), Staging: after(0), Branches: []*decreev1.RecordedBranch{{Number: 1, PrepareSent: after(0)}}}
	for _, told := range []*decreev1.GetTimelineResponse{
		{}, {Recordings: []*decreev1.Recording{{}}},
		{Transaction: &decreev1.Transaction{Branches: []*decreev1.Branch{{Number: 1}}}, Recordings: []*decreev1.Recording{one}},
		{Recordings: []*decreev1.Recording{{Staging: after(time.Second), Staged: after(0)}}}, // clocks that went back
	} {
		for line := range strings.Lines(tell(told).picture()) {
			if displayWidth(line) > 100 {
				t.Errorf("%v: %s", told, line)
			}
		}
	}
}
