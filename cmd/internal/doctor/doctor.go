// Package doctor looks at everything that a coordinator node needs, before it runs and
// while it does, from the machine that it runs on: its configuration, its disk, the
// machine, its peers and their clocks, and the participants.
//
// It owns what is looked at, what is good enough and what to do where it is not. It
// repairs nothing, and writes nothing but a file in the data directory, which it removes.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/transport/client"
)

// Result is what a check came to.
type Result string

// The results.
const (
	OK   Result = "ok"
	Warn Result = "warn" // works, and should be mended
	Fail Result = "fail" // does not work, or would lose what was promised
	Skip Result = "skip" // could not be looked at
)

// Finding is what one check found of one subject.
type Finding struct {
	Check    string `json:"check"`
	Subject  string `json:"subject,omitempty"` // where a check has several
	Result   Result `json:"result"`
	Measured string `json:"measured"`
	Remedy   string `json:"remedy,omitempty"` // what to do; empty where nothing is to be done
}

// Patient is the node to look at.
type Patient struct {
	Config   config.Server
	Problems []*config.Problem // with the configuration
	Drivers  participants.Drivers
	Version  string          // of this binary
	Network  cluster.Network // to its peers' Raft addresses; nil is TCP
	// Connect makes a client of the nodes with these gRPC addresses.
	Connect func(endpoints []string) (*client.Client, error)
	Logger  hclog.Logger // of drivers
}

// callTimeout bounds one question to a peer or a participant: what takes longer is of no
// use to a transaction.
const callTimeout = 5 * time.Second

// Examine does every check and tells each finding as it is made, from one goroutine. It
// blocks until all are done or ctx ends.
func Examine(ctx context.Context, p Patient, tell func(Finding)) {
	e := &exam{Patient: p, tell: tell, began: time.Now()}
	e.configuration()
	e.disk()
	e.certificates(time.Now())
	e.openFiles()
	e.awake(ctx)
	e.ports(ctx)
	e.peers(ctx)
	e.clocks()
	e.api(ctx)
	e.participants(ctx)
}

// exam is one examination. It is owned by the goroutine that makes it.
type exam struct {
	Patient
	tell  func(Finding)
	began time.Time // with the monotonic clock

	fresh   bool              // the data directory was never used
	running bool              // this node answers at its Raft address
	met     []meeting         // with peers, in the order of their ids
	client  *client.Client    // of the nodes that answer; nil where none does
	apis    map[string]string // gRPC addresses by node id
	cluster string            // its id, as the nodes tell it
}

func (e *exam) found(check, subject string, r Result, remedy, format string, args ...any) {
	if r == OK {
		remedy = ""
	}
	e.tell(Finding{check, subject, r, fmt.Sprintf(format, args...), remedy})
}

func (e *exam) configuration() {
	for _, p := range e.Problems {
		e.found("config", "", Fail, "correct it; decree config check tells all mistakes", "%s", p.Error())
	}
	if len(e.Problems) == 0 {
		e.found("config", "", OK, "", "no mistakes")
	}
}
