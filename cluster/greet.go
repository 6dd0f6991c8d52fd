package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Greeting is what a node tells whoever asks at its Raft address.
type Greeting struct {
	ID          string
	RaftAddress string // at which it wants to be dialled
	APIAddress  string
	Phase       string   // empty, agreed, admitted, member or removed
	Members     []Member // of the configuration that its Raft uses, empty while it does not run
	Leader      bool     // by its own belief
	Term        uint64
	LastIndex   uint64
	DiskLow     bool
	// Clock is the node's wall clock when it answered, and RoundTrip how long question
	// and answer took, so that the clock was read at half of it, give or take the other
	// half (Cristian, 1989). The zero Clock is of a node that does not tell it.
	Clock     time.Time
	RoundTrip time.Duration
}

// Greet asks the node at a Raft address who it is, from outside: no node is needed. A nil
// network is TCP. The context bounds it, and five seconds do.
func Greet(ctx context.Context, network Network, to string) (Greeting, error) {
	if network == nil {
		network = tcp{}
	}
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	conn, err := network.Dial(ctx, to)
	if err != nil {
		return Greeting{}, fmt.Errorf("hello to %s: %w", to, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var a answer
	asked := time.Now()
	_, err = conn.Write([]byte{kindHello})
	err = errors.Join(err, writeFrame(conn, question{Version: helloVersion}))
	if err == nil {
		err = readFrame(conn, &a)
	}
	took := time.Since(asked)
	switch {
	case err != nil:
		return Greeting{}, fmt.Errorf("hello to %s: %w", to, errors.Join(ctx.Err(), err))
	case a.Version != helloVersion:
		return Greeting{}, fmt.Errorf("hello to %s: it speaks version %d, this program %d", to, a.Version, helloVersion)
	}
	g := Greeting{
		ID: a.ID, RaftAddress: a.RaftAddress, APIAddress: a.APIAddress, Phase: string(a.Phase), Members: a.Members,
		Leader: a.Leader, Term: a.Term, LastIndex: a.LastIndex, DiskLow: a.DiskLow, RoundTrip: took,
	}
	if a.Clock != 0 {
		g.Clock = time.Unix(0, a.Clock)
	}
	return g, nil
}

// InspectDir looks at a data directory as Open would, for the node with this id, and
// changes nothing: how far the disk has come, empty where it was never used. Errors are
// those of Open, [ErrDirInUse] among them.
func InspectDir(dir, id string) (phase string, err error) {
	remains, err := files{dir: dir}.Inspect()
	if err != nil || remains.Identity == nil && !remains.Used {
		return "", err
	}
	var me identity
	if remains.Identity != nil {
		if me, err = parseIdentity(remains.Identity, dir, id); err != nil {
			return "", err
		}
	}
	return string(me.Phase), mayOpen(me, remains.Identity == nil, remains.Used, dir)
}
