// Package transport serves a node to clients: the gRPC services of decree.v1,
// health and reflection, and the same API as JSON over HTTP. Every node serves
// all of it; what only the leader can do is forwarded to it, and repeated under
// the same txid through a change of leader, so that a client never needs to know
// who leads and gets one definite outcome.
//
// Submissions may come as calls or, in frames, by a stream (SubmitMany), which the
// SDK and nodes that forward use: it costs a tenth. Either way one is checked, routed
// and answered by the same code. The stream takes no part in what a submission means.
//
// It owns the shape of requests and answers, the mapping of errors to codes
// (status.go) and the bounds at the door. It makes no outcome: what it answers as
// decided, the coordinator or the applied state said (rules R1 and R2).
package transport
