package httpparticipant_test

// These tests prove that a configuration is refused with everything that is wrong
// with it, and that no refusal shows what may be a secret in the wrong place.

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
)

func TestCheckConfig(t *testing.T) {
	const https = `"url": "https://orders.internal/decree"`
	for config, want := range map[string]string{ // "" for what is taken
		`{` + https + `}`:                                                          "",
		`{"url": "https://orders.internal:8443"}`:                                  "",
		`{"url": "https://[2001:db8::1]:8443/a/b/"}`:                               "",
		`{"url": "http://127.0.0.1:7311"}`:                                         "",
		`{"url": "http://localhost:7311/"}`:                                        "",
		`{"url": "http://[::1]:7311"}`:                                             "",
		`{"url": "http://orders", "insecure": true}`:                               "",
		`{` + https + `, "insecure": false}`:                                       "",
		`{` + https + `, "proxy_from_environment": true, "max_connections": 1024}`: "",
		`{` + https + `, "token": "env:TOKEN", "ca": "file:/ca", "certificate": "file:/c", "key": "env:K", "server_name": "x"}`: "",

		``:                                      "empty",
		`{}`:                                    "url: missing",
		`[]`:                                    "config",
		`{` + https + `} {}`:                    "something follows",
		`{` + https + `, "a": 1}`:               `unknown field "a"`,
		`{"url": "orders.internal/decree"}`:     "want https://HOST/PATH",
		`{"url": "ftp://orders.internal"}`:      "want https://HOST/PATH",
		`{"url": "https:orders"}`:               "want https://HOST/PATH",
		`{"url": "https://"}`:                   "no host",
		`{"url": "https://:8443"}`:              "no host",
		`{"url": "https://orders:0"}`:           "port",
		`{"url": "https://orders:"}`:            "port",
		`{"url": "https://orders:99999"}`:       "port",
		`{"url": "https://bob:hunter2@orders"}`: "use token",
		`{"url": "https://orders?key=hunter2"}`: "a query",
		`{"url": "https://orders?"}`:            "a query",
		`{"url": "https://orders#hunter2"}`:     "a query or a fragment",
		`{"url": "https://hunter2\u0000/"}`:     "not a URL",
		`{"url": "https://orders/` + strings.Repeat("x", 2048) + `"}`: "not a URL of at most 2048 bytes",
		`{"url": "http://orders.internal"}`:                           "plain http",
		`{"url": "http://127.0.0.1", "insecure": false}`:              "plain http",
		`{` + https + `, "insecure": true}`:                           "insecure: has no meaning",
		`{"url": "http://localhost", "ca": "file:/ca"}`:               "ca: has no meaning",
		`{"url": "http://localhost", "server_name": "x"}`:             "server_name: has no meaning",
		`{` + https + `, "token": "hunter2"}`:                         "token: want a reference",
		`{` + https + `, "ca": "ca.pem"}`:                             "ca: want a reference",
		`{` + https + `, "certificate": "file:/c"}`:                   "both or neither",
		`{` + https + `, "key": "file:/k"}`:                           "both or neither",
		`{` + https + `, "max_connections": -1}`:                      "max_connections",
		`{` + https + `, "max_connections": 1025}`:                    "max_connections",
	} {
		err := httpparticipant.Driver{}.Check([]byte(config))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", config, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v; want a word about %q", config, err, want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: %v quotes a secret", config, err)
		}
		if want == "" {
			continue
		}
		if _, err := (httpparticipant.Driver{}).Open(t.Context(), participants.Registration{Config: []byte(config)}, hclog.NewNullLogger()); err == nil {
			t.Errorf("%s is opened", config)
		}
	}
}

func TestCheckReportsEveryProblem(t *testing.T) {
	err := httpparticipant.Driver{}.Check([]byte(
		`{"url": "http://bob@orders:0?a#b", "token": "x", "ca": "x", "certificate": "x", "max_connections": 9999}`))
	for _, want := range []string{"use token", "port", "query", "token: want", "ca: want", "certificate: want", "both or neither", "max_connections"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want a word about %q", err, want)
		}
	}
}

// The proxy of the environment sees branches only where that was asked for. The
// standard library reads the environment once, so a process of its own looks.
func TestProxyFromEnvironment(t *testing.T) {
	if os.Getenv("HTTP_PROXY") == "" || os.Getenv("DECREE_TEST_PROXY") == "" {
		lookThroughProxies(t)
		return
	}
	yes := true
	p := open(t, httpparticipant.Config{
		URL: "http://service.invalid", Insecure: &yes, ProxyFromEnvironment: os.Getenv("DECREE_TEST_PROXY") == "ask",
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := p.Prepare(ctx, newBranch("")); err != nil {
		t.Log(err) // the name does not resolve, where no proxy does it
	}
}

func lookThroughProxies(t *testing.T) {
	var seen atomic.Int32
	proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() == "http://service.invalid/prepare" {
			seen.Add(1)
		}
		agree(w, r)
	}))
	for asked, want := range map[string]int32{"ask": 1, "ignore": 0} {
		seen.Store(0)
		child := exec.Command(os.Args[0], "-test.run=^TestProxyFromEnvironment$", "-test.v")
		child.Env = append(os.Environ(), "HTTP_PROXY="+proxy, "NO_PROXY=", "DECREE_TEST_PROXY="+asked)
		if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		if n := seen.Load(); n != want {
			t.Errorf("asked to %s the proxy: it has seen %d prepares, want %d", asked, n, want)
		}
	}
}
