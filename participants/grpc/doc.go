// Package grpcparticipant connects decree to participants that live in other
// processes and speak decree.participant.v1 over gRPC. It holds both ends of
// that wire:
//
//   - [Driver] is the coordinator's end. It turns calls of the participant
//     contract into RPCs, and their answers back into the contract's classes.
//   - [NewServer] is the other end. It puts any participants.Participant behind
//     the wire; [Serve] runs one as a process does.
//
// It owns the translation and refuses to add meaning. Only a typed vote is a
// vote and only a typed receipt is a receipt: every gRPC error, whatever its
// code, and every answer that this package does not understand means "not
// known". The one error with a meaning is FAILED_PRECONDITION with the ErrorInfo
// reason STALE_EPOCH of domain "decree", which is participants.ErrStaleEpoch.
//
// Services written in Go against transport/branch, and those in any other
// language, are driven by the same Driver.
//
// # Streams
//
// While there are calls for a service that has the rpc CallMany, a stream to it is
// open, and prepares, commits and aborts share its messages. It is worth having
// because most of what an RPC costs is gRPC's work for the RPC. What is promised is
// the same: a call has one result, an error of it means "not known" wherever it comes
// from, and messages of one branch may overtake each other, as they may between RPCs,
// so that a participant's refusal of a prepare after the abort (rule R8) matters as
// much. Whenever there is no stream that would take a call, it is an RPC: before the
// service has greeted, after a stream broke, with a service that has none, for a
// large payload, and past the stream's bounds. Recover and Status always are.
package grpcparticipant
