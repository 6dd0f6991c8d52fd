package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

const (
	defaultWatchInterval = time.Second
	// leastWatchInterval keeps a watcher from being a load.
	leastWatchInterval = 100 * time.Millisecond
	// leastLook is how long a node may take to answer at least: one that is busy is not
	// shown as gone.
	leastLook = time.Second
)

// How a terminal is drawn on: another screen, without a cursor, whose lines do not wrap;
// and back to what was there before.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	homeCursor  = "\x1b[H"
	clearRight  = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// watchCluster shows the cluster in every interval until ctx ends: redrawn on a
// terminal, a line or an object after the other elsewhere.
func (p *program) watchCluster(ctx context.Context, c *client.Client, interval time.Duration) error {
	if interval < leastWatchInterval {
		return usagef("--interval %s: must be at least %s", interval, leastWatchInterval)
	}
	show, leave := p.frameShower()
	defer leave()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var before frame
	for ctx.Err() == nil && p.out.err == nil {
		now := p.lookAtAll(ctx, c, max(interval, leastLook))
		if ctx.Err() != nil {
			return nil // stopped, as it was meant to be
		}
		if err := show(now, before); err != nil {
			return err
		}
		before = now
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

// frame is the cluster at one moment, as every endpoint sees it.
type frame struct {
	at    time.Time
	views []nodeView
	best  *decreev1.StatusResponse
}

func (p *program) lookAtAll(ctx context.Context, c *client.Client, bound time.Duration) frame {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	views := make([]nodeView, len(p.dial.endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range p.dial.endpoints {
		asked.Go(func() { views[i] = look(ctx, c, endpoint) })
	}
	asked.Wait()
	return frame{time.Now(), views, bestView(views)}
}

// look asks one node for what goes on, or one of an older version for its status.
func look(ctx context.Context, c *client.Client, endpoint string) nodeView {
	live, err := c.Look(ctx, endpoint)
	if notOffered(err) {
		status, err := c.NodeStatus(ctx, endpoint)
		return nodeView{endpoint: endpoint, status: status, err: err}
	}
	return nodeView{endpoint, live.GetStatus(), live, err}
}

// frameShower gives how frames are shown, and what ends that.
func (p *program) frameShower() (show func(now, before frame) error, leave func()) {
	switch {
	case p.out.format == formatJSON:
		return func(now, _ frame) error { return p.statusJSON(now.best, now.views) }, func() {}
	case isTerminal(p.out.w):
		p.out.write([]byte(enterScreen))
		return func(now, before frame) error {
			p.out.write(onScreen(p.drawFrame(now, before), screenRows(p.out.w)))
			return nil
		}, func() { p.out.write([]byte(leaveScreen)) }
	default:
		return func(now, _ frame) error {
			p.out.linef("%s", now.line())
			return nil
		}, func() {}
	}
}

func screenRows(w any) int {
	const usual = 24
	if f, ok := w.(*os.File); ok {
		if _, rows, err := term.GetSize(int(f.Fd())); err == nil && rows > 0 { //nolint:gosec // a descriptor is small
			return rows
		}
	}
	return usual
}

// onScreen draws text over what is on the screen, as much of it as has room.
func onScreen(text []byte, rows int) []byte {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	lines = lines[:min(len(lines), rows)]
	return []byte(homeCursor + strings.Join(lines, clearRight+"\n") + clearRight + clearBelow)
}

// leading is the view of the node that drives transactions; nil while none is seen.
func (f frame) leading() *decreev1.View {
	for _, v := range f.views {
		if v.err == nil && v.live.GetLeading() {
			return v.live
		}
	}
	return nil
}

// oldest is how long ago the oldest unfinished transaction was staged, and which it is.
func (f frame) oldest() (age time.Duration, txid string) {
	for _, v := range f.views {
		if at := v.live.GetOldest(); v.err == nil && at != nil {
			if a := f.at.Sub(at.AsTime()); a > age {
				age, txid = a, v.live.GetOldestTxid()
			}
		}
	}
	return age, txid
}

func (f frame) answered() int {
	n := 0
	for _, v := range f.views {
		if v.err == nil {
			n++
		}
	}
	return n
}

// lag is how many entries a node is behind what is committed.
func lag(best, of *decreev1.StatusResponse) uint64 {
	return max(best.GetCommitIndex(), of.GetAppliedIndex()) - of.GetAppliedIndex()
}

func (f frame) worstLag() uint64 {
	worst := uint64(0)
	for _, v := range f.views {
		if v.err == nil {
			worst = max(worst, lag(f.best, v.status))
		}
	}
	return worst
}

// pulseText is the rate of decisions and how long they took; empty where no leader tells.
func pulseText(p *decreev1.Pulse) string {
	if p == nil {
		return ""
	}
	s := fmt.Sprintf("%.1f/s", p.GetPerSecond())
	if p.GetTransactions() > 0 {
		s += fmt.Sprintf(", p50 %s, p99 %s, %.1f%% aborted",
			brief(p.GetP50().AsDuration()), brief(p.GetP99().AsDuration()), 100*p.GetAbortShare())
	}
	return s
}

// line is a frame where lines stay.
func (f frame) line() string {
	parts := []string{
		shortTime(f.at), "leader " + cmp.Or(f.best.GetLeader(), "none"),
		fmt.Sprintf("nodes %d/%d", f.answered(), len(f.views)),
		"epoch " + strconv.FormatUint(f.best.GetEpoch(), 10),
		"unfinished " + strconv.FormatUint(f.best.GetUnfinished(), 10),
	}
	if age, _ := f.oldest(); age > 0 {
		parts = append(parts, "oldest "+brief(age))
	}
	if pulse := pulseText(f.leading().GetPulse()); pulse != "" {
		parts = append(parts, "decided "+pulse)
	}
	parts = append(parts, "lag "+strconv.FormatUint(f.worstLag(), 10))
	return strings.Join(parts, columnGap)
}

// drawFrame is a frame as text: the cluster, its nodes, and what its participants have
// before them.
func (p *program) drawFrame(now, before frame) []byte {
	unfinished := strconv.FormatUint(now.best.GetUnfinished(), 10)
	if age, txid := now.oldest(); age > 0 {
		unfinished += fmt.Sprintf(", the oldest for %s: %s", brief(age), txid)
	}
	damaged := ""
	if n := now.best.GetDamaged(); n > 0 {
		damaged = countOf(int(n), "transaction") + ": decree tx list --damaged" //nolint:gosec // a count
	}
	text := p.out.laidOutFields(
		"time", shortTime(now.at),
		"cluster", now.best.GetCluster(),
		"group", groupLine(now.best.GetGroup()),
		"leader", cmp.Or(now.best.GetLeader(), "none"),
		"epoch", strconv.FormatUint(now.best.GetEpoch(), 10),
		"decided", pulseText(now.leading().GetPulse()),
		"unfinished", unfinished,
		"damage", damaged,
	)
	text = append(text, '\n')
	text = append(text, p.out.laidOut(watchHeader, watchRows(now, before))...)
	if loads := now.leading().GetLoads(); len(loads) > 0 {
		text = append(text, '\n')
		text = append(text, p.out.laidOut(loadHeader, loadRows(loads))...)
	}
	return text
}

var watchHeader = []string{"NODE", "ROLE", "ENDPOINT", "APPLIED", "LAG", "ENTRIES/S", "DISK FREE", "VERSION", "ERROR"}

func watchRows(now, before frame) [][]string {
	roles := map[string]string{}
	for _, n := range now.best.GetNodes() {
		roles[n.GetId()] = role(n)
	}
	var rows [][]string
	for i, v := range now.views {
		if v.err != nil {
			rows = append(rows, []string{"", "", v.endpoint, "", "", "", "", "", strings.TrimPrefix(v.err.Error(), "decree: ")})
			continue
		}
		rate := ""
		if i < len(before.views) && before.views[i].err == nil && v.status.GetEntries() >= before.views[i].status.GetEntries() {
			entries := v.status.GetEntries() - before.views[i].status.GetEntries()
			rate = strconv.Itoa(int(float64(entries)/now.at.Sub(before.at).Seconds() + 0.5))
		}
		rows = append(rows, []string{
			v.status.GetNode(), cmp.Or(roles[v.status.GetNode()], "not a member"), v.endpoint,
			strconv.FormatUint(v.status.GetAppliedIndex(), 10), strconv.FormatUint(lag(now.best, v.status), 10),
			rate, diskRoom(v.status), v.status.GetVersion(), "",
		})
	}
	slices.SortStableFunc(rows, func(a, b []string) int { return strings.Compare(cmp.Or(a[0], "~"), cmp.Or(b[0], "~")) })
	return rows
}

var loadHeader = []string{"PARTICIPANT", "UNFINISHED", "PREPARING", "DELIVERING", "WAITING", "FAILURES", "PACE", "ERROR"}

func loadRows(loads []*decreev1.Load) [][]string {
	var rows [][]string
	for _, l := range loads {
		number := func(n uint32) string { return strconv.Itoa(int(n)) }
		pace, trouble := "", ""
		if d := l.GetPace().AsDuration(); d > 0 {
			pace = brief(d)
		}
		if l.GetDown() {
			trouble = "down"
		}
		rows = append(rows, []string{
			l.GetParticipant(), number(l.GetUnfinished()), number(l.GetPreparing()), number(l.GetDelivering()),
			number(l.GetPreparesWaiting() + l.GetDeliveriesWaiting()), number(l.GetFailures()), pace, trouble,
		})
	}
	return rows
}
