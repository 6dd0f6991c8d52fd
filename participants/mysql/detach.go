package mysql

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/decree-tx/decree/participants/marker"
)

// A branch stays attached to the session that prepared it. When that session
// ends, the server lets go of the branch in two steps, and between them XA COMMIT
// answers OK and commits nothing: the branch is then in nobody's list and keeps
// its locks until the server is restarted. In between, the session gives back its
// lock (GET_LOCK) and leaves the process list, so neither tells when it is over.
//
// What does tell is InnoDB's own list of transactions: the second step clears the
// connection from the transaction. So detach waits until that list, seen whole
// and fresh, names the session's connection no more.

const (
	// gonePause is between two looks at a session that was told to end. Most end
	// within a millisecond.
	gonePause = 2 * time.Millisecond
	// lookPause is a little longer than InnoDB's list stays as it was (0.1 s after
	// anybody has last read it).
	lookPause = 105 * time.Millisecond
)

// detach makes certain that the server holds a branch by itself, and no session
// does. It ends the session that does.
func (p *participant) detach(ctx context.Context, owner string) error {
	o, ok := marker.ParseMySQLOwner(owner)
	if !ok {
		return fmt.Errorf("the branch's row has the owner %.96q, which this release cannot read", owner)
	}
	gone := false
	err := p.errand(ctx, func(s *session) error {
		// A restarted server has forgotten its sessions, and gives their ids to others.
		if gone = s.owner.Started != o.Started; gone {
			return nil
		}
		return p.expel(ctx, s, o)
	})
	if err != nil || gone {
		return err
	}
	for {
		attached, err := p.onlooker.attached(ctx)
		if err != nil {
			return fmt.Errorf("wait for the branch's session to let go of it: %w", err)
		}
		if !attached[o.Connection] {
			return nil
		}
	}
}

// expel ends the session that a branch is attached to, and waits until it has
// given back its lock.
func (p *participant) expel(ctx context.Context, s *session, o marker.MySQLOwner) error {
	for killed := false; ; {
		row, err := s.row(ctx, "SELECT IS_USED_LOCK(?)", o.Lock)
		if err != nil {
			return err
		}
		var connection uint64
		if err := row.scan(&connection); err != nil {
			return err
		}
		if connection == 0 {
			return nil
		}
		if !killed {
			p.log.Warn("ending a session that holds a branch which is decided", "connection", connection)
			_, err := s.exec(ctx, fmt.Sprintf("KILL %d", connection))
			switch numberOf(err) {
			case errKillDenied:
				return fmt.Errorf("connection %d holds the branch and is another user's: let all of them log in as one, or GRANT CONNECTION ADMIN ON *.* to this one: %w", connection, err)
			case errNoSuchThread:
				err = nil
			}
			if err != nil {
				return err
			}
			killed = true
		}
		if err := sleep(ctx, gonePause); err != nil {
			return fmt.Errorf("the session that holds the branch (connection %d) was told to end and has not: %w", connection, err)
		}
	}
}

// lookTimeout bounds one look: a list that others read all the time never becomes
// fresh, and those who wait are to hear of it.
const lookTimeout = 10 * time.Second

// onlooker looks at InnoDB's list of transactions, for all who wait at the same
// time together: each look keeps the list from being made anew for a while.
type onlooker struct {
	// set once
	ctx     context.Context
	work    *sync.WaitGroup
	errands *pool
	turn    chan struct{} // held by the look under way

	last time.Time // when a look has ended; owned by the one under way

	mu   sync.Mutex
	next *glance // the look to come; nil where nobody waits
}

// glance is one look, which many wait for.
type glance struct {
	done chan struct{}
	// set before done is closed
	attached map[uint64]bool
	err      error
}

func newOnlooker(ctx context.Context, work *sync.WaitGroup, errands *pool) *onlooker {
	return &onlooker{ctx: ctx, work: work, errands: errands, turn: make(chan struct{}, 1)}
}

// attached is the set of connections that transactions are attached to, at some
// moment after the call began.
func (o *onlooker) attached(ctx context.Context) (map[uint64]bool, error) {
	g := o.join()
	select {
	case <-g.done:
		return g.attached, g.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (o *onlooker) join() *glance {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next == nil {
		g := &glance{done: make(chan struct{})}
		o.next = g
		o.work.Go(func() { o.look(g) })
	}
	return o.next
}

// look waits for its turn, and until the list may have been made anew; whoever
// comes in that time joins it.
func (o *onlooker) look(g *glance) {
	defer close(g.done)
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	ctx, cancel := context.WithTimeout(o.ctx, lookTimeout)
	defer cancel()
	pause := sleep(ctx, lookPause-time.Since(o.last))

	o.mu.Lock()
	o.next = nil
	o.mu.Unlock()
	if g.err = pause; g.err != nil {
		return
	}
	s, err := o.errands.take(ctx)
	if err != nil {
		g.err = err
		return
	}
	g.attached, g.err = fresh(ctx, s)
	o.errands.put(s)
	o.last = time.Now()
}

// fresh reads the list until it is one that was made for this reading.
//
// The reader's own transaction is in the list, with the text of the statement it
// is in. A list that holds that text with this reading's token is not an older
// one.
func fresh(ctx context.Context, s *session) (map[uint64]bool, error) {
	for {
		token := rand.Text()
		rows, err := s.query(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT;\n"+
			"SELECT /* "+token+" */ trx_mysql_thread_id, trx_query FROM information_schema.innodb_trx;\nCOMMIT")
		if err != nil {
			return nil, err
		}
		attached, isFresh := map[uint64]bool{}, false
		for _, r := range rows {
			var connection uint64
			var query string
			if err := r.scan(&connection, &query); err != nil {
				return nil, err
			}
			attached[connection] = true
			isFresh = isFresh || strings.Contains(query, token)
		}
		if isFresh {
			return attached, nil
		}
		if err := sleep(ctx, lookPause); err != nil {
			return nil, err
		}
	}
}
