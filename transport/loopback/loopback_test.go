package loopback_test

// What is proven here: whatever name a page's owner gives 127.0.0.1, the page is not
// served, and whoever calls by address is.

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/decree-tx/decree/transport/loopback"
)

func TestGuard(t *testing.T) {
	h := loopback.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, tt := range []struct {
		at, host string
		want     int
	}{
		{"127.0.0.1", "127.0.0.1:7201", 200},
		{"127.0.0.1", "127.0.0.1", 200},
		{"127.0.0.1", "10.0.0.1:7201", 200},
		{"127.0.0.1", "localhost:7201", 200},
		{"127.0.0.1", "LOCALHOST.", 200},
		{"127.0.0.1", "n1.localhost:7201", 200},
		{"127.0.0.1", "", 200},
		{"::1", "[::1]:7201", 200},
		{"::1", "[::1]", 200},
		{"127.0.0.1", "evil.example:7201", 421},
		{"127.0.0.1", "evil.example", 421},
		{"127.0.0.1", "127.0.0.1.evil.example:7201", 421},
		{"127.0.0.1", "localhost.evil.example", 421},
		{"127.0.0.1", "evillocalhost", 421},
		{"127.8.0.1", "evil.example", 421},
		{"::1", "evil.example:7201", 421},
		{"10.0.0.1", "n1.example:7201", 200},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = tt.host
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.ParseIP(tt.at)})))
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != tt.want {
			t.Errorf("%q at %s: %d, want %d", tt.host, tt.at, w.Code, tt.want)
		}
	}
}
