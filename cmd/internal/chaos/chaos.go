// Package chaos plays the matrix of faults on real processes: at every step of the
// protocol, every fault that can befall a machine, on leader, follower and
// participant. The cells are enumerated, not drawn.
//
// It owns the matrix, the playing of a cell and the verdict. The faults are package
// faults', the traffic and the audits package bank's, the processes package
// fleet's, and the judgement of histories package history's. It needs a binary with
// the failpoints by which it holds a leader at a step, which a release has not. It
// reaches the cluster through transport/client, as a user would, and the
// participants' own files behind its back.
//
// For every cell it holds that the probe, which was held at the step, has the
// outcome that the fault allows, the same on all nodes (rule R1); that nothing was
// committed at a participant while that was undecided or told to nobody (R2); that
// what was said to all clients can be true of one decision a transaction; that
// nothing is left prepared (R7, R10), no branch went against its decision (R9), and
// the participants' books are what the log says, to the last coin.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/faults"
	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/transport/client"
)

const (
	// cellsPerGround bounds what is known of one cluster, of which every cell audits
	// all.
	cellsPerGround = 30
	// maxFailed ends a run: each failed cell keeps a directory, and more of them tell
	// little.
	maxFailed = 5
	// maxFailovers bounds a run to about a day.
	maxFailovers = 50_000
)

// Config says what of the matrix is played.
type Config struct {
	Binary string // path of a decree binary with failpoints
	// Only plays the cells that the pattern names, such as "after-votes/*/leader";
	// empty is the whole matrix.
	Only string
	// Slice begins with that part of the matrix. Every part has each fault with each
	// victim once.
	Slice int
	// Parts is how many parts are played; 0 is all.
	Parts int
	// Failovers plays the cells in which leaders fall again and again until so many
	// have.
	Failovers int
	// Round is the number of the first round. What a cell leaves open, such as which
	// follower, changes with it.
	Round int
	// Budget begins no cell after this time; 0 is none.
	Budget time.Duration
	// Require takes a cell that this machine can't play for a failed one.
	Require bool
	// LogStore is what the nodes keep their log in, boltdb or wal; empty is their
	// default.
	LogStore string
	// TLS has all processes and clients speak mutual TLS, with certificates that expire
	// and are replaced all the while.
	TLS  bool
	Seed uint64    // of the traffic
	Out  io.Writer // for people
}

// Validate reports everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.Only != "" {
		_, err := pick(Cells(), c.Only)
		errs = append(errs, err)
	}
	if c.Slice < 0 || c.Slice >= len(steps) {
		errs = append(errs, fmt.Errorf("slice %d: want 0 to %d", c.Slice, len(steps)-1))
	}
	if c.Parts < 0 || c.Parts > len(steps) {
		errs = append(errs, fmt.Errorf("parts %d: want 0 to %d", c.Parts, len(steps)))
	}
	if c.Failovers < 0 || c.Failovers > maxFailovers {
		errs = append(errs, fmt.Errorf("failovers %d: want 0 to %d", c.Failovers, maxFailovers))
	}
	if c.LogStore != "" && c.LogStore != "boltdb" && c.LogStore != "wal" {
		errs = append(errs, fmt.Errorf("log store %q: want boltdb or wal", c.LogStore))
	}
	if c.Round < 0 {
		errs = append(errs, fmt.Errorf("round %d: want 0 or more", c.Round))
	}
	if c.Budget < 0 {
		errs = append(errs, fmt.Errorf("budget %s: want 0 or more", c.Budget))
	}
	return errors.Join(errs...)
}

// cells are those of the first round, in the order in which they are played.
func (c Config) cells() []Cell {
	parts := c.Parts
	if parts == 0 {
		parts = len(steps)
	}
	var all []Cell
	for k := range parts {
		all = append(all, slice((c.Slice+k)%len(steps))...)
	}
	if c.Only == "" {
		return all
	}
	picked, err := pick(all, c.Only)
	if err != nil {
		return nil // not in these parts
	}
	return picked
}

// ErrWrong says that a cell failed, or that one was skipped which was required.
var ErrWrong = errors.New("not every cell is as it should be")

// Played is what came of playing a cell once.
type Played struct {
	Cell         Cell     `json:"cell"`
	Round        int      `json:"round"`
	Seconds      float64  `json:"seconds"`
	Failovers    int      `json:"failovers"`
	Transactions int      `json:"transactions"`
	Committed    int      `json:"committed"`
	Aborted      int      `json:"aborted"`
	Wrong        []string `json:"wrong,omitempty"`    // what was found
	Evidence     string   `json:"evidence,omitempty"` // the directory with all that is known of a wrong one

	found      bank.Findings
	violations []history.Violation
}

func (p *Played) count(entries []bank.Entry) {
	p.Transactions = len(entries)
	for _, e := range entries {
		switch {
		case e.Committed():
			p.Committed++
		case e.Err == nil && e.Result.Outcome == client.Aborted:
			p.Aborted++
		}
	}
}

// run is one run of the matrix.
type run struct {
	cfg    Config
	means  faults.Means
	began  time.Time
	ground *ground // that plays the next cell; nil where a new one has to
	result *Result
}

// Run plays the matrix. Where a cell fails, or one is skipped that is required, the
// error wraps ErrWrong, and the result tells which; with any other error it tells
// what there was until then. Nothing is left running or mounted, and of files only
// the directories of failed cells.
func Run(ctx context.Context, cfg Config) (_ *Result, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &run{cfg: cfg, began: time.Now(), result: newResult(cfg)}
	if r.means, err = faults.Probe(); err != nil {
		return nil, err
	}
	r.say("seed %d", cfg.Seed)
	err = errors.Join(r.rounds(ctx), r.leave())
	r.result.end(time.Since(r.began))
	r.result.print(cfg.Out)
	if err == nil && !r.result.Passed {
		err = fmt.Errorf("%w: %s", ErrWrong, r.result.verdict())
	}
	return r.result, err
}

// rounds plays all cells once, and then those in which leaders fall until enough
// have.
func (r *run) rounds(ctx context.Context) error {
	cells := r.cfg.cells()
	for round := r.cfg.Round; len(cells) > 0; round++ {
		before := r.result.Failovers
		for _, c := range cells {
			if r.over() || round > r.cfg.Round && r.result.Failovers >= r.cfg.Failovers {
				return nil
			}
			if why := c.skip(r.means); why != nil {
				r.result.skip(c, why)
				continue
			}
			if err := r.play(ctx, c, round); err != nil {
				return err
			}
		}
		if r.result.Failovers >= r.cfg.Failovers || round > r.cfg.Round && r.result.Failovers == before {
			return nil // there are enough, or there never will be
		}
		cells = deposing(cells)
	}
	return nil
}

func deposing(cells []Cell) []Cell {
	var kept []Cell
	for _, c := range cells {
		if c.deposes() {
			kept = append(kept, c)
		}
	}
	return kept
}

// over reports that no cell is begun any more.
func (r *run) over() bool {
	return r.result.Failed >= maxFailed || r.cfg.Budget > 0 && time.Since(r.began) > r.cfg.Budget
}

// play plays one cell, on a ground that has not played too many. One on which a
// cell failed is left: the next one would only fail on what that left.
func (r *run) play(ctx context.Context, c Cell, round int) (err error) {
	if r.ground == nil {
		if r.ground, err = newGround(ctx, r.cfg, r.means); err != nil {
			return err
		}
	}
	played, failure := r.ground.play(ctx, c, round, r.cfg.Seed)
	if ctx.Err() != nil {
		return ctx.Err() // it says nothing about the cell
	}
	if failure != nil {
		note(&played.found, "%v", failure)
	}
	played.Wrong = played.found.Texts
	if len(played.Wrong) > 0 {
		r.keep(&played)
	}
	r.result.add(played)
	r.tell(played)
	if r.ground.played++; r.ground.played >= cellsPerGround || len(played.Wrong) > 0 {
		return r.leave()
	}
	return nil
}

// leave ends the ground.
func (r *run) leave() error {
	if r.ground == nil {
		return nil
	}
	r.result.Expired += r.ground.papers.Expired()
	err := r.ground.close()
	r.ground = nil
	return err
}

// again is the command that plays a cell again as it was.
func (r *run) again(p Played) string {
	text := fmt.Sprintf("scripts/chaos.sh --only '%s' --round %d --seed %d", p.Cell, p.Round, r.cfg.Seed)
	if r.cfg.LogStore != "" {
		text += " --log-store " + r.cfg.LogStore
	}
	if r.cfg.TLS {
		text += " --tls"
	}
	return text
}

// keep leaves all that is known of a failed cell in its ground's directory: logs,
// the images of the disks, what was found, and the history.
func (r *run) keep(p *Played) {
	r.ground.fleet.Keep()
	dir := r.ground.fleet.Dir()
	p.Evidence = dir
	text := r.again(*p) + "\n" + strings.Join(p.Wrong, "\n") + "\n"
	err := errors.Join(
		history.Save(filepath.Join(dir, "history"), r.again(*p), r.ground.teller.History.Ops(), p.violations),
		os.WriteFile(filepath.Join(dir, "wrong.txt"), []byte(text), 0o644),
	)
	if err != nil {
		p.Wrong = append(p.Wrong, fmt.Sprintf("and no evidence: %v", err))
	}
}

// tell tells a person about a cell that was played.
func (r *run) tell(p Played) {
	word := "ok"
	if len(p.Wrong) > 0 {
		word = "FAILED"
	}
	r.say("%-36s %-6s %5.1fs  %3d transactions  %d failovers so far", p.Cell, word, p.Seconds, p.Transactions, r.result.Failovers)
	for _, text := range p.Wrong {
		r.say("  WRONG: %s", text)
	}
	if len(p.Wrong) > 0 {
		r.say("  all that is known is in %s; again: %s", p.Evidence, r.again(p))
	}
}

// say writes a line with the time since the start.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.cfg.Out, "[%7.1fs] %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...)) //nolint:errcheck // for a person who watches
}
