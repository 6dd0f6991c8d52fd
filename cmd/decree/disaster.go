package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator/node"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

// What a restore and a recovery have in common: an older state begins a new life, and
// the person who wants that is told what it costs.

const lostHelp = `What is lost, and what that means:

  - Every decision that is not in the state is LOST. Clients were told of it, and
    participants may have carried it out; the cluster no longer knows.
  - So the cluster presumes nothing of that time, up to now plus --skew: whoever asks
    about a txid of it that is not known is told that an operator must resolve it, a
    retry is refused, prepared branches stay prepared, with their locks. Transactions
    that are undecided in the state are not driven on: they may be decided.
  - "decree tx unresolved" lists all of that with what the participants can prove, and
    "decree tx decide" ends it.
  - Until now plus --skew no new transaction is run, for its txid could be an old one.

Nodes from before must not run any more. The new cluster has the same id and an epoch
above all that were seen, so that participants refuse the old one, which however cannot
know. The others begin with empty directories, and are added one by one.`

const restoreHelp = `Makes the data directory of one node from a saved file, as a cluster of one. It needs no
server, and the directory must be empty or missing.

` + lostHelp

const recoverHelp = `Makes a cluster of one node out of a node that is left, where a majority of the others is
lost for good. The node must not run. What its directory held is kept beside the new.

If a majority can still be brought back, do that instead: nothing is lost then. If there
are several survivors, take the one with the last entry of the greatest term, and of
those the one with the most entries, as this command tells before it asks.

Decisions in its last entries may never have been made, where other nodes went on without
it. They count as undecided, and an operator decides them like what is lost.

` + lostHelp

// rebirth is what both commands are told.
type rebirth struct {
	dir, advertise string
	skew           time.Duration
	epoch          uint64
	yes            bool
}

func (r *rebirth) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&r.advertise, "raft-advertise", "", "`host:port` at which other nodes will reach this one")
	flags.DurationVar(&r.skew, "skew", txn.MaxSkew, "how far clients' clocks may have been ahead")
	flags.Uint64Var(&r.epoch, "epoch", 0, "begin above this `epoch`, where participants have seen one that lies beyond the clock's")
	flags.BoolVar(&r.yes, "yes", false, "do not ask")
}

func (r *rebirth) check() error {
	if r.skew < 0 || r.skew > txn.MaxSkew {
		return usagef("--skew %s: want 0 to %s", r.skew, txn.MaxSkew)
	}
	return nil
}

// restored says how a state begins again. The epoch is the time in milliseconds: no
// cluster elects so often, so that it lies above all epochs that any life of the cluster
// has seen, those too that began from the same file.
func (r *rebirth) restored(seen uint64, now time.Time) txn.Restored {
	epoch := max(uint64(now.UnixMilli()), seen+1, r.epoch+1) //nolint:gosec // after 1970
	return txn.Restored{Epoch: epoch, Until: txn.Time(now.UnixNano()).Add(r.skew)}
}

// confirm asks for a word, unless it was given on the command line.
func (p *program) confirm(r rebirth, word string) error {
	if r.yes {
		return nil
	}
	fmt.Fprintf(p.stderr, "Type %s to go on: ", safe(word))
	line, _ := bufio.NewReader(p.stdin).ReadString('\n') // an input that ends has not said the word
	if strings.TrimSpace(line) != word {
		return usagef("nothing was changed: %q was not typed (--yes does not ask)", word)
	}
	return nil
}

// foretell says what is about to happen.
func (p *program) foretell(m *fsm.Machine, r txn.Restored, skew time.Duration) {
	stats := m.Stats()
	fmt.Fprintf(p.stderr, `The state is of %s, cluster %s, epoch %d: %d transactions, %d of them unfinished.
EVERY DECISION MADE AFTER IT IS LOST. Nothing is presumed of what began up to %s,
and nothing new is run until then. The new cluster begins in epoch %d, with this node alone.
`, shortTime(m.Cluster().Now.Std()), safe(m.ClusterID()), m.Cluster().Epoch, stats.Retained, stats.Unfinished,
		shortTime(r.Until.Std()), r.Epoch)
	if ago := r.Until.Add(-skew).Sub(m.Cluster().Now); ago > 0 {
		fmt.Fprintf(p.stderr, "That is %s of decisions.\n", ago.Round(time.Second))
	}
}

// reborn says what to do next.
func (p *program) reborn(id, dir, replaced string, r txn.Restored) {
	if p.out.format == formatJSON {
		p.out.object(struct {
			Node     string    `json:"node"`
			Dir      string    `json:"data_dir"`
			Replaced string    `json:"replaced,omitempty"`
			Epoch    uint64    `json:"epoch"`
			Until    time.Time `json:"nothing_presumed_until"`
		}{id, dir, replaced, r.Epoch, r.Until.Std()})
		return
	}
	p.out.linef("%s holds node %s, a cluster of one", dir, id)
	if replaced != "" {
		p.out.linef("what was there is in %s", replaced)
	}
	p.out.linef("next: start it with decree server --node-id %s --data-dir %s; add nodes with empty directories (decree server --join, decree cluster add); then decree tx unresolved", id, dir)
}

func (p *program) restoreCommand() *cobra.Command {
	var r rebirth
	var id, logStore string
	cmd := &cobra.Command{
		Use:     "restore FILE",
		Short:   "make a node's data directory from a saved file",
		Long:    restoreHelp,
		Example: "  decree snapshot restore decree.snap --node-id n1 --data-dir /var/lib/decree --raft-advertise 10.0.0.1:7301",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := r.check(); err != nil {
				return err
			}
			return p.restore(args[0], id, cluster.LogStore(logStore), r)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&id, "node-id", "", "the node's `id`")
	flags.StringVar(&r.dir, "data-dir", "", "the node's `directory`, empty or missing")
	flags.StringVar(&logStore, "log-store", string(cluster.BoltDB), "keep the log in boltdb or wal")
	r.register(cmd)
	for _, name := range []string{"node-id", "data-dir", "raft-advertise"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func (p *program) restore(file, id string, log cluster.LogStore, r rebirth) error {
	done := p.progress("reading the file")
	_, m, err := readBackup(file)
	done()
	if err != nil {
		return err
	}
	restored := r.restored(m.Cluster().Epoch, time.Now())
	p.foretell(m, restored, r.skew)
	if err := p.confirm(r, m.ClusterID()); err != nil {
		return err
	}
	if err := m.Reopen(restored); err != nil {
		return err
	}
	defer p.progress("writing the directory")()
	life := cluster.NewLife{
		ID: id, RaftAddress: r.advertise, LogStore: log,
		Term: restored.Epoch, Index: m.AppliedIndex(), State: m,
	}
	if err := cluster.Begin(r.dir, life, p.quietLogger()); err != nil {
		return err
	}
	p.reborn(id, r.dir, "", restored)
	return nil
}

func (p *program) recoverCommand() *cobra.Command {
	var r rebirth
	cmd := &cobra.Command{
		Use:     "recover",
		Short:   "begin again with one node, where a majority is lost for good",
		Long:    recoverHelp,
		Example: "  decree cluster recover --data-dir /var/lib/decree",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := r.check(); err != nil {
				return err
			}
			return p.recoverNode(r)
		},
	}
	cmd.Flags().StringVar(&r.dir, "data-dir", "", "the `directory` of the node that is left")
	r.register(cmd)
	_ = cmd.MarkFlagRequired("data-dir")
	return cmd
}

func (p *program) recoverNode(r rebirth) (err error) {
	s, finished, err := cluster.OpenSurvivor(r.dir, p.quietLogger())
	switch {
	case err != nil:
		return err
	case finished:
		p.out.linef("a recovery that was cut short is finished: %s holds a cluster of one", r.dir)
		return nil
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	m, err := p.replay(s)
	if err != nil {
		return err
	}
	if r.advertise == "" {
		r.advertise = addressOf(s)
	}
	restored := r.restored(max(s.Term, m.Cluster().Epoch), time.Now())
	fmt.Fprintf(p.stderr, "Node %s has entries up to %d, of term %d; its cluster had %s.\n", safe(s.ID), s.Last, s.LastTerm, safe(listed(s.Members)))
	if n := m.Doubt(m.Index()); n > 0 {
		fmt.Fprintf(p.stderr, "%d decisions in its last entries may never have been made: an operator decides those too.\n", n)
	}
	p.foretell(m.Machine, restored, r.skew)
	if err := p.confirm(r, m.ClusterID()); err != nil {
		return err
	}
	if err := m.Reopen(restored); err != nil {
		return err
	}
	defer p.progress("writing the directory")()
	replaced, err := s.Begin(cluster.NewLife{ID: s.ID, RaftAddress: r.advertise, Term: restored.Epoch, Index: s.Last, State: m.Machine})
	if err != nil {
		return err
	}
	p.reborn(s.ID, r.dir, replaced, restored)
	return nil
}

// replay brings a state machine to the end of a survivor's log.
func (p *program) replay(s *cluster.Survivor) (*node.Proven, error) {
	defer p.progress("reading the log")()
	var stopped error
	m := &node.Proven{Machine: fsm.New(fsm.Options{Halt: func(err error) { stopped = err }})}
	if err := s.Replay(m, nil); err != nil {
		return nil, err
	}
	return m, stopped
}

// quietLogger tells of what is wrong, and of nothing else.
func (p *program) quietLogger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "decree", Level: hclog.Warn, Output: p.stderr})
}

// addressOf is where the other nodes reached a survivor.
func addressOf(s *cluster.Survivor) string {
	for _, m := range s.Members {
		if m.ID == s.ID {
			return m.RaftAddress
		}
	}
	return ""
}

func listed(members []cluster.Peer) string {
	var all []string
	for _, m := range members {
		all = append(all, m.ID+" at "+m.RaftAddress)
	}
	return strings.Join(all, ", ")
}
