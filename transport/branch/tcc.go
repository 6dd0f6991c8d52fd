package branch

import "context"

// TCC is a service that tries, confirms and cancels in local transactions of its
// own SQL database; decreepg and decreesql make its server. Tx is the transaction
// as the database's Go driver knows it.
//
// Try does what can be taken back and makes sure that Confirm can not fail: it
// moves the money to a frozen column, or inserts the order as pending. Confirm
// makes it final, Cancel takes it back. Between them no lock and no transaction of
// the database is held.
//
// Each function runs in one transaction together with the barrier: the row that
// says what became of the branch. So what it does counts exactly once, however
// often decree repeats the call; a branch gets either Confirm or Cancel, never
// both; Cancel is not called where no Try counted; and a Try that arrives after its
// cancel is not called.
//
// The functions may run more than once before one run counts: what a run wrote is
// undone when it fails or votes no, and after a deadlock. So they must do nothing
// but read and write through tx, and they must not end it.
type TCC[Tx any] interface {
	// Try votes. What it writes is kept with a vote of Yes and undone with any
	// other answer; an error means "not known", as the package documentation says.
	Try(ctx context.Context, tx Tx, b Branch) (Vote, error)
	// Confirm makes final what Try did. Nil means done, a *Heuristic is final, and
	// any other error means "ask again".
	Confirm(ctx context.Context, tx Tx, b Branch) error
	// Cancel takes back what Try did. Its errors are as those of Confirm.
	Cancel(ctx context.Context, tx Tx, b Branch) error
}

// Books are where the server of a [TCC] keeps what must be remembered: the tables
// of the barrier, in the service's own database. All methods may be called at the
// same time, also by other processes on the same database. In a Branch they look
// at the name only.
type Books[Tx any] interface {
	// Raise stores what was heard of a cluster, unless its stored epoch is higher,
	// and returns what is stored then. It is durable when it returns. A cluster that
	// would be one more than most is refused with ErrClusters.
	Raise(ctx context.Context, cluster string, heard Fence, most int) (Fence, error)
	// Change runs f in one local transaction, in which the branch's page belongs to
	// it: nobody else's Change of that branch runs until the transaction has ended.
	// The Fence on the page was read after that became so. f returns what the record
	// is to be from now on, or nil to leave it.
	//
	// Nil means that what f did, and the record it returned, are durable. After an
	// error, f's own or the database's, either all of that is or nothing. Where the
	// database wants a transaction repeated, or the answer to its commit was lost,
	// Change begins again with a new page: f may run several times, and each run
	// finds what became of the one before.
	Change(ctx context.Context, b Branch, f func(Page[Tx]) (*Record, error)) error
	// Look reads a branch's record as it is committed.
	Look(ctx context.Context, b Branch) (Record, error)
	// Open lists at most limit branches of a cluster that wait for their decision,
	// oldest first.
	Open(ctx context.Context, cluster string, limit int) ([]Branch, error)
	// Count is how many Open would list.
	Count(ctx context.Context, cluster string, limit int) (int, error)
	// Forget deletes at most limit records of a cluster, oldest first, that wait for
	// nothing and whose txid sorts before the given one.
	Forget(ctx context.Context, cluster, before string, limit int) error
}

// Page is one branch's place in the books, inside one transaction.
type Page[Tx any] struct {
	Tx     Tx
	Fence  Fence  // of the branch's cluster
	Record Record // of the branch
	// Undo takes back everything that was done through Tx, and leaves the page.
	Undo func(context.Context) error
}

// NewTCC makes the server of a service over books. It is for those who bring
// another database; decreepg.NewTCC and decreesql.NewTCC bring theirs.
func NewTCC[Tx any](books Books[Tx], service TCC[Tx], c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	return &Server{cfg: c, engine: &tcc[Tx]{books: books, service: service, maxOpen: c.MaxOpen, clusters: map[string]*census{}}}, nil
}
