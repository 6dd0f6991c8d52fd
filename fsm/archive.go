package fsm

import (
	"fmt"
	"strings"

	"github.com/decree-tx/decree/fsm/txn"
)

// item is a transaction under its id, which is held twice so that a search reads
// only the tree. What retention will end is there as the record that a snapshot has
// of it: a million of those are a few bytes each for the garbage collector to look
// at, and half of what they are in memory when they are spread out.
type item struct {
	id     txn.TxID
	live   *txn.Transaction // unfinished or damaged
	record string           // of any other; then live is nil
}

// transaction is what the item holds, or nil for no item. The one that comes out of
// a record is the caller's own.
func (i item) transaction(registered names) *txn.Transaction {
	if i.live != nil || i.record == "" {
		return i.live
	}
	t := new(txn.Transaction)
	if !readTransaction([]byte(i.record), registered, t) {
		panic(fmt.Sprintf("fsm: the record of transaction %s can't be read back", i.id))
	}
	return t
}

// archiveBlock is what records are cut from. Retention ends transactions in about
// the order in which they finished, so that a block goes as a whole; one that lives
// longer than its neighbours, its id being ahead of cluster time, keeps no more than
// this of theirs.
const archiveBlock = 32 << 10

// archive keeps records. It is for one goroutine; the records never change.
type archive struct {
	block strings.Builder
	buf   []byte
}

func (a *archive) keep(t *txn.Transaction) string {
	a.buf = appendTransaction(a.buf[:0], t)
	n := len(a.buf)
	if a.block.Cap()-a.block.Len() < n {
		a.block.Reset() // lets go of it: the records hold it
		a.block.Grow(max(n, archiveBlock))
	}
	at := a.block.Len()
	a.block.Write(a.buf)
	return a.block.String()[at:]
}
