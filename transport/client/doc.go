// Package client is the Go SDK for applications that run transactions through
// decree.
//
//	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"}})
//	...
//	defer c.Close()
//
//	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
//	defer cancel()
//	r, err := c.Submit(ctx, client.Transaction{Branches: []client.Branch{
//		client.JSON("bank-a", debit),
//		client.JSON("bank-b", credit),
//	}})
//
// # Outcomes
//
// There are three. Committed and Aborted come as a [Result], for an abort is an
// answer and not a failure; [Result.Err] turns it into an error for those who
// prefer that. The third is Unknown: the context ended before anybody could say,
// and Submit returned an *[UnknownError]. The transaction may still commit. Ask
// again with the same txid, by Submit or [Client.Inquire], before doing anything
// that would be wrong if it did.
//
// # Retries
//
// A call goes to the leader, which the client follows by the nodes' health, and
// otherwise to any node, which forwards it. When the connection breaks, the
// leader fails, or the cluster is busy, the client sends the same call with the
// same txid again until the context ends: a txid never runs twice, so a Submit
// through a failover returns one definite outcome. Give every context a deadline.
//
// The submissions of a Client to one node share a stream, which costs a tenth of as
// many calls, so that a process should have one Client. Only the time that a context
// has left travels with a submission: one that is cancelled before its deadline is
// followed by the node until then, to no effect. Where a node has no such stream, or
// a submission is large, it is a call.
//
// A transaction that was aborted is over. [Client.Run] submits it anew, under
// another txid, by a policy.
//
// # Interactive transactions
//
// [Client.Begin] opens a transaction to which branches are enlisted one by one,
// until [Tx.Commit] or [Tx.Abort]. A branch may also be [External]: the
// application does the work in its own database transaction, prepares that under
// the name which Enlist returned, and hands the vote to Commit. Packages decreepg
// and decreesql of transport/branch do that for PostgreSQL and MariaDB.
//
// # Several clusters
//
// Where one leader is not enough, or regions should have their own, [Groups] runs each
// transaction on one of several clusters, which share nothing. The txid is made first, and
// the cluster is the one that it belongs to: whoever asks again with it meets the same one.
// A Client of one such cluster makes txids of its group, and is refused others with
// [ErrOtherGroup], under which nothing was done.
//
// # Security
//
// Where nodes have certificates, [Config.Security] names the cluster's authorities and
// what says who the caller is: a certificate with its key, or a token. All of them are
// files that may be replaced while the client runs. A client sees and ends what it
// began, and another's transaction is [ErrNotFound] to it, or [ErrReused]; what its role
// may not do is [ErrDenied], and a caller that is not known [ErrUnauthenticated].
//
// # Errors
//
// A refusal is an *[Error] whose [Reason] is matched by errors.Is with the
// sentinels of this package, such as [ErrUnknownParticipant]. Administration and
// reads give plain protobuf messages: they are for tools.
package client
