// Package callmany is the service's end of the rpc CallMany of
// decree.participant.v1: it takes a stream of calls apart and answers each as the
// RPC of its kind would be answered. Services written against transport/branch have
// it already; one that implements participantv1.ParticipantServer by itself adds
//
//	func (s *server) CallMany(stream callmany.Stream) error {
//		return callmany.Serve(stream, s)
//	}
//
// It owns the stream's goroutines, its bounds and the contexts of its calls, and
// refuses to know what a call means; participants/grpc/DESIGN.md says why it is as it
// is. The calls of a stream do not pass a server's unary interceptors: what those keep
// out, a stream interceptor must keep out too.
package callmany

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// Window bounds the calls of a stream that have no answer yet. It is the number of
// RPCs that transport/branch and participants/grpc let one connection have under way.
const Window = 1024

// Stream is what a gRPC server hands to an implementation of CallMany.
type Stream = grpc.BidiStreamingServer[participantv1.CallManyRequest, participantv1.CallManyResponse]

// Handler carries out single calls, many at once, as every
// participantv1.ParticipantServer does.
type Handler interface {
	Prepare(context.Context, *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error)
	Commit(context.Context, *participantv1.CommitRequest) (*participantv1.CommitResponse, error)
	Abort(context.Context, *participantv1.AbortRequest) (*participantv1.AbortResponse, error)
}

// Serve answers the calls that come on stream by asking h, until the caller closes
// its side or the stream breaks. It returns once h has ended all of them. The context
// of a call ends with the caller's patience, when the caller cancels it, and with the
// stream.
//
// Calls of one branch run side by side and may overtake each other, exactly as RPCs
// do. So h has to refuse a prepare that comes after its branch's abort (rule R8), on
// a stream as everywhere.
func Serve(stream Stream, h Handler) error {
	if err := stream.Send(&participantv1.CallManyResponse{Window: Window}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	d := newDesk(ctx, h)
	defer context.AfterFunc(ctx, d.wakeReader)()

	read, sent := make(chan error, 1), make(chan error, 1)
	go func() { read <- d.read(stream) }()
	go func() { sent <- d.send(stream) }()
	select {
	case err := <-read:
		if err != nil {
			cancel()
			d.finishCalls()
			<-sent
			return err
		}
		d.finishCalls()
		return <-sent
	case err := <-sent:
		// An answer cannot be sent, and nobody would hear the others either. The reader
		// may be in Recv, which nothing ends but the return from here; it takes no
		// calls any more.
		cancel()
		d.finishCalls()
		return err
	}
}

// read takes calls in until there are no more. It returns nil when the caller has
// closed its side.
func (d *desk) read(stream Stream) error {
	for {
		frame, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := d.take(frame); err != nil {
			return err
		}
	}
}

// errInUse ends a stream whose caller would not know its answers.
func errInUse(sequence uint64) error {
	return status.Errorf(codes.InvalidArgument, "sequence %d: that call has no answer yet", sequence)
}
