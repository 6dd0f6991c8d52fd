// Package debug serves a process's profiles (net/http/pprof) while somebody looks
// for where its time or memory goes.
//
// It owns who may reach them: profiles show what the process holds in memory, and
// taking one costs time, so that they are loopback's alone unless somebody says
// otherwise. It refuses to serve anything else.
package debug

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"syscall"
	"time"
)

// headerTimeout bounds how long a caller may take over its request's header.
const headerTimeout = 5 * time.Second

// Check reports what is wrong with an address to serve profiles at, host:port. A
// host that is not loopback is wrong unless public is set.
func Check(address string, public bool) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q: want host:port", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && !public {
		return fmt.Errorf("%q: profiles show what the process holds in memory; name a loopback host, or set debug-public", address)
	}
	return nil
}

// Server serves profiles below /debug/pprof/.
type Server struct {
	http  *http.Server
	addr  net.Addr
	ended chan struct{} // closed when nothing serves any more
}

// Listen serves at an address that Check has passed. Close the server.
func Listen(address string, metrics http.Handler) (*Server, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("debug-listen: another process listens on %s: %w", address, err)
	case err != nil:
		return nil, fmt.Errorf("debug-listen: %w", err)
	}
	s := &Server{
		http:  &http.Server{Handler: handler(metrics), ReadHeaderTimeout: headerTimeout},
		addr:  l.Addr(),
		ended: make(chan struct{}),
	}
	go func() {
		defer close(s.ended)
		s.http.Serve(l) //nolint:errcheck // it ends when it is closed; nothing depends on it
	}()
	return s, nil
}

// handler is the profiles' own: the default mux would show them wherever else
// somebody serves that.
func handler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index) // and heap, goroutine, allocs, block, mutex below it
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	if metrics != nil {
		mux.Handle("/metrics", metrics)
	}
	return mux
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.addr }

// Close cuts whoever is taking a profile.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.ended
	return err
}
