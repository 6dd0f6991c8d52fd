package txn

import "unique"

// Owner is who began a transaction, in words that mean nothing here. The zero Owner is
// nobody, or somebody who was not asked. Equal owners share one copy of their name: they
// are few, and their transactions many.
type Owner struct{ name unique.Handle[string] }

// OwnerOf is the owner of a name; nobody's where that is empty.
func OwnerOf(name string) Owner {
	if name == "" {
		return Owner{}
	}
	return Owner{unique.Make(name)}
}

// String is the name; empty for nobody.
func (o Owner) String() string {
	if o == (Owner{}) {
		return ""
	}
	return o.name.Value()
}

// Known reports whether it is anybody.
func (o Owner) Known() bool { return o != Owner{} }

// Foreign reports whether something of o's is another's than by's. It is not where
// nobody said whose it is, or who asks.
func (o Owner) Foreign(by Owner) bool { return o.Known() && by.Known() && o != by }
