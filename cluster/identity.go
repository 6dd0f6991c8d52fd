package cluster

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
)

// phase is how far a node's disk has come. It only moves forward, in the order of
// phases.
type phase string

const (
	phaseEmpty    phase = "empty"    // the disk has never been part of a cluster
	phaseAgreed   phase = "agreed"   // the first members are agreed on; Raft has no state yet
	phaseAdmitted phase = "admitted" // a leader has admitted the disk; Raft has no state yet
	phaseMember   phase = "member"   // Raft has state: it may have voted
	phaseRemoved  phase = "removed"  // the cluster removed the node; the disk is spent
)

// founder is a first member with the incarnation of its disk.
type founder struct {
	ID          string `json:"id"`
	RaftAddress string `json:"raft_address"`
	Incarnation string `json:"incarnation,omitempty"`
}

// identity is what node.json holds. It outlives nothing: a disk that is wiped
// comes back with another incarnation, which is how the others notice (rule R15).
type identity struct {
	Version     int       `json:"version"`
	ID          string    `json:"id"`
	Incarnation string    `json:"incarnation"`
	Phase       phase     `json:"phase"`
	Founders    []founder `json:"founders,omitempty"`
	// Lineage is new whenever the cluster begins again (NewLife); empty where it never
	// did. Nodes of different lineages do not speak Raft with each other.
	Lineage string `json:"lineage,omitempty"`
}

const (
	identityFile = "node.json"
	// identityVersion is the newest that this program reads. It writes the first where
	// there is no lineage, so that a program which knows of none refuses to start.
	identityVersion = 2
	// incarnationBytes makes two disks with one incarnation impossible in practice.
	incarnationBytes = 16
)

// newIdentity is the identity of a disk that was never used.
func newIdentity(id string) identity {
	var b [incarnationBytes]byte
	rand.Read(b[:]) // never fails
	return identity{Version: 1, ID: id, Incarnation: hex.EncodeToString(b[:]), Phase: phaseEmpty}
}

// vouchesFor reports whether the founders name this node with this disk.
func vouchesFor(founders []founder, id, incarnation string) bool {
	return slices.ContainsFunc(founders, func(f founder) bool {
		return f.ID == id && f.Incarnation == incarnation
	})
}

func configuredFounders(peers []Peer) []founder {
	var fs []founder
	for _, p := range peers {
		fs = append(fs, founder{ID: p.ID, RaftAddress: p.RaftAddress})
	}
	return fs
}

// samePeers compares two lists of founders by id and address, in any order.
func samePeers(a, b []founder) bool {
	addresses := func(fs []founder) map[string]string {
		m := make(map[string]string, len(fs))
		for _, f := range fs {
			m[f.ID] = f.RaftAddress
		}
		return m
	}
	x, y := addresses(a), addresses(b)
	if len(x) != len(y) {
		return false
	}
	for id, address := range x {
		if other, ok := y[id]; !ok || other != address {
			return false
		}
	}
	return true
}

// parseIdentity reads what encode wrote. One that can't be understood is
// ErrCorruptDir, and another node's ErrForeignDir.
func parseIdentity(raw []byte, place, id string) (identity, error) {
	me, err := readIdentity(raw, place)
	if err == nil && me.ID != id {
		return identity{}, fmt.Errorf("%w: %s is node %q's, this is %q", ErrForeignDir, place, me.ID, id)
	}
	return me, err
}

// readIdentity is parseIdentity of whichever node.
func readIdentity(raw []byte, place string) (identity, error) {
	path := filepath.Join(place, identityFile)
	var me identity
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&me); err != nil {
		return identity{}, fmt.Errorf("%w: %s: %w", ErrCorruptDir, path, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return identity{}, fmt.Errorf("%w: %s: something follows the identity", ErrCorruptDir, path)
	}
	if me.Version < 1 || me.Version > identityVersion {
		return identity{}, fmt.Errorf("%w: %s has version %d, this program knows %d", ErrCorruptDir, path, me.Version, identityVersion)
	}
	if me.ID == "" || me.Incarnation == "" || me.Phase.order() < 0 {
		return identity{}, fmt.Errorf("%w: %s names no node, disk or phase", ErrCorruptDir, path)
	}
	return me, nil
}

// order is the place of a phase in a disk's life, -1 for what is none.
func (p phase) order() int {
	return slices.Index([]phase{phaseEmpty, phaseAgreed, phaseAdmitted, phaseMember, phaseRemoved}, p)
}

// encode is what parseIdentity reads.
func (me identity) encode() ([]byte, error) {
	if me.Version = 1; me.Lineage != "" {
		me.Version = 2
	}
	raw, err := json.MarshalIndent(me, "", "  ")
	return append(raw, '\n'), err
}
