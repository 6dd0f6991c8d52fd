package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// timelineOf asks for a transaction's timeline; of a cluster that has none yet, or not
// for everybody, for the transaction alone.
func timelineOf(ctx context.Context, c *client.Client, txid string) (*decreev1.GetTimelineResponse, error) {
	told, err := c.Timeline(ctx, txid)
	if !notOffered(err) {
		return told, err
	}
	t, err := c.Get(ctx, txid)
	return &decreev1.GetTimelineResponse{Transaction: t}, err
}

// notOffered reports that a node is of a version without a method, or that the caller's
// role may not call it.
func notOffered(err error) bool {
	var refusal *client.Error
	return errors.As(err, &refusal) && (refusal.Code == codes.Unimplemented || refusal.Reason == client.ErrDenied)
}

// timelineJSON is a Transaction with the recordings of its timeline.
func timelineJSON(told *decreev1.GetTimelineResponse) (json.RawMessage, error) {
	whole, err := apiJSON.Marshal(told.GetTransaction())
	recordings := []json.RawMessage{}
	for _, r := range told.GetRecordings() {
		one, failure := apiJSON.Marshal(r)
		recordings, err = append(recordings, one), errors.Join(err, failure)
	}
	list, failure := json.Marshal(recordings)
	if err := errors.Join(err, failure); err != nil {
		return nil, err
	}
	whole = append(bytes.TrimSuffix(whole, []byte("}")), `,"recordings":`...)
	return append(append(whole, list...), '}'), nil
}

// event is one thing that happened to a transaction, or is to happen.
type event struct {
	at   time.Time
	who  string
	what string
	bad  bool
}

// span is a stretch of time in which somebody was waited for.
type span struct {
	from, to time.Time
	kind     spanKind
	open     bool // it has not ended
}

type spanKind int

const (
	logging spanKind = iota
	preparing
	delivering
)

// lane is one row of the picture: the log, or a branch.
type lane struct {
	name   string
	spans  []span
	failed []time.Time
}

// story is a timeline as it is drawn.
type story struct {
	events []event
	lanes  []lane
}

// tell puts a timeline into the order of time.
func tell(told *decreev1.GetTimelineResponse) story {
	t := told.GetTransaction()
	log := lane{name: "log"}
	var s story
	for _, r := range told.GetRecordings() {
		s.reign(r)
		log.add(logging, r.GetStaging(), r.GetStaged(), r.GetAsOf())
		log.add(logging, r.GetDeciding(), r.GetDecided(), r.GetAsOf())
	}
	s.entries(t)
	s.lanes = append(s.lanes, log)
	for _, b := range t.GetBranches() {
		l := lane{name: branchName(b)}
		for _, r := range told.GetRecordings() {
			for _, rb := range r.GetBranches() {
				if rb.GetNumber() == b.GetNumber() {
					s.branch(l.name, rb)
					l.recorded(rb, r.GetAsOf())
				}
			}
		}
		s.lanes = append(s.lanes, l)
	}
	slices.SortStableFunc(s.events, func(a, b event) int { return a.at.Compare(b.at) })
	return s
}

func branchName(b *decreev1.Branch) string {
	return safe(fmt.Sprintf("%d %s", b.GetNumber(), b.GetParticipant()))
}

func (s *story) add(at *timestamppb.Timestamp, bad bool, who, format string, args ...any) {
	if at != nil {
		s.events = append(s.events, event{at.AsTime(), who, fmt.Sprintf(format, args...), bad})
	}
}

// entries are what the replicated log holds, whichever leader has recorded it.
func (s *story) entries(t *decreev1.Transaction) {
	entry := func(stamp *decreev1.Stamp, what string) {
		if stamp.GetIndex() > 0 {
			s.add(stamp.GetTime(), false, "log", "%s (entry %d, epoch %d)", what, stamp.GetIndex(), stamp.GetEpoch())
		}
	}
	decision := "decided: commit"
	if t.GetReason().GetCode() != decreev1.AbortCode_ABORT_CODE_UNSPECIFIED {
		decision = "decided: abort, " + reasonText(t.GetReason())
	}
	entry(t.GetStaged(), "staged")
	entry(t.GetDecided(), decision)
	entry(t.GetFinished(), "finished")
}

func (s *story) reign(r *decreev1.Recording) {
	what := "begins to drive it"
	if r.GetTakenOver() {
		what = "takes it over from an earlier leader"
	}
	s.add(r.GetBegun(), false, r.GetNode(), "%s (epoch %d)", what, r.GetEpoch())
}

func (s *story) branch(who string, b *decreev1.RecordedBranch) {
	s.add(b.GetPrepareSent(), false, who, "prepare leaves%s", times(b.GetPrepares()))
	vote := "votes " + word(b.GetVote())
	if b.GetVoteDetail() != "" {
		vote += ": " + b.GetVoteDetail()
	}
	s.add(b.GetVoted(), b.GetVote() == decreev1.Vote_VOTE_ABORT, who, "%s", vote)
	s.add(b.GetFirstAttempt(), false, who, "decision leaves%s", times(b.GetAttempts()))
	for _, f := range b.GetFailed() {
		s.add(cmp.Or(f.GetFailed(), f.GetSent()), true, who, "did not take it")
	}
	if b.GetLastError() != "" && b.GetAcknowledged() == nil {
		s.add(cmp.Or(b.GetLastAttempt(), b.GetFirstAttempt()), true, who, "last error: %s", b.GetLastError())
	}
	s.add(b.GetNextAttempt(), false, who, "next attempt is due")
	receipt := word(b.GetReceipt())
	if b.GetEvidence() != "" {
		receipt += ": " + b.GetEvidence()
	}
	s.add(b.GetAcknowledged(), b.GetReceipt() > decreev1.Receipt_RECEIPT_DONE, who, "acknowledges: %s", receipt)
}

// times tells that something left more than once.
func times(n uint32) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(", the first of %d times", n)
}

// add is a span that may not have ended by the time that it was looked at.
func (l *lane) add(kind spanKind, from, to, asOf *timestamppb.Timestamp) {
	if from == nil {
		return
	}
	end := cmp.Or(to, asOf)
	if end == nil || end.AsTime().Before(from.AsTime()) {
		end = from
	}
	l.spans = append(l.spans, span{from.AsTime(), end.AsTime(), kind, to == nil})
}

func (l *lane) recorded(b *decreev1.RecordedBranch, asOf *timestamppb.Timestamp) {
	l.add(preparing, b.GetPrepareSent(), b.GetVoted(), asOf)
	l.add(delivering, b.GetFirstAttempt(), b.GetAcknowledged(), asOf)
	for _, f := range b.GetFailed() {
		l.failed = append(l.failed, cmp.Or(f.GetFailed(), f.GetSent()).AsTime())
	}
}

// The picture of a story.
const (
	pictureWidth = 60
	// The marks are a third, two thirds and the whole of a place, so that they are told
	// apart without colours.
	logMark, prepareMark, deliverMark = '▒', '░', '█'
	openMark, failedMark              = '›', '✗'
)

var marks = map[spanKind]rune{logging: logMark, preparing: prepareMark, delivering: deliverMark}

const legend = "▒ log  ░ prepare  █ delivery  ✗ failed attempt  › not ended"

// bounds are the first and the last moment of a story.
func (s story) bounds() (first, last time.Time) {
	moments := []time.Time{}
	for _, e := range s.events {
		moments = append(moments, e.at)
	}
	for _, l := range s.lanes {
		for _, sp := range l.spans {
			moments = append(moments, sp.from, sp.to)
		}
	}
	if len(moments) == 0 {
		return time.Time{}, time.Time{}
	}
	return slices.MinFunc(moments, time.Time.Compare), slices.MaxFunc(moments, time.Time.Compare)
}

// picture draws each lane over the whole of the time; nothing where that is no time, or
// nobody has recorded it.
func (s story) picture() string {
	first, last := s.bounds()
	whole := last.Sub(first)
	recorded := slices.ContainsFunc(s.lanes, func(l lane) bool { return len(l.spans) > 0 })
	if whole <= 0 || !recorded {
		return ""
	}
	place := func(at time.Time) int {
		return min(pictureWidth-1, int(float64(at.Sub(first))/float64(whole)*pictureWidth))
	}
	names := 0
	for _, l := range s.lanes {
		names = max(names, displayWidth(l.name))
	}
	var b strings.Builder
	end := "+" + brief(whole)
	fmt.Fprintf(&b, "%s  0%s%s\n", strings.Repeat(" ", names), strings.Repeat(" ", max(1, pictureWidth-1-len(end))), end)
	for _, l := range s.lanes {
		fmt.Fprintf(&b, "%s%s  %s\n", l.name, strings.Repeat(" ", names-displayWidth(l.name)), l.draw(place))
	}
	b.WriteString(strings.Repeat(" ", names) + "  " + legend + "\n")
	return b.String()
}

func (l lane) draw(place func(time.Time) int) string {
	row := []rune(strings.Repeat("·", pictureWidth))
	for _, sp := range l.spans {
		for i := place(sp.from); i <= place(sp.to); i++ {
			row[i] = marks[sp.kind]
		}
		if sp.open {
			row[place(sp.to)] = openMark
		}
	}
	for _, at := range l.failed {
		row[place(at)] = failedMark
	}
	return string(row)
}

// brief is a duration with three digits or so.
func brief(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}

// showTimeline draws a transaction's timeline: a picture, and each event with how long
// after the first it was.
func (p *program) showTimeline(told *decreev1.GetTimelineResponse) {
	s := tell(told)
	if len(s.events) == 0 {
		return
	}
	if picture := s.picture(); picture != "" {
		p.out.linef("")
		p.out.write([]byte(picture))
	}
	first := s.events[0].at
	rows := [][]cell{{{"AFTER", bold}, {"WHO", bold}, {"WHAT", bold}}}
	for _, e := range s.events {
		c := cell{text: safe(e.what)}
		if e.bad {
			c.tint = red
		}
		rows = append(rows, []cell{{text: "+" + brief(e.at.Sub(first))}, {text: safe(e.who)}, c})
	}
	p.out.linef("")
	p.out.write(layOut(rows, p.out.tinted))
	switch {
	case told.GetNode() == "":
		p.out.linef("its timeline is not told: it is for operators and readers, and of newer versions")
	case len(told.GetRecordings()) == 0:
		p.out.linef("no leader remembers more of it")
	case !told.GetLeading() && told.GetNode() != "":
		p.out.linef("told by %s, which does not lead: the leader may know more", told.GetNode())
	}
}
