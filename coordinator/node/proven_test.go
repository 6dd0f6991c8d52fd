package node

// R15: of a log that ends somewhere, what was certainly committed is what its leaders
// would not have gone on without.

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
)

func TestWhatALogProves(t *testing.T) {
	const lead, command, foreign, other = "lead", "command", "a deposed leader's command", "of raft"
	type step struct {
		what string
		at   time.Duration
		want uint64
	}
	for name, steps := range map[string][]step{
		"an epoch proves what lies before it": {{lead, 0, 0}, {lead, time.Hour, 1}, {command, time.Hour, 1}, {lead, 2 * time.Hour, 3}},
		"the third proves the first": {
			{other, 0, 0}, {lead, 0, 1}, {command, time.Millisecond, 1}, {command, time.Millisecond, 2},
			{command, time.Second, 3}, {other, time.Second, 3}, {command, 2 * time.Second, 4},
		},
		"what was waited for no more proves nothing": {
			{lead, 0, 0}, {command, time.Second, 0}, {command, time.Second + proposalTimeout, 0},
			{command, time.Second + proposalTimeout, 0}, {command, 2*time.Second + proposalTimeout, 3},
		},
		"nor does what was refused": {{lead, 0, 0}, {command, 0, 0}, {foreign, 0, 0}, {command, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Proven{Machine: fsm.New(fsm.Options{Halt: func(err error) { t.Fatal(err) }})}
			var term uint64
			for i, s := range steps {
				l := &raft.Log{Index: uint64(i + 1), Type: raft.LogCommand}
				header := txn.Header{Time: txn.Time(1e18).Add(s.at)}
				var commands []fsm.Command
				switch s.what {
				case lead:
					term++
					commands = []fsm.Command{fsm.Lead{Node: "n1", Cluster: "c"}}
				case other:
					l.Type = raft.LogNoop
				}
				l.Term, header.Epoch = term, term
				if s.what == foreign {
					header.Epoch = 99
				}
				if l.Type == raft.LogCommand {
					var err error
					if l.Data, err = fsm.Encode(fsm.Entry{Header: header, Commands: commands}); err != nil {
						t.Fatal(err)
					}
				}
				p.Apply(l)
				if got := p.Index(); got != s.want {
					t.Errorf("after step %d, %s, entry %d is proven, want %d", i+1, s.what, got, s.want)
				}
			}
		})
	}
}
