package history

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/anishathalye/porcupine"
)

// register is the state of one txid: undecided, and then one decision for ever.
type register = Answer

// model is a register that is written once, by whoever gets there first.
var model = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{Undecided} },
	Step: func(state, input, output any) []any {
		var next []any
		for _, r := range step(state.(register), input.(Op).Kind, output.(Op).Answer) {
			next = append(next, r)
		}
		return next
	},
	DescribeOperation: func(_, output any) string {
		o := output.(Op)
		return fmt.Sprintf("%s %s -> %s", o.Kind, o.Where, o.Answer)
	},
	DescribeState:             func(state any) string { return fmt.Sprint(state) },
	DescribeOperationMetadata: func(m any) string { return m.(string) },
}).ToModel()

// step is what may have become of a register over a call with an answer; nothing
// where the answer cannot have been true of it.
func step(r register, k Kind, a Answer) []register {
	switch {
	case a == Unknown && r == Undecided && k == Run:
		return []register{Undecided, Committed, Aborted}
	case a == Unknown && r == Undecided && (k == Abort || k == Inquire):
		return []register{Undecided, Aborted}
	case a == Unknown, a == Undecided && k == Observe, a == r:
		return []register{r}
	case r == Undecided && k == Run,
		r == Undecided && a == Aborted && (k == Abort || k == Inquire):
		return []register{a}
	default:
		return nil
	}
}

// Violation is a transaction of which not everything that was told can be true.
type Violation struct {
	TxID string
	Ops  []Op
}

func (v Violation) Error() string {
	s := fmt.Sprintf("of %s not all of this can be true:", v.TxID)
	for _, o := range v.Ops {
		s += "\n" + o.String()
	}
	return s
}

// Judge returns the transactions whose calls no order explains in which each took
// effect at one moment between its call and its return, and the first decision
// stood. It takes some microseconds a transaction.
func Judge(ops []Op) []Violation {
	var found []Violation
	for _, part := range byTransaction(ops) {
		if !porcupine.CheckOperations(model, operations(part)) {
			found = append(found, Violation{part[0].TxID, part})
		}
	}
	return found
}

func operations(ops []Op) []porcupine.Operation {
	list := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		end := o.Return
		if end == 0 {
			end = math.MaxInt64
		}
		list[i] = porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Call, Output: o, Return: end, Metadata: o.String()}
	}
	return list
}

// Visualize writes a page that shows the calls of a violation in time, and how far
// an order of them goes.
func (v Violation) Visualize(w io.Writer) error {
	_, info := porcupine.CheckOperationsVerbose(model, operations(v.Ops), 0)
	return porcupine.Visualize(model, info, w)
}

// maxPages bounds how many violations are drawn: one shows what went wrong, and a
// run that went wrong badly must not fill the disk.
const maxPages = 10

// Save leaves a history that was found wrong in a directory, which it makes: all
// calls as history.jsonl, a page a violation, and how to play it again in
// replay.txt.
func Save(dir, replay string, ops []Op, found []Violation) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	errs := []error{
		os.WriteFile(filepath.Join(dir, "replay.txt"), []byte(replay+"\n"), 0o644),
		writeFile(filepath.Join(dir, "history.jsonl"), func(w io.Writer) error { return Write(w, ops) }),
	}
	for _, v := range found[:min(len(found), maxPages)] {
		errs = append(errs, writeFile(filepath.Join(dir, v.TxID+".html"), v.Visualize))
	}
	return errors.Join(errs...)
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
