package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
)

// closePatience bounds how long Close waits for the server to take leave of its
// connections: a node that gives up leadership must not wait for a server that
// hangs.
const closePatience = time.Second

// Driver opens PostgreSQL databases. Its registrations carry a [Config].
type Driver struct{}

var (
	_ participants.Driver = Driver{}
	_ participants.Prober = Driver{}
)

// Check implements participants.Driver.
func (Driver) Check(config []byte) error {
	_, err := parseConfig(config)
	return err
}

// Open implements participants.Driver. It does not wait for the database: what
// keeps that from taking part is looked for in the background, and logged until it
// is gone.
func (Driver) Open(_ context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	cfg, err := parseConfig(r.Config)
	if err != nil {
		return nil, err
	}
	p, err := open(r, cfg, log)
	if err != nil {
		return nil, err
	}
	p.start(usualPace())
	return p, nil
}

// participant is one open database. All its methods may be called from many
// goroutines at once.
type participant struct {
	// Set once by open.
	registration participants.Registration
	cfg          Config
	sql          marker.Postgres
	pool         *pgxpool.Pool
	// room bounds the connections of prepares: what they leave is for deliveries,
	// which free the locks that prepares wait for.
	room  chan struct{}
	log   hclog.Logger
	alarm *alarm

	fences fences
	fit    atomic.Bool // the answer of Recovers; written by tend

	// Of tend, the one goroutine that the participant owns; Close ends it and waits.
	stop   context.CancelFunc
	tended chan struct{}
}

var _ interface {
	participants.Participant
	participants.StatusReporter
} = (*participant)(nil)

func open(r participants.Registration, cfg Config, log hclog.Logger) (*participant, error) {
	sql, err := marker.NewPostgres(cfg.Schema)
	if err != nil {
		return nil, err
	}
	p := &participant{
		registration: r,
		cfg:          cfg,
		sql:          sql,
		room:         make(chan struct{}, cfg.MaxConnections-reserved(cfg.MaxConnections)),
		log:          log,
		alarm:        &alarm{log: log},
		fences:       newFences(),
		stop:         func() {},
	}
	p.pool, err = p.newPool(context.Background())
	return p, err
}

// reserved is how many of so many connections prepares leave to deliveries, which
// take any other that is free as well. They wait for nobody's locks, so that few do
// for all.
func reserved(connections int) int { return max(1, connections/8) }

// start begins what goes on in the background.
func (p *participant) start(pace pace) {
	ctx, stop := context.WithCancel(context.Background())
	p.stop, p.tended = stop, make(chan struct{})
	go func() {
		defer close(p.tended)
		p.tend(ctx, pace)
	}()
}

// Recovers implements participants.Participant: true once the database was seen to
// be fit. Its list of prepared transactions is complete by nature.
func (p *participant) Recovers() bool { return p.fit.Load() }

// Recover implements participants.Participant.
func (p *participant) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	const prepared = `SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, $1)`
	var found []participants.Branch
	err := p.with(ctx, func(s *session) error {
		found = nil
		a, err := s.query(ctx, prepared, marker.GIDPrefix(cluster))
		for _, r := range a.rows {
			if b, ok := marker.ParseGID(r.text(0)); ok && b.Cluster == cluster {
				found = append(found, participants.Branch{Cluster: cluster, TxID: b.TxID, Number: b.Number})
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	return found, nil
}

// Close implements participants.Participant. It waits for what goes on in the
// background, and a second for the connections.
func (p *participant) Close() error {
	p.stop()
	if p.tended != nil {
		<-p.tended
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		p.pool.Close()
	}()
	select {
	case <-closed:
		return nil
	case <-time.After(closePatience):
		return errors.New("the server takes long to close the connections; they are left to it")
	}
}

// nameOf holds a branch's name against what fits into a database.
func nameOf(b participants.Branch) (marker.Branch, error) {
	name := marker.Branch{Cluster: b.Cluster, TxID: b.TxID, Number: b.Number}
	return name, name.Validate()
}

// The pace at which something is tried again whose outcome only needs a moment:
// another copy of a prepare that is at its work, a commit that somebody else is
// about to finish.
const (
	firstPause = 2 * time.Millisecond
	mostPause  = 100 * time.Millisecond
)

// pause waits before the next try, each time longer; false means that the context
// has ended.
type pause time.Duration

func (w *pause) wait(ctx context.Context) bool {
	*w = min(max(2**w, pause(firstPause)), pause(mostPause))
	return sleep(ctx, time.Duration(*w))
}
