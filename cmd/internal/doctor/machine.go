package doctor

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
)

const (
	// A node holds at most 512 connections of peers, one for each client and each
	// participant, and some ten files: below leastFiles it may run out under load.
	leastFiles = 4096
	// Below fewFiles it runs out without.
	fewFiles = 768
)

func (e *exam) openFiles() {
	limit, known := fileLimit()
	remedy := "raise it: LimitNOFILE=65536 in the systemd unit, or ulimit -n 65536"
	switch {
	case !known:
		e.found("open files", "", Skip, "", "this system does not tell")
	case limit < fewFiles:
		e.found("open files", "", Fail, remedy, "at most %d files and connections; peers alone may take 512", limit)
	case limit < leastFiles:
		e.found("open files", "", Warn, remedy, "at most %d files and connections", limit)
	default:
		e.found("open files", "", OK, "", "at most %d", limit)
	}
}

// awake finds out whether this node runs: then it answers at its own Raft address.
func (e *exam) awake(ctx context.Context) {
	address := e.Config.AdvertisedRaft()
	if address == "" {
		return
	}
	g, err := e.greet(ctx, address)
	switch {
	case err != nil:
		e.found("node", e.Config.NodeID, OK, "", "does not run")
	case g.ID != e.Config.NodeID:
		e.found("node", e.Config.NodeID, Fail, "correct --node-id or --raft-addr", "node %s answers at %s", g.ID, address)
	default:
		e.running = true
		e.found("node", e.Config.NodeID, OK, "", "runs: %s", standing(g))
	}
	if err == nil {
		e.met = append(e.met, meeting{id: g.ID, address: address, greeting: g, self: e.running})
	}
}

// ports are free while the node does not run, and answer while it does.
func (e *exam) ports(ctx context.Context) {
	for _, l := range []struct{ setting, address string }{
		{"raft-addr", e.Config.RaftAddr}, {"grpc-addr", e.Config.GRPCAddr},
		{"http-addr", e.Config.HTTPAddr}, {"operator-addr", e.Config.OperatorAddr},
	} {
		if l.address == "" || strings.HasSuffix(l.address, ":0") {
			continue
		}
		if e.running {
			e.answers(ctx, l.setting, l.address)
		} else {
			e.free(l.setting, l.address)
		}
	}
}

func (e *exam) answers(ctx context.Context, setting, address string) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		e.found("port", setting, Fail, "is the running node configured like this?", "the node runs, and nobody answers at %s: %s", address, err)
		return
	}
	conn.Close()
	e.found("port", setting, OK, "", "%s answers", address)
}

func (e *exam) free(setting, address string) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.found("port", setting, Fail, "choose another with --"+setting+", or stop that process (ss -ltnp shows it)", "another process listens at %s", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.found("port", setting, Fail, "name an address of this machine, or 0.0.0.0", "%s is not an address of this machine", address)
	case errors.Is(err, syscall.EACCES):
		e.found("port", setting, Fail, "choose one above 1023, or give the process CAP_NET_BIND_SERVICE", "%s needs rights that this user does not have", address)
	case err != nil:
		e.found("port", setting, Fail, "correct --"+setting, "%s", err)
	default:
		l.Close()
		e.found("port", setting, OK, "", "%s is free", address)
	}
}
