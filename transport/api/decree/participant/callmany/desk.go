package callmany

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

const (
	// maxIdle bounds the goroutines of a stream that wait for a next call: half a
	// megabyte or so of stacks. Past it a call costs a new one.
	maxIdle = 64
	// enough answers leave at once, even where more may follow within microseconds:
	// a larger message would cost hardly less for each.
	enough = 64
)

// call is one that was read and is not answered yet.
type call struct {
	*participantv1.Call
	ctx callContext
}

// desk is the work of one stream. A reader queues calls, workers carry them out, a
// sender takes the answers away; none waits for another, but at a bound.
//
// Two habits keep a call cheap. Of the workers only one at a time is on its way to
// the queue, and it sends for the next one before it begins: where handlers are
// quick a few goroutines do it all, and where they block there is soon one for each
// call. And answers wait for each other as long as calls are being picked up, which
// takes no longer than the processor does: no call that blocks holds them back.
type desk struct {
	// Set once.
	ctx     context.Context // ends with the stream
	handler Handler
	workers sync.WaitGroup

	mu sync.Mutex // guards all that follows

	open map[uint64]*call // queued or under way, by sequence
	owed int              // calls read of which no answer has left
	room sync.Cond        // owed has fallen, or the stream has ended

	queue  queue
	idle   int       // workers that wait
	coming bool      // a worker is on its way to the queue
	work   sync.Cond // for whom it waits; or no more calls will come
	last   bool      // no more calls will come

	answers []*participantv1.CallAnswer
	due     bool      // they should leave
	leave   sync.Cond // they are due, or no more will come
	done    bool      // no more answers will come
}

func newDesk(ctx context.Context, h Handler) *desk {
	d := &desk{ctx: ctx, handler: h, open: map[uint64]*call{}}
	d.room.L, d.work.L, d.leave.L = &d.mu, &d.mu, &d.mu
	return d
}

// take queues the calls of one message. It waits while Window calls have no answer,
// which a caller that heeds the window never meets, and fails when the stream ends.
func (d *desk) take(frame *participantv1.CallManyRequest) error {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, sequence := range frame.GetCancelled() {
		if c := d.open[sequence]; c != nil {
			c.ctx.end()
		}
	}
	for _, w := range frame.GetCalls() {
		for d.owed >= Window && d.ctx.Err() == nil {
			d.room.Wait()
		}
		if err := d.broken(); err != nil {
			return err
		}
		if d.open[w.GetSequence()] != nil {
			return errInUse(w.GetSequence())
		}
		complete(w, frame)
		c := &call{Call: w, ctx: callContext{stream: d.ctx}}
		if patience := w.GetPatienceUs(); patience > 0 {
			c.ctx.deadline = now.Add(microseconds(patience))
		}
		d.open[w.GetSequence()] = c
		d.owed++
		d.queue.push(c)
		d.sendForWorker()
	}
	return nil
}

// broken tells that the stream has ended before its time.
func (d *desk) broken() error {
	if err := d.ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return nil
}

// wakeReader lets a take that waits see that the stream has ended.
func (d *desk) wakeReader() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room.Broadcast()
}

// sendForWorker has a worker come where there is something to do and none is on its
// way. There are never more workers than calls in flight, or maxIdle. mu is held.
func (d *desk) sendForWorker() {
	if d.coming || d.queue.len() == 0 {
		return
	}
	d.coming = true
	if d.idle > 0 {
		d.work.Signal()
	} else {
		d.workers.Go(d.serve)
	}
}

// serve is a worker: it carries out calls until no more will come.
func (d *desk) serve() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.coming = false
	for d.await() {
		c := d.queue.pop()
		d.sendForWorker()
		if d.queue.len() == 0 {
			d.letLeave() // what this call makes of its time is not known
		}
		d.mu.Unlock()
		answer := c.carryOut(d.handler)
		d.mu.Lock()
		delete(d.open, c.GetSequence())
		d.answers = append(d.answers, answer)
		if d.queue.len() == 0 || len(d.answers) >= enough {
			d.letLeave()
		}
	}
}

// await waits for a call. False lets the worker go. mu is held.
func (d *desk) await() bool {
	for d.queue.len() == 0 {
		if d.last || d.idle >= maxIdle {
			return false
		}
		d.idle++
		d.work.Wait()
		d.idle--
		d.coming = false
	}
	return true
}

// finishCalls waits for the last call to end, and lets the sender go once the answers
// have left.
func (d *desk) finishCalls() {
	d.mu.Lock()
	d.last = true
	d.work.Broadcast()
	d.mu.Unlock()
	d.workers.Wait()
	d.mu.Lock()
	d.done = true
	d.leave.Signal()
	d.mu.Unlock()
}

// letLeave has the sender take the answers there are. mu is held.
func (d *desk) letLeave() {
	if len(d.answers) > 0 && !d.due {
		d.due = true
		d.leave.Signal()
	}
}

// send sends answers until there will be no more. It alone waits for the caller to
// read them.
func (d *desk) send(stream Stream) error {
	for {
		answers := d.collect()
		if answers == nil {
			return d.broken()
		}
		if err := stream.Send(&participantv1.CallManyResponse{Answers: answers}); err != nil {
			return err
		}
		d.sent(len(answers))
	}
}

// collect waits until answers are due. It returns nil when no more will come, or the
// stream has ended: what was cancelled for that reason is not an answer to anybody.
func (d *desk) collect() []*participantv1.CallAnswer {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.due && !d.done {
		d.leave.Wait()
	}
	if d.ctx.Err() != nil {
		return nil
	}
	answers := d.answers
	d.answers, d.due = nil, false
	return answers
}

func (d *desk) sent(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owed -= n
	d.room.Signal()
}

// queue is first in, first out.
type queue struct {
	calls []*call
	head  int
}

func (q *queue) len() int { return len(q.calls) - q.head }

func (q *queue) push(c *call) {
	if len(q.calls) == cap(q.calls) && q.head > 0 {
		n := copy(q.calls, q.calls[q.head:])
		clear(q.calls[n:])
		q.calls, q.head = q.calls[:n], 0
	}
	q.calls = append(q.calls, c)
}

func (q *queue) pop() *call {
	c := q.calls[q.head]
	q.calls[q.head] = nil
	q.head++
	return c
}
