package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/decree-tx/decree/participants"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// participants looks at every registered participant from here: any node may lead, so
// that every node must reach them all.
func (e *exam) participants(ctx context.Context) {
	if e.client == nil {
		e.found("participant", "", Skip, "run this again while a node runs", "no node answers that knows them")
		return
	}
	defer e.client.Close() //nolint:errcheck // nothing is under way
	asking, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := e.client.Participants(asking)
	if errors.Is(err, client.ErrDenied) {
		e.found("participant", "", Skip, "run this as an operator: DECREE_CA, DECREE_CERT and DECREE_KEY", "this node's certificate may not list them")
		return
	}
	if err != nil {
		e.found("participant", "", Skip, "run this again while a majority of the nodes runs", "they cannot be listed: %s", strings.TrimPrefix(err.Error(), "decree: "))
		return
	}
	for _, p := range all {
		e.participant(ctx, p)
	}
}

// embedded are the drivers whose resource is in the node's own process, and of which
// there is nothing to reach.
var embedded = map[string]bool{"kv": true, "sim": true}

func (e *exam) participant(ctx context.Context, p *decreev1.Participant) {
	name := p.GetName()
	if embedded[p.GetDriver()] {
		e.found("participant", name, Skip, "", "in the nodes' own processes (%s)", p.GetDriver())
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	seen, err := e.reach(ctx, p)
	if err != nil {
		e.found("participant", name, Fail, remedyOf(err), "%s", problemsOf(err))
		return
	}
	e.found("participant", name, OK, "", "%s", seen)
}

// reach looks at the resource itself where the driver can, and otherwise asks for what
// it holds prepared.
func (e *exam) reach(ctx context.Context, p *decreev1.Participant) (seen string, err error) {
	config, err := json.Marshal(p.GetConfig().AsMap())
	if err != nil {
		return "", err
	}
	r := participants.Registration{Name: p.GetName(), Driver: p.GetDriver(), Config: config, Identity: p.GetIdentity(), Revision: p.GetRevision()}
	if err := e.Drivers.Check(r); err != nil {
		return "", err
	}
	if _, probes := e.Drivers[p.GetDriver()].(participants.Prober); probes {
		probed, err := e.Drivers.Probe(ctx, r, e.Logger)
		return "reachable and fit: " + probed.Identity, err
	}
	open, err := e.Drivers.Open(ctx, r, e.Logger)
	if err != nil {
		return "", err
	}
	prepared, err := open.Recover(ctx, e.cluster)
	return fmt.Sprintf("answers, and holds %d prepared", len(prepared)), errors.Join(err, open.Close())
}

// problemsOf puts what a driver found on one line.
func problemsOf(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// remedyOf says what to do about a participant: a driver that found its resource unfit
// names the line to change itself.
func remedyOf(err error) string {
	switch {
	case errors.Is(err, participants.ErrUnknownDriver):
		return "run the version that the other nodes run"
	case errors.Is(err, context.DeadlineExceeded):
		return "let this machine reach it, as any node may lead"
	case strings.Contains(err.Error(), "env:"):
		return "run this with the environment of the server (EnvironmentFile of its unit)"
	default:
		return "mend what it says, and see decree participant show for its configuration"
	}
}
