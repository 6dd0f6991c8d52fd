package chaos

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/decree-tx/decree/cmd/internal/faults"
)

// Cell is one field of the matrix: the leader is held at a step of the protocol
// while a fault befalls a victim.
type Cell struct {
	Step   string `json:"step"`
	Fault  string `json:"fault"`
	Victim string `json:"victim"`
}

func (c Cell) String() string { return c.Step + "/" + c.Fault + "/" + c.Victim }

// The victims.
const (
	Leader      = "leader"
	Follower    = "follower"
	Participant = "participant"
)

var victims = []string{Leader, Follower, Participant}

// step is one of the protocol, named as package coordinator names its failpoints.
type step struct {
	name string
	// voted says that every vote is in: whatever befalls a participant from here
	// on, the transaction commits.
	voted bool
	// told says that a participant may have been told the decision.
	told bool
}

// steps, in the order in which a transaction goes through them.
var steps = []step{
	{name: "before-stage"},
	{name: "after-stage"},
	{name: "after-prepare"},
	{name: "after-votes", voted: true},
	{name: "after-decision", voted: true},
	{name: "before-delivery", voted: true, told: true}, // the other branch's is on its way
	{name: "between-deliveries", voted: true, told: true},
	{name: "before-receipts", voted: true, told: true},
	{name: "after-receipts", voted: true, told: true},
}

// fault is what can befall a victim.
type fault struct {
	name string
	// deposes says that another node leads after it has befallen the leader, and
	// ends that a node which it befell has to end by itself.
	deposes, ends bool
	// spares says that a node which it befell must not end.
	spares bool
	// slips says that a leader which it befell lives on without knowing what
	// happened. It may go on at its step at once, or when another leads.
	slips bool
	// answers is how many clients are answered while the cluster lives with the
	// fault, beside the probe's; 0 stands for usualAnswers. A disk fills slowly.
	answers int
	// needs is the means that the fault takes, nil where it takes none.
	needs  func(faults.Means) error
	strike func(p *play) (faults.Undo, error)
}

// How many clients are answered while a cluster lives with a fault.
const (
	usualAnswers = 10
	manyAnswers  = 60
)

// allFaults are the columns for each victim.
func allFaults() []fault {
	return []fault{
		{name: "kill", deposes: true, strike: func(p *play) (faults.Undo, error) { return faults.Kill(p.victim.Process) }},
		{name: "stop", deposes: true, strike: func(p *play) (faults.Undo, error) { return faults.Pause(p.victim.Process) }},
		{name: "isolate", deposes: true, slips: true, needs: links, strike: func(p *play) (faults.Undo, error) {
			return p.ground.links.Isolate(p.victim.Name()), nil
		}},
		{name: "mute", deposes: true, slips: true, needs: links, strike: func(p *play) (faults.Undo, error) {
			return p.ground.links.Mute(p.victim.Name()), nil
		}},
		{name: "deaf", deposes: true, slips: true, needs: links, strike: func(p *play) (faults.Undo, error) {
			return p.ground.links.Deafen(p.victim.Name()), nil
		}},
		{name: "pair", needs: links, strike: func(p *play) (faults.Undo, error) {
			return p.ground.links.CutPair(p.leader.Name(), p.peer()), nil
		}},
		{name: "low", spares: true, answers: manyAnswers, needs: fills, strike: func(p *play) (faults.Undo, error) { return p.victim.disk.Fill() }},
		{name: "full", answers: manyAnswers, needs: fills, strike: func(p *play) (faults.Undo, error) { return p.victim.disk.KeepFull() }},
		{name: "eio", deposes: true, ends: true, needs: syncs, strike: (*play).failSync},
		{name: "hang", deposes: true, ends: true, needs: syncs, strike: func(p *play) (faults.Undo, error) { return faults.HangSync(p.victim.Process) }},
		{name: "power", deposes: true, needs: func(m faults.Means) error { return m.Power }, strike: func(p *play) (faults.Undo, error) {
			return p.victim.disk.LosePower(p.victim.Process)
		}},
	}
}

func links(m faults.Means) error { return m.Links }
func fills(m faults.Means) error { return m.Fill }
func syncs(m faults.Means) error { return m.Sync }

// column is a fault that befalls a victim.
type column struct{ fault, victim string }

func columns() []column {
	var all []column
	for _, v := range victims {
		for _, f := range allFaults() {
			all = append(all, column{f.name, v})
		}
	}
	return all
}

// senseless are the columns that say nothing of their own, and why.
var senseless = map[column]string{
	{"pair", Follower}:   "the link between leader and follower: it is pair/leader",
	{"low", Participant}: "a participant has no reserve to give up: it is full/participant",
}

// Cells are all fields of the matrix that say something, those of one slice after
// those of another: see slice.
func Cells() []Cell {
	var all []Cell
	for k := range steps {
		all = append(all, slice(k)...)
	}
	return all
}

// slice is the k-th part of the matrix. Each has every fault with every victim
// once, and every step several times; together they are the whole.
func slice(k int) []Cell {
	var cells []Cell
	for i, c := range columns() {
		if senseless[c] == "" {
			cells = append(cells, Cell{steps[(i+k)%len(steps)].name, c.fault, c.victim})
		}
	}
	return cells
}

// pick finds the cells that a pattern names, such as "after-votes/*/leader".
func pick(cells []Cell, pattern string) ([]Cell, error) {
	if strings.Count(pattern, "/") != 2 {
		return nil, fmt.Errorf("cells %q: want step/fault/victim, such as after-votes/kill/leader; each may be *", pattern)
	}
	var picked []Cell
	for _, c := range cells {
		ok, err := path.Match(pattern, c.String())
		if err != nil {
			return nil, fmt.Errorf("cells %q: %w", pattern, err)
		}
		if ok {
			picked = append(picked, c)
		}
	}
	if len(picked) == 0 {
		return nil, fmt.Errorf("cells %q: there are none; steps are %s; faults %s; victims %s", pattern,
			strings.Join(names(steps, func(s step) string { return s.name }), ", "),
			strings.Join(names(allFaults(), func(f fault) string { return f.name }), ", "), strings.Join(victims, ", "))
	}
	return picked, nil
}

func names[T any](all []T, name func(T) string) []string {
	var texts []string
	for _, one := range all {
		texts = append(texts, name(one))
	}
	return texts
}

// step and fault find what the cell names.
func (c Cell) step() step {
	return steps[slices.IndexFunc(steps, func(s step) bool { return s.name == c.Step })]
}

func (c Cell) fault() fault {
	all := allFaults()
	return all[slices.IndexFunc(all, func(f fault) bool { return f.name == c.Fault })]
}

// deposes reports whether another node has to lead afterwards.
func (c Cell) deposes() bool { return c.Victim == Leader && c.fault().deposes }

// skip says why a machine with such means can't play the cell, nil where it can.
func (c Cell) skip(m faults.Means) error {
	if needs := c.fault().needs; needs != nil {
		return needs(m)
	}
	return nil
}

// number counts cells in rows, so that neighbours can differ in what they leave
// open.
func (c Cell) number() int {
	row := slices.IndexFunc(steps, func(s step) bool { return s.name == c.Step })
	return row + slices.Index(columns(), column{c.Fault, c.Victim})
}
