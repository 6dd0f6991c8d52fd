package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/cmd/internal/daemon"
	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/cmd/internal/papers"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// devNodes is how many nodes dev runs: the fewest that survive one.
const devNodes = 3

// devFlags are what dev can be told.
type devFlags struct {
	dir      string
	port     int
	logLevel string
	tls      bool
}

func (p *program) devCommand() *cobra.Command {
	var flags devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "run three nodes and a few participants here, to try decree",
		Long: `Runs a cluster of three nodes in this process, with three participants: bank-a and
bank-b keep numbers and text under keys, durably, and courier is a simulated service.
Prints what to type in another terminal. Stop it with ctrl-C.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.port != 0 && (flags.port < 1 || flags.port > maxBasePort) {
				return usagef("--port %d: want 1 to %d, or 0 for any free ports", flags.port, maxBasePort)
			}
			if flags.port == 0 && flags.dir != "" {
				return usagef("--port 0 with --data-dir: a cluster that is kept needs ports that stay the same")
			}
			if hclog.LevelFromString(flags.logLevel) == hclog.NoLevel {
				return usagef("--log-level %q: want trace, debug, info, warn, error or off", flags.logLevel)
			}
			return p.dev(cmd.Context(), flags)
		},
	}
	cmd.Flags().StringVar(&flags.dir, "data-dir", "", "keep data in this `directory` (default: a temporary one, removed at the end)")
	cmd.Flags().IntVar(&flags.port, "port", 7100, "serve gRPC at `port`+1 to +3, HTTP at +101 to +103, Raft at +201 to +203, metrics at +401 to +403; 0 for any free ports")
	cmd.Flags().BoolVar(&flags.tls, "tls", false, "have nodes and clients speak mutual TLS, with certificates that are made for it")
	cmd.Flags().StringVar(&flags.logLevel, "log-level", "off", "trace, debug, info, warn, error or off")
	return cmd
}

// maxBasePort leaves room for the ports that are counted from it.
const maxBasePort = 65000

func (p *program) dev(ctx context.Context, flags devFlags) (err error) {
	dir, cleanup, err := devDirectory(flags.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()

	made, err := devPapers(flags, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, made.Close()) }()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	daemons, err := p.openDev(ctx, flags, dir, made)
	if err != nil {
		if ctx.Err() != nil {
			return nil // it was stopped while it started
		}
		return err
	}
	ended := make(chan error, len(daemons))
	for _, d := range daemons {
		go func() { ended <- d.Run(ctx) }()
	}
	err = p.introduce(ctx, daemons, dir, made)
	if err == nil {
		<-ctx.Done()
		if p.out.format != formatJSON {
			p.out.linef("stopping")
		}
	} else if ctx.Err() != nil {
		err = nil
	}
	stop()
	for range daemons {
		err = errors.Join(err, <-ended)
	}
	return err
}

// devDirectory is the data directory, and what becomes of it at the end.
func devDirectory(asked string) (dir string, cleanup func() error, err error) {
	if asked == "" {
		dir, err = os.MkdirTemp("", "decree-dev-")
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(asked); err != nil {
		return "", nil, err
	}
	return dir, func() error { return nil }, os.MkdirAll(dir, 0o755)
}

// devPapers makes certificates, anew at each start: nothing of an older one is good for
// anything.
func devPapers(flags devFlags, dir string) (*papers.Papers, error) {
	if !flags.tls {
		return nil, nil
	}
	own := filepath.Join(dir, "dev-tls")
	if err := os.RemoveAll(own); err != nil {
		return nil, err
	}
	return papers.New(papers.Config{Dir: own, Life: papers.Lasting, Nodes: fleet.NodeIDs(devNodes)})
}

// openDev opens the nodes side by side: on a first start each waits for the
// others.
func (p *program) openDev(ctx context.Context, flags devFlags, dir string, of *papers.Papers) ([]*daemon.Daemon, error) {
	configs, err := devConfigs(flags, dir, of)
	if err != nil {
		return nil, err
	}
	logger, levels := newLogger(p.stderr, flags.logLevel, "text")
	options := daemon.Options{
		Drivers: drivers(), // shared, so that embedded participants are the same for all nodes
		Logger:  logger,
		Levels:  levels,
		Version: buildInfo().String(),
		Exit:    p.die,
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	daemons := make([]*daemon.Daemon, len(configs))
	failures := make([]error, len(configs))
	var opening sync.WaitGroup
	for i, cfg := range configs {
		opening.Go(func() {
			if daemons[i], failures[i] = daemon.Open(ctx, cfg, options); failures[i] != nil {
				cancel() // the others would wait for this one
			}
		})
	}
	opening.Wait()
	if err := firstCause(failures); err != nil {
		for _, d := range daemons {
			if d != nil {
				d.Abandon()
			}
		}
		return nil, err
	}
	return daemons, nil
}

// firstCause drops the errors of nodes that were only told to stop waiting.
func firstCause(failures []error) error {
	var causes []error
	for _, err := range failures {
		if err != nil && !errors.Is(err, context.Canceled) {
			causes = append(causes, err)
		}
	}
	if len(causes) > 0 {
		return errors.Join(causes...)
	}
	return errors.Join(failures...)
}

func devConfigs(flags devFlags, dir string, of *papers.Papers) ([]config.Server, error) {
	address := func(block, node int) string {
		if flags.port == 0 {
			return "127.0.0.1:0"
		}
		return fmt.Sprintf("127.0.0.1:%d", flags.port+block+node)
	}
	raft := make([]string, devNodes)
	for i := range raft {
		raft[i] = address(200, i+1)
	}
	if flags.port == 0 {
		// Peers must know one another's addresses before any of them listens.
		var err error
		if raft, err = freeAddresses(devNodes); err != nil {
			return nil, err
		}
	}
	var peers config.Peers
	for i := range devNodes {
		peers = append(peers, config.Peer{ID: fmt.Sprintf("n%d", i+1), Addr: raft[i]})
	}
	var configs []config.Server
	for i, peer := range peers {
		cfg := config.Default()
		cfg.NodeID = peer.ID
		cfg.DataDir = filepath.Join(dir, peer.ID)
		cfg.Peers = peers
		cfg.RaftAddr = peer.Addr
		cfg.GRPCAddr = address(0, i+1)
		cfg.HTTPAddr = address(100, i+1)
		cfg.OperatorAddr = address(400, i+1)
		files := of.NodeFiles(peer.ID)
		cfg.TLSCA, cfg.TLSCert, cfg.TLSKey = files.CA, files.Certificate, files.Key
		configs = append(configs, cfg)
	}
	return configs, nil
}

// introduce registers the participants and prints what to do with all this.
func (p *program) introduce(ctx context.Context, daemons []*daemon.Daemon, dir string, of *papers.Papers) error {
	var endpoints []string
	for _, d := range daemons {
		endpoints = append(endpoints, d.GRPC.String())
	}
	c, err := client.New(client.Config{Endpoints: endpoints, Security: of.Operator()})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is under way
	bounded, cancel := context.WithTimeout(ctx, defaultPatience)
	defer cancel()
	for _, participant := range devParticipants(dir) {
		if _, err := c.PutParticipant(bounded, participant); err != nil {
			return fmt.Errorf("register %s: %w", participant.GetName(), err)
		}
	}
	if p.out.format == formatJSON {
		p.out.object(devReport(daemons, dir, of))
	} else {
		p.out.write([]byte(p.introduction(daemons, endpoints, dir, of)))
	}
	return nil
}

// devReport is the introduction for programs.
func devReport(daemons []*daemon.Daemon, dir string, of *papers.Papers) any {
	type node struct {
		ID   string `json:"id"`
		GRPC string `json:"grpc"`
		HTTP string `json:"http"`
	}
	report := struct {
		Nodes        []node   `json:"nodes"`
		Participants []string `json:"participants"`
		Data         string   `json:"data"`
		CA           string   `json:"ca,omitempty"` // with the two that follow, what clients say who they are by
		Certificate  string   `json:"certificate,omitempty"`
		Key          string   `json:"key,omitempty"`
	}{Data: dir, CA: of.Operator().CA, Certificate: of.Operator().Certificate, Key: of.Operator().Key}
	for i, d := range daemons {
		report.Nodes = append(report.Nodes, node{fmt.Sprintf("n%d", i+1), d.GRPC.String(), d.HTTP.String()})
	}
	for _, participant := range devParticipants(dir) {
		report.Participants = append(report.Participants, participant.GetName())
	}
	return report
}

func devParticipants(dir string) []*decreev1.Participant {
	bank := func(name string) *decreev1.Participant {
		path := structpb.NewStringValue(filepath.Join(dir, name+".db"))
		return &decreev1.Participant{Name: name, Driver: "kv", Config: &structpb.Struct{Fields: map[string]*structpb.Value{"path": path}}}
	}
	delay := structpb.NewStringValue("100ms")
	courier := &structpb.Struct{Fields: map[string]*structpb.Value{"delay_max": delay}}
	return []*decreev1.Participant{
		bank("bank-a"), bank("bank-b"), {Name: "courier", Driver: "sim", Config: courier},
	}
}

func (p *program) introduction(daemons []*daemon.Daemon, endpoints []string, dir string, of *papers.Papers) string {
	scheme, curl := "http", "curl -s"
	if of != nil {
		scheme, curl = "https", fmt.Sprintf(`curl -s --cacert "$%s" --cert "$%s" --key "$%s"`, caEnv, certEnv, keyEnv)
	}
	var b strings.Builder
	b.WriteString("Three nodes run here:\n\n")
	for i, d := range daemons {
		fmt.Fprintf(&b, "  n%d  gRPC %s  HTTP %s://%s\n", i+1, d.GRPC, scheme, d.HTTP)
	}
	fmt.Fprintf(&b, "\nParticipants: bank-a and bank-b (kv), courier (sim). Data in %s\n", safe(dir))
	b.WriteString("\nIn another terminal:\n\n")
	if all := strings.Join(endpoints, ","); all != defaultEndpoints {
		fmt.Fprintf(&b, "  export %s=%s\n", endpointsEnv, all)
	}
	for _, variable := range of.Look() {
		fmt.Fprintf(&b, "  export %s\n", safe(variable))
	}
	b.WriteString(strings.NewReplacer(
		"DECREE", safe(os.Args[0]), "CURL", curl,
		"HTTP1", scheme+"://"+daemons[0].HTTP.String(), "HTTP2", scheme+"://"+daemons[1].HTTP.String(),
	).Replace(devExamples))
	return b.String()
}

// devExamples give alice money, move some of it, try to move too much, and do the
// same by HTTP, at any node. The words in capitals are replaced.
const devExamples = `  DECREE tx submit --branch bank-a='{"ops":[{"op":"add","key":"alice","amount":100}]}'
  DECREE tx submit --branch bank-a='{"ops":[{"op":"add","key":"alice","amount":-30,"min":0}]}' \
                   --branch bank-b='{"ops":[{"op":"add","key":"bob","amount":30}]}'
  DECREE tx submit --branch bank-a='{"ops":[{"op":"add","key":"alice","amount":-500,"min":0}]}' \
                   --branch bank-b='{"ops":[{"op":"add","key":"bob","amount":500}]}'
  DECREE tx list
  DECREE cluster status
  DECREE cluster transfer-leader

  CURL HTTP1/v1/transactions -d '{"branches":[
    {"participant":"bank-a","json":{"ops":[{"op":"add","key":"alice","amount":-10,"min":0}]}},
    {"participant":"courier","json":{"parcel":"to bob"}}]}'
  CURL HTTP2/v1/transactions

Stop with ctrl-C.
`
