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
)

// evidence is all that the audit was made of. The databases are gone when the day
// is over, and who has to find out what went wrong asks for the story of one
// transaction or one account.
type evidence struct {
	entries []bank.Entry
	views   []bank.NodeView
	books   []bank.Books
}

// save writes a line for every single thing, so that grep tells the story.
func (e evidence) save(dir string) (path string, err error) {
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
