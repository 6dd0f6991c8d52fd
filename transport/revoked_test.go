// These tests prove that a token which was taken out of the access file ends what was
// opened with it, by whatever way that came, and however quiet it is.
package transport

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/decree-tx/decree/transport/access"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/certs"
)

// TestTheClusterIsNotWatchedWithADeadToken, over gRPC.
func TestTheClusterIsNotWatchedWithADeadToken(t *testing.T) {
	token, line := access.NewToken(certs.Identity{Role: certs.Reader, Name: "page"})
	c := newCastle(t, line)
	n := c.leaderNode("n1")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	watch, err := decreev1.NewLiveClient(c.dial(n, "")).WatchCluster(ctx, &decreev1.WatchClusterRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	c.admit()
	for range 2 { // one may have been on its way
		if _, err = watch.Recv(); err != nil {
			break
		}
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("the watch goes on: %v", err)
	}
}

// TestAPagesWatchesEndWithItsToken: the gateway passes a token on, and not only whom it
// was found to be for.
func TestAPagesWatchesEndWithItsToken(t *testing.T) {
	token, line := access.NewToken(certs.Identity{Role: certs.Reader, Name: "page"})
	c := newCastle(t, line)
	n := c.leaderNode("n1")
	cfg := c.source("client/web").Client("")
	cfg.Certificates = nil
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
	defer web.CloseIdleConnections()
	open := func(path string) *bufio.Reader {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(n.web, "http:", "https:", 1)+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		if answer.StatusCode != http.StatusOK {
			t.Fatal(answer.Status)
		}
		return bufio.NewReader(answer.Body)
	}
	cluster := open("/v1/live:watch")
	if _, err := cluster.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.admit()
	for range 2 { // one may have been on its way
		said, err := cluster.ReadString('\n')
		if errors.Is(err, io.EOF) || strings.Contains(said, `"UNAUTHENTICATED"`) {
			return
		}
	}
	t.Error("the watch goes on")
}
