// Package kv is the embedded participant: a durable key-value store in one bbolt
// file, for which no server is needed.
//
// It owns the file, the locks that hold a prepared branch's assumptions true
// until its decision, and the memory of what became of each branch. It refuses
// to wait: a key that another prepared branch holds is a no at once, because a
// wait here could be half of a deadlock across two participants, which nobody
// could see.
//
// # Payload
//
// A payload is one JSON object with a list of operations, carried out in order;
// later ones see what earlier ones of the same branch did:
//
//	{"ops": [
//	  {"op": "check",  "key": "alice/state", "value": "open"},
//	  {"op": "check",  "key": "alice/frozen", "absent": true},
//	  {"op": "add",    "key": "alice", "amount": -30, "min": 0},
//	  {"op": "put",    "key": "receipt/17", "value": "paid"},
//	  {"op": "delete", "key": "invoice/17"}
//	]}
//
// check votes no unless the key has the value, or is absent, or holds an integer
// between min and max. add counts an absent key as 0, and votes no where the sum
// would leave min..max or 64 bits, or where the value is no integer. Integers are
// exact, as JSON numbers or as strings, which survive JSON tools that count in
// floating point. A branch that only checks votes ReadOnly and holds nothing.
//
// # Durability
//
// All calls that are waiting share one bbolt commit, which is two fsyncs; nobody
// is answered before it. Nothing is kept in memory but the locks, which are
// rebuilt from the staged branches when the file is opened. After a commit whose
// end cannot be known (a failed fsync) the store answers nothing any more until
// it is opened anew.
package kv
