package bankday

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/fleet"
)

const (
	// progressEvery is how often a person is told how it goes.
	progressEvery = time.Second
	// glance bounds a question to the cluster that is asked for the person's sake.
	glance = 500 * time.Millisecond
	// maxComplaints bounds the wrong answers that are told as they come; the audit
	// counts them all.
	maxComplaints = 10
	// inFlight is how long an answer that a leader gave before it died may take to
	// arrive; the first one after that is another leader's.
	inFlight = 50 * time.Millisecond
)

// shift is a part of the day: money moves, and then everything has to come to rest.
type shift struct {
	began, ended time.Time // the traffic
	rest         settling
}

// restAfter is how many failovers a shift has: to come to rest is promised at every
// moment, and the end of a long day is only one.
const restAfter = 25

// business moves money until the day is over or ctx ends, in shifts.
func (d *day) business(ctx context.Context) error {
	open, closing := context.WithTimeout(ctx, d.cfg.For)
	defer closing()
	d.close = closing
	d.out.say("%d workers move money for %s; some ask for more than there is", d.cfg.Workers, d.cfg.For)
	for over := false; !over; {
		if err := d.work(open, d.goal()); err != nil {
			return err
		}
		if ctx.Err() != nil {
			d.out.say("stopped early")
		}
		d.out.say("waiting until everything is delivered")
		rest := d.settle(context.WithoutCancel(ctx))
		d.shifts[len(d.shifts)-1].rest = rest
		enough := d.cfg.Failovers > 0 && d.reigns.failovers() >= d.cfg.Failovers
		over = open.Err() != nil || enough || rest.open != ""
	}
	return nil
}

// resolve asks for the outcomes that clients did not wait for. The answers may be
// new to the log, which then has to reach every node before it is audited.
func (d *day) resolve(ctx context.Context) {
	d.teller.Resolve(ctx)
	if rest := d.settle(ctx); rest.open != "" {
		d.shifts[len(d.shifts)-1].rest = rest
	}
}

// goal is how many failovers end a shift.
func (d *day) goal() int {
	goal := math.MaxInt
	if len(d.cfg.Faults) > 0 {
		goal = d.reigns.failovers() + restAfter
	}
	if d.cfg.Failovers > 0 {
		goal = min(goal, d.cfg.Failovers)
	}
	return goal
}

// work moves money until the shift is over or open ends, while others watch it, look
// into the books and make trouble.
func (d *day) work(open context.Context, goal int) error {
	shiftOpen, end := context.WithCancel(open)
	defer end()
	// The orders under way at the end are answered: open only stops new ones.
	running, stop := context.WithCancel(context.WithoutCancel(open))
	defer stop()
	besides := []func(context.Context) error{d.lookIntoBooks, d.killLeaders, d.suffer}
	failures := make(chan error, len(besides))
	var beside sync.WaitGroup
	beside.Go(func() { d.progress(running) })
	beside.Go(func() { d.watchReigns(running, goal, end) })
	for _, run := range besides {
		beside.Go(func() {
			err := run(running)
			if err != nil {
				stop() // nothing that follows would mean anything
			}
			failures <- err
		})
	}
	s := shift{began: time.Now()}
	next, err := d.teller.Run(running, d.traffic(shiftOpen.Done()), d.answered)
	s.ended = time.Now()
	d.next, d.shifts = next, append(d.shifts, s)
	stop()
	beside.Wait()
	close(failures)
	for failure := range failures {
		err = errors.Join(failure, err)
	}
	return err
}

// traffic is that of a shift.
func (d *day) traffic(enough <-chan struct{}) bank.Traffic {
	traffic := bank.Traffic{Seed: d.cfg.Seed, From: d.next, Enough: enough, Workers: d.cfg.Workers, Pace: d.cfg.Pace}
	if len(d.cfg.Faults) > 0 {
		traffic.MeddleEvery, traffic.Hasty = meddleEvery, hasty
	}
	return traffic
}

// answered watches the answers as they come.
func (d *day) answered(e bank.Entry) {
	d.watch.add(e)
	if e.Err != nil && len(d.cfg.Faults) > 0 {
		return // it is asked about in the end
	}
	if complaint := e.Check(); complaint != "" && d.watch.wrong() <= maxComplaints {
		d.out.say("WRONG: %s", complaint)
	}
}

// killLeaders kills the leader again and again, and brings it back once another
// has answered clients.
func (d *day) killLeaders(ctx context.Context) error {
	if d.cfg.KillLeaderEvery == 0 {
		return nil
	}
	tick := time.NewTicker(d.cfg.KillLeaderEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := d.killLeader(ctx); err != nil {
			if ctx.Err() != nil {
				return nil // the day is over; what it left undone is started below
			}
			return fmt.Errorf("kill a leader: %w", err)
		}
	}
}

func (d *day) killLeader(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	leader, err := d.awaitLeader(bounded)
	if err != nil {
		return err
	}
	if err := leader.Kill(); err != nil {
		return err
	}
	death := time.Now()
	var first time.Time
	err = poll(bounded, "an answer after the kill", func() (found bool, err error) {
		first, found = d.teller.Ledger.FirstAnswer(death.Add(inFlight))
		return found, nil
	})
	if restarted := leader.Start(); restarted != nil || err != nil {
		return errors.Join(restarted, err)
	}
	d.failovers = append(d.failovers, first.Sub(death))
	d.out.say("killed the leader, %s; the next client was answered %s later; %[1]s is back", leader.Name(), first.Sub(death).Round(time.Millisecond))
	return nil
}

// leader finds the node that says that it leads.
func (d *day) leader(ctx context.Context) (*fleet.Node, bool) {
	for _, n := range d.cluster {
		status, err := d.glance(ctx, n)
		if err == nil && status.GetLeader() == n.Name() && n.Alive() {
			return n, true
		}
	}
	return nil, false
}
