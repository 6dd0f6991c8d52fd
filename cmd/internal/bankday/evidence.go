package bankday

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/coordinator/history"
)

// evidence is all that the audit was made of. The databases are gone when the day
// is over, and who has to find out what went wrong asks for the story of one
// transaction or one account.
type evidence struct {
	entries    []bank.Entry
	views      []bank.NodeView
	books      []bank.Books
	history    []history.Op
	judged     bank.Findings
	violations []history.Violation
}

// save writes a line for every single thing, so that grep tells the story, and the
// history with its violations and the command of a day like this one.
func (e evidence) save(dir, command string) (path string, err error) {
	if err := history.Save(filepath.Join(dir, "history"), command, e.history, e.violations); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "evidence.txt")
	file, err := os.Create(path) //nolint:gosec // in our own directory
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(file)
	for _, entry := range e.entries {
		told := entry.Result.Outcome.String()
		if entry.Err != nil {
			told = entry.Err.Error()
		}
		fmt.Fprintf(w, "order %s at %s: %v: %s %s\n", entry.TxID, entry.Submitted.UTC().Format("15:04:05.000"), entry.Moves, told, entry.Result.Reason.Detail)
	}
	for _, view := range e.views {
		for _, txid := range slices.Sorted(maps.Keys(view.Transactions)) {
			fmt.Fprintf(w, "node %s has %s: %v\n", view.Node, txid, view.Transactions[txid])
		}
	}
	for _, b := range e.books {
		for _, account := range slices.Sorted(maps.Keys(b.Balances)) {
			fmt.Fprintf(w, "books of %s: account %s: %d\n", b.Participant, account, b.Balances[account])
		}
		for branch, fate := range b.Fates {
			fmt.Fprintf(w, "books of %s: branch %s: %s\n", b.Participant, branch, fate)
		}
	}
	return path, errors.Join(w.Flush(), file.Close())
}

// keepLogs leaves the databases' logs beside those of the nodes: their own
// directories go.
func (d *day) keepLogs() {
	for _, o := range d.banks {
		if o.server == nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(o.server.Dir(), "log"))
		if err == nil {
			err = os.WriteFile(filepath.Join(d.fleet.Dir(), o.name+".log"), text, 0o644) //nolint:gosec // nothing secret is in it
		}
		if err != nil {
			d.out.say("the log of %s is lost: %v", o.name, err)
		}
	}
}
