// Package operator serves those who run a process: what it counts, whether it is well,
// its profiles (net/http/pprof), and the levels of its log.
//
// It owns who may reach them: nobody has to say who he is, profiles show what the
// process holds in memory, and taking one costs time, so that they are loopback's alone
// unless somebody says otherwise. It refuses to serve anything that clients need.
package operator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"syscall"
	"time"

	"github.com/decree-tx/decree/cmd/internal/logs"
	"github.com/decree-tx/decree/transport/loopback"
)

// headerTimeout bounds how long a caller may take over its request's header.
const headerTimeout = 5 * time.Second

// Check reports what is wrong with an address to serve operators at, host:port. A host
// that is not loopback is wrong unless public is set.
func Check(address string, public bool) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q: want host:port", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && !public {
		return fmt.Errorf("%q: profiles show what the process holds in memory; name a loopback host, or set operator-public", address)
	}
	return nil
}

// Config is what there is to be served. Any of it may be nil.
type Config struct {
	Metrics http.Handler
	// Ready says why the process cannot serve clients now; nil where it can.
	Ready  func() error
	Levels *logs.Levels
}

// Server serves operators.
type Server struct {
	http  *http.Server
	addr  net.Addr
	ended chan struct{} // closed when nothing serves any more
}

// Listen serves at an address that Check has passed. Close the server.
func Listen(address string, cfg Config) (*Server, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("operator-addr: another process listens on %s: %w", address, err)
	case err != nil:
		return nil, fmt.Errorf("operator-addr: %w", err)
	}
	s := &Server{
		http:  &http.Server{Handler: loopback.Guard(handler(cfg)), ReadHeaderTimeout: headerTimeout},
		addr:  l.Addr(),
		ended: make(chan struct{}),
	}
	go func() {
		defer close(s.ended)
		s.http.Serve(l) //nolint:errcheck // it ends when it is closed; nothing depends on it
	}()
	return s, nil
}

// handler is the operators' own: the default mux would show profiles wherever else
// somebody serves that.
func handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index) // and heap, goroutine, allocs, block, mutex below it
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") }) //nolint:errcheck // the caller's matter
	mux.HandleFunc("GET /readyz", cfg.ready)
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", cfg.Metrics)
	}
	if cfg.Levels != nil {
		mux.HandleFunc("GET /log-level", cfg.showLevels)
		mux.HandleFunc("PUT /log-level", cfg.setLevel)
	}
	return mux
}

func (c Config) ready(w http.ResponseWriter, _ *http.Request) {
	if c.Ready != nil {
		if err := c.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	io.WriteString(w, "ready\n") //nolint:errcheck // the caller's matter
}

func (c Config) showLevels(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(c.Levels.All()) //nolint:errcheck,errchkjson // the caller's matter
}

// setLevel answers with the levels as they are then.
func (c Config) setLevel(w http.ResponseWriter, r *http.Request) {
	if err := c.Levels.Set(r.URL.Query().Get("logger"), r.URL.Query().Get("level")); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.showLevels(w, r)
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.addr }

// Close cuts whoever is taking a profile.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.ended
	return err
}
