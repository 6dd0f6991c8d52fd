package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decree-tx/decree/cluster"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

const (
	// greetings is how often a node is asked for its clock.
	greetings = 3
	// A new leader goes on with its own clock, by which cluster time jumps: from
	// offClock on it shows.
	offClock = time.Second
	// badClock leaves clients little of the five minutes that a txid may be ahead of
	// cluster time (rule R11).
	badClock = 2 * time.Minute
	// clockJump is more than a clock is slewed by while an examination lasts.
	clockJump = 250 * time.Millisecond
)

// meeting is what came of asking one node.
type meeting struct {
	id, address string // as this node knows it
	self        bool
	greeting
	err error
}

// greeting is a node's with the time here when its clock was read.
type greeting struct {
	cluster.Greeting
	heard time.Time
}

// greet asks a node who it is, a few times: the quickest answer tells its clock best.
func (e *exam) greet(ctx context.Context, address string) (best greeting, err error) {
	for range greetings {
		g, err := cluster.Greet(ctx, e.Network, address)
		if err != nil {
			return greeting{}, err
		}
		if best.RoundTrip == 0 || g.RoundTrip < best.RoundTrip {
			best = greeting{g, time.Now().Add(-g.RoundTrip / 2)}
		}
	}
	return best, nil
}

// standing is what a node says of itself, in words.
func standing(g greeting) string {
	role := g.Phase
	switch {
	case g.Leader:
		role = "leader"
	case g.Phase == "empty":
		role = "waits for its first start"
	}
	s := fmt.Sprintf("%s, term %d, last entry %d", role, g.Term, g.LastIndex)
	if g.DiskLow {
		s += ", its disk is nearly full"
	}
	return s
}

// peers meets every other member, side by side.
func (e *exam) peers(ctx context.Context) {
	others := e.members()
	found := make([]meeting, len(others))
	var meet sync.WaitGroup
	for i, id := range slices.Sorted(maps.Keys(others)) {
		meet.Go(func() {
			m := meeting{id: id, address: others[id]}
			m.greeting, m.err = e.greet(ctx, m.address)
			found[i] = m
		})
	}
	meet.Wait()
	alone := !slices.ContainsFunc(found, func(m meeting) bool { return m.err == nil })
	for _, m := range found {
		e.judgePeer(m, alone)
	}
	e.met = append(e.met, found...)
}

// members are the other nodes' Raft addresses: those that are configured, and those that
// this node's Raft knows, which are right where they differ.
func (e *exam) members() map[string]string {
	others := map[string]string{}
	for _, p := range e.Config.Peers {
		others[p.ID] = p.Addr
	}
	for _, m := range e.met {
		if len(m.Members) > 0 {
			clear(others)
		}
		for _, member := range m.Members {
			others[member.ID] = member.RaftAddress
		}
	}
	delete(others, e.Config.NodeID)
	return others
}

func (e *exam) judgePeer(m meeting, alone bool) {
	knowsUs := slices.ContainsFunc(m.Members, func(member cluster.Member) bool { return member.ID == e.Config.NodeID })
	switch {
	case m.err != nil && alone && e.fresh:
		e.found("peer", m.id, Warn, "start it: the first start needs all of them", "%s does not answer (%s)", m.address, cause(m.err))
	case m.err != nil:
		e.found("peer", m.id, Fail, fmt.Sprintf("start it, and let TCP to %s through", m.address), "%s does not answer (%s)", m.address, cause(m.err))
	case m.ID != m.id:
		e.found("peer", m.id, Fail, "correct --peers, or that node's --raft-addr", "node %s answers at %s", m.ID, m.address)
	case m.Phase == "removed":
		e.found("peer", m.id, Fail, "take it out of --peers, or bring it back under a new id", "was removed from the cluster")
	case len(m.Members) > 0 && !knowsUs:
		e.found("peer", m.id, Fail, "admit this node: decree cluster add "+e.Config.NodeID+" "+e.Config.AdvertisedRaft()+", or correct --peers",
			"is of a cluster that does not know %s", e.Config.NodeID)
	default:
		e.found("peer", m.id, OK, "", "%s answers in %s: %s", m.address, short(m.RoundTrip), standing(m.greeting))
	}
}

// cause is the innermost error, which is what people look for.
func cause(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}

// clocks compares this machine's clock with its peers', and with itself.
func (e *exam) clocks() {
	for _, m := range e.met {
		if m.err != nil || m.self {
			continue
		}
		if m.Clock.IsZero() {
			e.found("clock", m.ID, Skip, "", "does not tell its clock: an older version")
			continue
		}
		ahead, give := m.Clock.Sub(m.heard.Round(0)), m.RoundTrip/2
		r, remedy := judgeClock(ahead, give)
		e.found("clock", m.ID, r, remedy, "%s, give or take %s", offset(ahead), short(give))
	}
	e.steady(time.Now())
}

// judgeClock judges how far a peer's clock is ahead of this one, which is known to
// within give.
func judgeClock(ahead, give time.Duration) (Result, string) {
	certain := ahead.Abs() - give
	remedy := "synchronise both machines' clocks (chrony, systemd-timesyncd)"
	switch {
	case certain > badClock:
		return Fail, remedy + ": txids of clients whose clock is five minutes ahead of the leader's are refused"
	case certain > offClock:
		return Warn, remedy + ": cluster time jumps when another node leads"
	default:
		return OK, ""
	}
}

func offset(ahead time.Duration) string {
	if ahead < 0 {
		return short(-ahead) + " behind this one"
	}
	return short(ahead) + " ahead of this one"
}

// steady holds the wall clock against the monotonic one, since the examination began.
func (e *exam) steady(now time.Time) {
	e.steadyBy(now.Round(0).Sub(e.began.Round(0)), now.Sub(e.began))
}

func (e *exam) steadyBy(wall, monotonic time.Duration) {
	if moved := wall - monotonic; moved.Abs() > clockJump {
		e.found("clock", "", Warn, "let it be slewed, and not set, while a node runs", "was set by %s while this looked on", short(moved))
		return
	}
	e.found("clock", "", OK, "", "steady for %s", short(monotonic))
}

// api asks every node that answers for its status: is it one cluster, and one version?
func (e *exam) api(ctx context.Context) {
	e.apis = map[string]string{}
	for _, m := range e.met {
		if m.err == nil && m.APIAddress != "" {
			e.apis[m.ID] = m.APIAddress
		}
	}
	if len(e.apis) == 0 {
		return
	}
	c, err := e.Connect(slices.Sorted(maps.Values(e.apis)))
	if err != nil {
		e.found("api", "", Fail, "correct --grpc-advertise of the nodes", "%s", err)
		return
	}
	e.client = c
	var answers []*decreev1.StatusResponse
	for _, id := range slices.Sorted(maps.Keys(e.apis)) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		s, err := c.NodeStatus(ctx, e.apis[id])
		cancel()
		if e.judgeAPI(id, s, err, answers) {
			answers = append(answers, s)
			e.cluster = cmp.Or(e.cluster, s.GetCluster())
		}
	}
	e.versions(answers)
}

// judgeAPI tells whether the node behind a gRPC address is the one that was meant.
func (e *exam) judgeAPI(id string, s *decreev1.StatusResponse, err error, before []*decreev1.StatusResponse) bool {
	address := e.apis[id]
	switch {
	case err != nil:
		e.found("api", id, Fail, fmt.Sprintf("let TCP to %s through, or correct that node's --grpc-advertise", address),
			"%s does not answer (%s)", address, strings.TrimPrefix(err.Error(), "decree: "))
		return false
	case s.GetNode() != id:
		e.found("api", id, Fail, "correct its --grpc-advertise: followers forward calls there", "node %s answers at %s", s.GetNode(), address)
		return false
	}
	for _, other := range before {
		if a, b := other.GetCluster(), s.GetCluster(); a != "" && b != "" && a != b {
			e.found("api", id, Fail, "two clusters are mixed up: correct --peers, and never merge them",
				"is of cluster %s, %s of cluster %s", b, other.GetNode(), a)
			return false
		}
	}
	if s.GetDiskLow() {
		e.found("api", id, Warn, "make room on its disk", "%s answers; its disk is nearly full", address)
		return true
	}
	e.found("api", id, OK, "", "%s answers, of cluster %s", address, s.GetCluster())
	return true
}

// versions holds the nodes' versions against one another and this binary's.
func (e *exam) versions(answers []*decreev1.StatusResponse) {
	nodes := map[string][]string{}
	for _, s := range answers {
		nodes[s.GetVersion()] = append(nodes[s.GetVersion()], s.GetNode())
	}
	var each []string
	for _, v := range slices.Sorted(maps.Keys(nodes)) {
		each = append(each, fmt.Sprintf("%s runs %s", strings.Join(nodes[v], ", "), v))
	}
	_, same := nodes[e.Version]
	switch {
	case len(answers) == 0:
	case len(nodes) > 1:
		e.found("version", "", Warn, "finish the upgrade, node by node", "%s", strings.Join(each, "; "))
	case !same:
		e.found("version", "", Warn, "upgrade or downgrade this binary before this node is started with it", "%s, this is %s", each[0], e.Version)
	default:
		e.found("version", "", OK, "", "all run %s", e.Version)
	}
}
