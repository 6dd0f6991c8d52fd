package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cmd/internal/backup"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

func (p *program) snapshotCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "snapshot",
		Short: "save the state, inspect it, begin again from it",
	}
	group.AddCommand(p.saveCommand(), p.inspectCommand(), p.restoreCommand())
	return asGroup(group)
}

const saveHelp = `Saves the cluster's state as it is at some moment after the command began: every
transaction, decided or not, and every participant. Transactions go on meanwhile.

The file is written aside, made durable, and then given its name. With - it goes to
stdout. It holds what participants were asked to do by undecided transactions, and how
they are reached: keep it as you keep those. What is decided after it is not in it; what
that means for a restore is told by "decree snapshot restore --help".`

func (p *program) saveCommand() *cobra.Command {
	var force, local bool
	cmd := &cobra.Command{
		Use:     "save FILE",
		Short:   "save the state of a running cluster into a file",
		Long:    saveHelp,
		Example: "  decree snapshot save /backup/decree-$(date +%F).snap\n  decree snapshot save - | gzip > decree.snap.gz",
		Args:    cobra.ExactArgs(1),
		RunE: p.attached(func(ctx context.Context, c *client.Client, args []string) error {
			s := saving{save: func(begin func(*decreev1.SnapshotHeader) (io.Writer, error)) error {
				defer p.progress("saving the state")()
				return c.SaveSnapshot(ctx, local, begin)
			}}
			if args[0] == "-" {
				return s.to(p.out.w)
			}
			if err := s.into(args[0], force); err != nil {
				return err
			}
			p.saved(args[0], s)
			return nil
		}),
	}
	p.dial.register(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace the file where there is one")
	cmd.Flags().BoolVar(&local, "local", false, "save what the first node that answers has, however old: for a cluster that has lost its leader for good")
	return cmd
}

// saving is one save.
type saving struct {
	save   func(begin func(*decreev1.SnapshotHeader) (io.Writer, error)) error
	header backup.Header
	end    backup.End
}

// to writes the file's content.
func (s *saving) to(w io.Writer) error {
	var out *backup.Writer
	err := s.save(func(h *decreev1.SnapshotHeader) (_ io.Writer, err error) {
		if f, ok := w.(*os.File); ok && out != nil {
			err = errors.Join(f.Truncate(0), seekStart(f))
		} else if out != nil {
			err = errors.New("the snapshot was cut, and what is written can't be taken back: save it again")
		}
		if err != nil {
			return nil, err
		}
		s.header = backup.Header{
			Cluster: h.GetCluster(), Index: h.GetIndex(), Epoch: h.GetEpoch(), Time: asTime(h.GetClusterTime()),
			Node: h.GetNode(), Version: h.GetVersion(), Level: h.GetLevel(), Saved: time.Now().UTC(),
		}
		out, err = backup.NewWriter(w, s.header)
		return out, err
	})
	if err != nil {
		return err
	}
	s.end, err = out.Close()
	return err
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// into writes a file of that name: whole, or not at all.
func (s *saving) into(path string, force bool) (err error) {
	if _, err := os.Lstat(path); err == nil && !force {
		return usagef("%s is there already; --force replaces it", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(s.to(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (p *program) saved(path string, s saving) {
	if p.out.format == formatJSON {
		p.out.object(struct {
			File string `json:"file"`
			backup.Header
			backup.End
		}{path, s.header, s.end})
		return
	}
	p.out.linef("%s: cluster %s as of entry %d, epoch %d, %s; %d bytes", path, s.header.Cluster, s.header.Index,
		s.header.Epoch, shortTime(s.header.Time), s.end.Bytes)
}

// readBackup brings a state machine to what a file holds, every checksum of which it
// verifies.
func readBackup(path string) (*backup.Reader, *fsm.Machine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() //nolint:errcheck // it is only read
	r, err := backup.NewReader(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	m := fsm.New(fsm.Options{Halt: func(error) {}}) // Restore answers with the error
	if err := m.Restore(io.NopCloser(r)); err != nil {
		var damage *backup.DamageError
		if errors.As(err, &damage) {
			err = damage
		}
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, m, nil
}

func (p *program) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "verify a saved file, and show what it holds",
		Long:  "Reads all of the file and verifies every checksum. It needs no server, and shows neither\npayloads nor how participants are reached.",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			done := p.progress("reading the file")
			r, m, err := readBackup(args[0])
			done()
			if err != nil {
				return err
			}
			p.inspected(inspect(r, m))
			return nil
		},
	}
}

// inspection is what a file holds, for people and programs.
type inspection struct {
	backup.Header
	backup.End
	Transactions int            `json:"transactions"`
	Unfinished   int            `json:"unfinished"`
	Damaged      int            `json:"damaged"`
	States       map[string]int `json:"states"`
	Participants []string       `json:"participants"`
	// Oldest is the unfinished transaction with the least id.
	Oldest      string     `json:"oldest_unfinished,omitempty"`
	OldestSince *time.Time `json:"oldest_unfinished_since,omitempty"`
	// Restored is the time up to which outcomes were lost by an earlier restore.
	Restored *time.Time `json:"restored_until,omitempty"`
	// Group is the cluster's, of several; empty where it takes every txid.
	Group string `json:"group,omitempty"`
}

func inspect(r *backup.Reader, m *fsm.Machine) inspection {
	stats := m.Stats()
	i := inspection{
		Header: r.Header, End: r.End(),
		Transactions: stats.Retained, Unfinished: stats.Unfinished, Damaged: stats.Damaged, States: states(m),
		Group: m.Cluster().Group.String(),
	}
	for _, participant := range m.Participants() {
		i.Participants = append(i.Participants, participant.Name+" ("+participant.Driver+")")
	}
	for t := range m.Open {
		since := t.Staged.At.Std()
		i.Oldest, i.OldestSince = t.ID.String(), &since
		break
	}
	if until := m.Cluster().Restored.Until; until != 0 {
		at := until.Std()
		i.Restored = &at
	}
	return i
}

// states counts the transactions by state.
func states(m *fsm.Machine) map[string]int {
	counts := map[string]int{}
	q := fsm.Query{Limit: 1000}
	for {
		page, next, more := m.List(q)
		for _, t := range page {
			counts[t.State.String()]++
		}
		if !more {
			return counts
		}
		q.Before = next
	}
}

func (p *program) inspected(i inspection) {
	if p.out.format == formatJSON {
		p.out.object(i)
		return
	}
	oldest, restored := "", ""
	if i.Oldest != "" {
		oldest = i.Oldest + ", since " + shortTime(*i.OldestSince)
	}
	if i.Restored != nil {
		restored = "outcomes up to " + shortTime(*i.Restored) + " were lost by an earlier restore"
	}
	p.out.fields(
		"cluster", i.Cluster,
		"group", strings.TrimPrefix(i.Group, "group "),
		"saved", shortTime(i.Saved)+" from "+i.Node+", decree "+i.Version,
		"state of", "entry "+strconv.FormatUint(i.Index, 10)+", epoch "+strconv.FormatUint(i.Epoch, 10)+", "+shortTime(i.Time),
		"restored", restored,
		"size", strconv.FormatInt(i.Bytes, 10)+" bytes, SHA-256 "+i.SHA256,
		"transactions", fmt.Sprintf("%d, of which %d unfinished and %d damaged", i.Transactions, i.Unfinished, i.Damaged),
		"oldest unfinished", oldest,
	)
	p.out.linef("")
	var rows [][]string
	for s := txn.Active; s <= txn.Aborted; s++ {
		rows = append(rows, []string{s.String(), strconv.Itoa(i.States[s.String()])})
	}
	p.out.table([]string{"STATE", "TRANSACTIONS"}, rows)
	p.out.linef("")
	rows = nil
	for _, name := range i.Participants {
		rows = append(rows, []string{name})
	}
	p.out.table([]string{"PARTICIPANT"}, rows)
}
