package debug

import (
	"io"
	"net/http"
	"strings"
	"testing"
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
	s, err := Listen("127.0.0.1:0", nil)
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
	if _, err := Listen(s.Addr().String(), nil); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second one: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := get("/debug/pprof/"); err == nil {
		t.Errorf("closed, and serves %q", got)
	}
}
