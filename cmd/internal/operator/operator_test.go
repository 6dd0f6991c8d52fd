package operator

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cmd/internal/logs"
)

// What is proven here: profiles are served where they were asked for, and nobody
// puts them on a network by omission.

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		address string
		public  bool
		want    string // in the complaint; empty for none
	}{
		{"127.0.0.1:6060", false, ""},
		{"[::1]:6060", false, ""},
		{"localhost:0", false, ""},
		{"0.0.0.0:6060", false, "loopback"},
		{":6060", false, "loopback"},
		{"10.0.0.1:6060", false, "loopback"},
		{"db.example:6060", false, "loopback"},
		{"0.0.0.0:6060", true, ""},
		{"6060", true, "host:port"},
		{"localhost:http", false, "host:port"},
		{"localhost:70000", false, "host:port"},
	} {
		err := Check(tt.address, tt.public)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, public %t: %v, want %q in it", tt.address, tt.public, err, tt.want)
		}
	}
}

func TestProfilesAreServed(t *testing.T) {
	s, err := Listen("127.0.0.1:0", Config{})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (string, error) {
		answer, err := http.Get("http://" + s.Addr().String() + path)
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return answer.Status + " " + string(body), err
	}
	if got, err := get("/debug/pprof/goroutine?debug=1"); err != nil || !strings.Contains(got, "goroutine profile") {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := get("/"); err != nil || !strings.HasPrefix(got, "404") {
		t.Errorf("at the root: %q, %v", got, err)
	}
	if _, err := Listen(s.Addr().String(), Config{}); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second one: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := get("/debug/pprof/"); err == nil {
		t.Errorf("closed, and serves %q", got)
	}
}

// A load balancer and a person with a question: what they ask is told, and a level that
// somebody changes holds.
func TestHealthAndLevels(t *testing.T) {
	log, levels := logs.New(io.Discard, hclog.Info, false)
	raft := log.Named("raft")
	var unready error
	s, err := Listen("127.0.0.1:0", Config{
		Ready: func() error { return unready }, Levels: levels,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "counted 1\n") }),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ask := func(method, path string, status int, want string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != status || !strings.Contains(string(body), want) {
			t.Errorf("%s %s: %s %q, %v; want %d %q", method, path, answer.Status, body, err, status, want)
		}
	}
	ask("GET", "/healthz", 200, "ok")
	ask("GET", "/metrics", 200, "counted 1")
	ask("GET", "/readyz", 200, "ready")
	unready = errors.New("no leader")
	ask("GET", "/readyz", 503, "no leader")
	ask("GET", "/healthz", 200, "ok")

	ask("GET", "/log-level", 200, `{"logger":"decree.raft","level":"info","own":false}`)
	ask("PUT", "/log-level?logger=raft&level=debug", 200, `{"logger":"decree.raft","level":"debug","own":true}`)
	if !raft.IsDebug() || log.IsDebug() {
		t.Error("the level does not hold")
	}
	ask("PUT", "/log-level?logger=nobody&level=debug", 400, "no logger")
	ask("POST", "/log-level?level=off", 405, "")

	page, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+s.Addr().String()+"/log-level?level=off", nil)
	if err != nil {
		t.Fatal(err)
	}
	page.Host = "evil.example" // whose name leads here
	answer, err := http.DefaultClient.Do(page)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusMisdirectedRequest || !log.IsInfo() {
		t.Errorf("a page changes a level: %s", answer.Status)
	}
}
