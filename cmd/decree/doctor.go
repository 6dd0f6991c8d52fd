package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/cmd/internal/doctor"
	"github.com/decree-tx/decree/transport/certs"
	"github.com/decree-tx/decree/transport/client"
)

const doctorHelp = `Looks at everything that a node needs, from the machine that it runs on, before it is
started or while it runs. It takes the flags, variables and file of decree server.

  config        mistakes, as decree config check tells them
  data          the data directory: whose it is, and whether it can be written
  file system   memory, a network's and a container's own are no place for a log
  space         against --disk-headroom and --disk-reserve
  fsync         how long small synced writes take there
  certificate   the key, who signed it, whom it names, its hosts, and until when
  open files    the limit of files and connections
  node, port    whether the node runs, and its ports are free or answer
  peer          who answers at each other node's Raft address
  clock         against each peer's, with the error's bound, and whether it is steady
  api, version  who answers at each node's gRPC address, of which cluster and version
  participant   whether each can be reached from here, and is fit to take part: of a
                database that is its settings and the rights of its user

Every line says what was measured and, where something is to be done, what. The exit code
is 1 when a check fails; warnings leave it at 0. It writes nothing but a file in the data
directory, which it removes; a database's marker tables are made if they are missing.`

func (p *program) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "look at everything that a node needs, and say what to mend",
		Long:    doctorHelp,
		Example: "  decree doctor --config /etc/decree.yaml\n  sudo -u decree decree doctor --config /etc/decree.yaml -o json",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().SortFlags = false
	config.Register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, _, problems := config.Explain(cmd.Flags(), os.Environ(), foreignVariables())
		patient := doctor.Patient{
			Config: cfg, Problems: problems, Drivers: drivers(), Version: buildInfo().String(),
			Network: networkOf(cfg),
			Connect: func(endpoints []string) (*client.Client, error) {
				return client.New(client.Config{Endpoints: endpoints, Security: p.doctorSecurity(cfg)})
			},
			Logger: hclog.NewNullLogger(),
		}
		var report examination
		defer p.progress("examining")()
		doctor.Examine(cmd.Context(), patient, func(f doctor.Finding) {
			report.add(f)
			if p.out.format != formatJSON {
				p.showFinding(f)
			}
		})
		return p.diagnosis(report)
	}
	return cmd
}

// networkOf is how the node reaches its peers' Raft ports; nil is plain TCP, where it has
// no certificates that could be used, which is told by a check of their own.
func networkOf(cfg config.Server) cluster.Network {
	if !cfg.Secured() {
		return nil
	}
	files := certs.Files{CA: cfg.TLSCA, Certificate: cfg.TLSCert, Key: cfg.TLSKey}
	source, err := certs.OpenNode(files, hclog.NewNullLogger())
	if err != nil {
		return nil
	}
	return certs.Network{Source: source}
}

// doctorSecurity is who doctor is to the API: whom the environment names, as for other
// commands, else the node itself.
func (p *program) doctorSecurity(cfg config.Server) client.Security {
	var named dialFlags
	named.register(&cobra.Command{})
	if s := named.secured(); s != (client.Security{}) {
		return s
	}
	return client.Security{CA: cfg.TLSCA, Certificate: cfg.TLSCert, Key: cfg.TLSKey}
}

// examination is what doctor prints for programs.
type examination struct {
	OK     bool             `json:"ok"`
	Checks []doctor.Finding `json:"checks"`
	counts map[doctor.Result]int
}

func (e *examination) add(f doctor.Finding) {
	if e.counts == nil {
		e.counts = map[doctor.Result]int{}
	}
	e.counts[f.Result]++
	e.Checks = append(e.Checks, f)
}

var errAiling = errors.New("a check failed")

func (p *program) diagnosis(e examination) error {
	e.OK = e.counts[doctor.Fail] == 0
	if p.out.format == formatJSON {
		p.out.object(e)
	} else {
		var counts []string
		for _, r := range []doctor.Result{doctor.Fail, doctor.Warn, doctor.Skip, doctor.OK} {
			if n := e.counts[r]; n > 0 {
				counts = append(counts, fmt.Sprintf("%d %s", n, r))
			}
		}
		p.out.linef("%s", strings.Join(counts, ", "))
	}
	if !e.OK {
		return &toldError{errAiling}
	}
	return nil
}

// The columns of a finding have fixed widths, for findings are shown as they come.
const (
	resultWidth = 4
	checkWidth  = 12
)

func (p *program) showFinding(f doctor.Finding) {
	head := p.out.paint(tints["result"][string(f.Result)], fmt.Sprintf("%-*s", resultWidth, f.Result))
	text := f.Measured
	if f.Subject != "" {
		text = f.Subject + ": " + text
	}
	indent := strings.Repeat(" ", resultWidth+checkWidth+2*len(columnGap))
	line := head + columnGap + fmt.Sprintf("%-*s", checkWidth, f.Check) + columnGap + safe(text) + "\n"
	if f.Remedy != "" {
		line += indent + "-> " + safe(f.Remedy) + "\n"
	}
	p.out.write([]byte(line))
}
