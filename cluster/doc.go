// Package cluster owns one Raft node: its stores, its port, its place in the
// cluster and the terms in which it leads. It knows [raft.FSM] and bytes, and
// refuses to know what the bytes mean.
//
// What it adds to hashicorp/raft v1.7.3:
//
//   - Leadership is a context ([Node.Lead]): work runs only inside a term that a
//     barrier has opened, and the next term starts only after it has ended.
//   - Errors come in two classes ([ErrNotLeader], [ErrUnknown]): never appended,
//     or nobody can tell.
//   - A disk that fails or hangs ends the process, so that another node leads.
//   - A node has an identity on its disk. An empty disk neither bootstraps nor
//     votes before every configured node has said that this is its first life, or
//     a leader has admitted it.
//   - The places where the library is known to go wrong are worked around; each
//     carries the number of the upstream issue.
package cluster
