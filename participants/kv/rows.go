package kv

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// A branch's key is the length of its cluster id, the cluster id, the txid and
// the number: the branches of a cluster lie together, sorted by age.

const suffixSize = len(txn.TxID{}) + 4

func clusterPrefix(cluster string) []byte {
	return append([]byte{byte(len(cluster))}, cluster...)
}

func branchKey(b participants.Branch) []byte {
	key := append(clusterPrefix(b.Cluster), b.TxID[:]...)
	return binary.BigEndian.AppendUint32(key, uint32(b.Number))
}

func parseBranchKey(key []byte) (participants.Branch, error) {
	if len(key) == 0 || len(key) != 1+int(key[0])+suffixSize {
		return participants.Branch{}, fmt.Errorf("%w: %x is no branch", ErrDamaged, key)
	}
	n := 1 + int(key[0])
	b := participants.Branch{Cluster: string(key[1:n])}
	n += copy(b.TxID[:], key[n:])
	b.Number = int(binary.BigEndian.Uint32(key[n:]))
	return b, nil
}

func holderOf(b participants.Branch) holder { return holder{b.Cluster, b.TxID, b.Number} }

// outcome is the row of a finished branch.
type outcome struct {
	Committed bool   `json:"committed,omitempty"`
	Digest    []byte `json:"digest,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

func (o outcome) record() participants.Record {
	r := participants.Record{Status: participants.StatusAborted, Reason: o.Reason}
	if o.Committed {
		r.Status = participants.StatusCommitted
	}
	copy(r.Digest[:], o.Digest)
	return r
}

// fenceRow is a participants.Fence as it is kept.
type fenceRow struct {
	Epoch   uint64   `json:"epoch"`
	Horizon txn.Time `json:"horizon"`
}

func fenceKey(cluster string) []byte { return append([]byte("fence/"), cluster...) }

// get reads a row; false means that there is none.
func get[Row any](b *bbolt.Bucket, key []byte) (row Row, ok bool, err error) {
	value := b.Get(key)
	if value == nil {
		return row, false, nil
	}
	row, err = decode[Row](key, value)
	return row, err == nil, err
}

func decode[Row any](key, value []byte) (row Row, err error) {
	if err := json.Unmarshal(value, &row); err != nil {
		return row, fmt.Errorf("%w: the row %x: %w", ErrDamaged, key, err)
	}
	return row, nil
}

func put(b *bbolt.Bucket, key []byte, row any) error {
	value, err := json.Marshal(row)
	if err != nil {
		return err
	}
	return b.Put(key, value)
}
