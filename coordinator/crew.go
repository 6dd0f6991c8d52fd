package coordinator

import (
	"context"
	"sync"
	"time"
)

// maxIdle bounds the goroutines that wait for a next call: some 2 MB. Past it a
// call costs a new one.
const maxIdle = 256

// crew makes the calls of a term, on goroutines that stay for the next one: a fresh
// goroutine grows its stack again in every call to a driver.
type crew struct {
	work  *sync.WaitGroup // counts the goroutines
	ended <-chan struct{} // lets the idle ones go
	jobs  chan func()
	idle  chan struct{} // holds a token for each that waits
}

func newCrew(work *sync.WaitGroup, ended <-chan struct{}) *crew {
	return &crew{work: work, ended: ended, jobs: make(chan func()), idle: make(chan struct{}, maxIdle)}
}

// run has a job done at once. The term has not ended.
func (c *crew) run(job func()) {
	select {
	case c.jobs <- job:
	default:
		c.work.Go(func() { c.serve(job) })
	}
}

func (c *crew) serve(job func()) {
	for {
		job()
		select {
		case c.idle <- struct{}{}:
		default:
			return
		}
		select {
		case job = <-c.jobs:
			<-c.idle
		case <-c.ended:
			return
		}
	}
}

// patience gives out contexts that end a length of time from now, or up to a
// sixteenth of it later. Calls of about the same moment share one, since a timer and
// a link to the leadership cost more than many a call.
type patience struct {
	parent context.Context
	length time.Duration

	last   context.Context
	cancel context.CancelFunc // of last, which ends by itself
	fresh  time.Time          // until when last is given out
}

func (p *patience) at(now time.Time) context.Context {
	if p.last == nil || now.After(p.fresh) {
		spread := p.length / 16
		p.last, p.cancel = context.WithDeadline(p.parent, now.Add(p.length+spread))
		p.fresh = now.Add(spread)
	}
	return p.last
}
