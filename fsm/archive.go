package fsm

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/google/btree"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/decree-tx/decree/fsm/txn"
)

// item is a transaction under its id: as it lives, or as the record that a snapshot
// has of it.
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

// catalogue is all transactions. What retention will end is kept as records, end to end
// in blocks, and found by places that hold no pointers: of a million, the garbage
// collector looks at some thousand blocks and at nothing else.
//
// A clone does not change with the original, and any goroutine may read it.
type catalogue struct {
	live   *btree.BTreeG[item]
	kept   *btree.BTreeG[place]
	first  uint32  // the number of blocks[0]; it wraps after 256 TiB
	blocks []block // of a clone, its own
}

// place is where a record begins.
type place struct {
	id    txn.TxID
	block uint32
	at    uint32
}

// block is records end to end. It is let go of once all its records are: retention
// ends transactions in about the order in which they finished.
type block struct {
	text string
	n    int // records that are kept
}

// blockBytes is the size of a block: also what a record that outlives its neighbours,
// because its id is ahead of cluster time, keeps in memory of theirs.
const blockBytes = 64 << 10

func newCatalogue() catalogue {
	return catalogue{
		live: btree.NewG(degree, func(a, b item) bool { return lessID(a.id, b.id) }),
		kept: btree.NewG(degree, func(a, b place) bool { return lessID(a.id, b.id) }),
	}
}

func (c *catalogue) len() int { return c.live.Len() + c.kept.Len() }

// clone copies some pointers, and a few bytes a block.
func (c *catalogue) clone() catalogue {
	return catalogue{live: c.live.Clone(), kept: c.kept.Clone(), first: c.first, blocks: slices.Clone(c.blocks)}
}

func (c *catalogue) get(id txn.TxID) item {
	if found, ok := c.live.Get(item{id: id}); ok {
		return found
	}
	if found, ok := c.kept.Get(place{id: id}); ok {
		return c.item(found)
	}
	return item{}
}

// max is the greatest id; zero where there is none.
func (c *catalogue) max() txn.TxID {
	live, _ := c.live.Max()
	kept, _ := c.kept.Max()
	if lessID(kept.id, live.id) {
		return live.id
	}
	return kept.id
}

// item reads a record's tag and length, and cuts it out.
func (c *catalogue) item(p place) item {
	text := c.blocks[p.block-c.first].text[p.at:]
	var head [1 + 10]byte
	n, size := protowire.ConsumeVarint(head[1:copy(head[:], text)])
	return item{id: p.id, record: text[:1+size+int(n)]}
}

// ascend visits all, by id, until visit returns false.
func (c *catalogue) ascend(visit func(item) bool) {
	c.merge(c.live.Ascend, c.kept.Ascend, lessID, visit)
}

// descend visits those up to an id, from the greatest.
func (c *catalogue) descend(from txn.TxID, visit func(item) bool) {
	c.merge(
		func(yield btree.ItemIteratorG[item]) { c.live.DescendLessOrEqual(item{id: from}, yield) },
		func(yield btree.ItemIteratorG[place]) { c.kept.DescendLessOrEqual(place{id: from}, yield) },
		func(a, b txn.TxID) bool { return lessID(b, a) }, visit)
}

// merge visits what lives and what is kept in one order. No id is both.
func (c *catalogue) merge(live func(btree.ItemIteratorG[item]), kept func(btree.ItemIteratorG[place]),
	before func(a, b txn.TxID) bool, visit func(item) bool,
) {
	next, stop := iter.Pull(func(yield func(item) bool) { live(yield) })
	defer stop()
	one, more := next()
	goesOn := true
	kept(func(p place) bool {
		for more && goesOn && before(one.id, p.id) {
			goesOn = visit(one)
			one, more = next()
		}
		goesOn = goesOn && visit(c.item(p))
		return goesOn
	})
	for more && goesOn {
		goesOn = visit(one)
		one, more = next()
	}
}

// archive is what is known, where it changes. It is for one goroutine.
type archive struct {
	catalogue
	last strings.Builder // the text of the last block
	buf  []byte
}

// put replaces prev, which is nil for a new transaction, by next. It keeps next
// itself only while that is owed something, or damaged.
func (a *archive) put(prev, next *txn.Transaction) {
	if prev != nil && ripens(prev) {
		a.drop(next.ID) // an abort that takes over branches: it is owed something again
	}
	if !ripens(next) {
		a.live.ReplaceOrInsert(item{id: next.ID, live: next})
		return
	}
	if prev != nil {
		a.live.Delete(item{id: next.ID})
	}
	a.kept.ReplaceOrInsert(a.write(next))
}

// write appends a record.
func (a *archive) write(t *txn.Transaction) place {
	a.buf = appendTransaction(a.buf[:0], t)
	if a.last.Cap()-a.last.Len() < len(a.buf) {
		a.last.Reset() // lets go of it: the block holds it
		a.last.Grow(max(len(a.buf), blockBytes))
		a.blocks = append(a.blocks, block{})
		a.release(len(a.blocks) - 2)
	}
	end := len(a.blocks) - 1
	p := place{id: t.ID, block: a.first + uint32(end), at: uint32(a.last.Len())}
	a.last.Write(a.buf)
	a.blocks[end].text = a.last.String()
	a.blocks[end].n++
	return p
}

// drop forgets a record, where there is one.
func (a *archive) drop(id txn.TxID) {
	p, ok := a.kept.Delete(place{id: id})
	if !ok {
		return
	}
	i := int(p.block - a.first)
	a.blocks[i].n--
	a.release(i)
}

// release lets go of a block without records, unless it is the last, which will have
// some.
func (a *archive) release(i int) {
	if i < 0 || i == len(a.blocks)-1 || a.blocks[i].n > 0 {
		return
	}
	a.blocks[i].text = ""
	for len(a.blocks) > 1 && a.blocks[0].n == 0 {
		a.blocks = a.blocks[1:]
		a.first++
	}
}
