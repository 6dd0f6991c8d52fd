package grpcparticipant

import "github.com/decree-tx/decree/participants"

// Streams reports whether calls of p go by a stream at this moment.
func Streams(p participants.Participant) bool { return p.(*client).streams.current.Load() != nil }
