package mysql

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// Driver opens databases of MariaDB as participants. The zero Driver is ready for
// use.
type Driver struct{}

// Check implements participants.Driver.
func (Driver) Check(config []byte) error {
	_, err := parseConfig(config)
	return err
}

// Open implements participants.Driver. It neither connects nor resolves the DSN: a
// goroutine does, until it has seen that the database is fit.
func (Driver) Open(_ context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	c, err := parseConfig(r.Config)
	if err != nil {
		return nil, err
	}
	p, err := newParticipant(c, r.Identity, log)
	if err != nil {
		return nil, err
	}
	p.work.Go(p.inspect)
	p.work.Go(p.housekeep)
	return p, nil
}

// errandSessions bounds the sessions for everything but a branch's own work: they
// are lent for some milliseconds each, and commits of branches that this instance
// prepared need none.
const errandSessions = 8

// participant is a database that takes part.
type participant struct {
	// set once
	cfg      Config
	sql      marker.MySQL
	log      hclog.Logger
	branches *pool // sessions for branches, each for one at a time
	errands  *pool // sessions for short work of any other kind, which never wait for a lock
	books    *books
	fences   *fences
	onlooker *onlooker
	stop     context.CancelFunc
	ctx      context.Context // until Close
	work     sync.WaitGroup

	fit atomic.Bool // the database was seen to be fit once
}

func newParticipant(c Config, identity string, log hclog.Logger) (*participant, error) {
	sql, err := marker.NewMySQL(c.Schema)
	if err != nil {
		return nil, err
	}
	d := dialer{dsn: c.DSN, sql: sql, identity: identity, timeout: time.Duration(c.ConnectTimeout), log: log}
	patient := d
	patient.lockWait = int(time.Duration(c.LockTimeout) / time.Second)
	p := &participant{
		cfg:      c,
		sql:      sql,
		log:      log,
		branches: newPool(&patient, c.MaxConnections, "branches, which keep theirs until they end (max_connections),"),
		errands:  newPool(&d, errandSessions, "short work"),
		books:    newBooks(),
	}
	p.fences = newFences(p)
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.onlooker = newOnlooker(p.ctx, &p.work, p.errands)
	return p, nil
}

// errand lends a session for short work.
func (p *participant) errand(ctx context.Context, work func(*session) error) error {
	s, err := p.errands.take(ctx)
	if err != nil {
		return err
	}
	defer p.errands.put(s)
	return work(s)
}

// Recovers implements participants.Participant: XA RECOVER lists what is prepared,
// which is known once it was asked.
func (p *participant) Recovers() bool { return p.fit.Load() }

// Close implements participants.Participant. Branches that are prepared stay so;
// the server detaches them from their sessions.
func (p *participant) Close() error {
	p.stop()
	p.work.Wait()
	p.branches.close()
	p.errands.close()
	for _, s := range p.books.sessions() {
		s.close()
	}
	return nil
}

// errUnnamed answers phase two of a branch whose name the database could not hold.
// None such was ever prepared.
var errUnnamed = errors.New("no branch can have this name")

// name is a branch's name in the database.
func name(b participants.Branch) (marker.Branch, error) {
	m := marker.Branch{Cluster: b.Cluster, TxID: b.TxID, Number: b.Number}
	return m, m.Validate()
}
