package transport

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"google.golang.org/grpc"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// snapshotChunk bounds a message of a snapshot.
const snapshotChunk = 256 << 10

// snapshots is decree.v1.Snapshots.
type snapshots struct {
	decreev1.UnimplementedSnapshotsServer
	*Server
	turn chan struct{} // held while a state is written: one at a time costs enough
}

func newSnapshots(s *Server) *snapshots { return &snapshots{Server: s, turn: make(chan struct{}, 1)} }

// Save implements the RPC.
func (s *snapshots) Save(req *decreev1.SaveRequest, stream grpc.ServerStreamingServer[decreev1.SaveResponse]) error {
	err := s.save(stream.Context(), req, stream.Send)
	if err != nil && s.ended.Err() != nil {
		err = errStopping
	}
	return refuse(err, "")
}

func (s *snapshots) save(ctx context.Context, req *decreev1.SaveRequest, send func(*decreev1.SaveResponse) error) error {
	switch now := s.observer.view(); {
	case req.GetLocal():
		return s.write(send)
	case s.cfg.Coordinator.Leads():
		if err := s.cfg.Node.Barrier(ctx); err != nil {
			return err
		}
		return s.write(send)
	case hops(ctx) > 0 || now.leader == (cluster.Peer{}) || now.leader.ID == s.observer.self:
		return fmt.Errorf("%w, and knows of no other that does: what this node has itself can be had as a local snapshot", coordinator.ErrNotLeader)
	default:
		return s.relay(ctx, now.leader, req, send)
	}
}

// relay has the leader answer.
func (s *snapshots) relay(ctx context.Context, leader cluster.Peer, req *decreev1.SaveRequest, send func(*decreev1.SaveResponse) error) error {
	conn, err := s.link.connect(ctx, leader)
	if err != nil {
		return err
	}
	from, err := decreev1.NewSnapshotsClient(conn).Save(passedOn(ctx), req)
	if err != nil {
		return err
	}
	for {
		part, err := from.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := send(part); err != nil {
			return err
		}
	}
}

// write sends what is applied here.
func (s *snapshots) write(send func(*decreev1.SaveResponse) error) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	default:
		return &coordinator.BusyError{What: "another snapshot is being taken from this node", RetryAfter: busyDelay}
	}
	state, err := s.cfg.Machine.Copy()
	switch {
	case err != nil:
		return err
	case state.Cluster == "":
		return fmt.Errorf("%w: there is nothing to save", fsm.ErrNoCluster)
	}
	header := &decreev1.SnapshotHeader{
		Cluster: state.Cluster, Index: state.Index, Epoch: state.Epoch, ClusterTime: timeMessage(state.Time),
		Node: s.cfg.Node.Status().ID, Version: s.cfg.Version, Level: uint32(state.Level),
	}
	if err := send(&decreev1.SaveResponse{Part: &decreev1.SaveResponse_Header{Header: header}}); err != nil {
		return err
	}
	chunks := &chunkWriter{send: send, sum: sha256.New()}
	buffered := bufio.NewWriterSize(chunks, snapshotChunk)
	if err := errors.Join(state.WriteSnapshot(buffered), buffered.Flush()); err != nil {
		return err
	}
	end := &decreev1.SnapshotEnd{Bytes: chunks.n, Sha256: chunks.sum.Sum(nil)}
	return send(&decreev1.SaveResponse{Part: &decreev1.SaveResponse_End{End: end}})
}

// chunkWriter sends what is written to it.
type chunkWriter struct {
	send func(*decreev1.SaveResponse) error
	sum  hash.Hash
	n    uint64
}

// Write implements io.Writer. The message is marshalled before it returns.
func (w *chunkWriter) Write(p []byte) (int, error) {
	w.sum.Write(p)
	for rest := p; len(rest) > 0; {
		n := min(len(rest), snapshotChunk)
		if err := w.send(&decreev1.SaveResponse{Part: &decreev1.SaveResponse_Chunk{Chunk: rest[:n]}}); err != nil {
			return 0, err
		}
		w.n += uint64(n)
		rest = rest[n:]
	}
	return len(p), nil
}
