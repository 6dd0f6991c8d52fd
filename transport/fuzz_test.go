package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/fsm/txn"
)

// recorder is an httptest.ResponseRecorder with the deadlines of a connection,
// which never pass here.
type recorder struct{ *httptest.ResponseRecorder }

func (recorder) SetReadDeadline(time.Time) error  { return nil }
func (recorder) SetWriteDeadline(time.Time) error { return nil }

// allocated is how many bytes f allocates in this process, whether or not they are
// freed.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// FuzzGateway holds that whatever a client sends, the gateway and the gRPC server
// behind it answer, and do not panic (net/http would hide that, so the handler runs
// without it); that where all is well with the node no request is answered with a
// failure of the server's; that every answer is JSON, and bounded, however much is
// wrong with the request; that one past the bound is refused as too large; and that
// memory stays in proportion to the request (rule R14).
func FuzzGateway(f *testing.F) {
	const most = 16 << 10
	n := (&world{}).serve(f, "n1", func(c *Config) { c.MaxRequestBytes = most })
	n.coordinator.lead(true)
	n.node.believe("n1")
	n.log.register("bank-a", "bank-b")
	known := someTxID
	id, err := txn.ParseTxID(known)
	if err != nil {
		f.Fatal(err)
	}
	n.log.apply(txn.Stage{ID: id, Branches: []txn.Branch{txn.NewBranch("bank-a", []byte("x"))}, Timeout: 1e9})
	for _, seed := range [][3]string{
		{"POST", "/v1/transactions", twoBranches},
		{"POST", "/v1/transactions", `{"txid":"x","timeout":"-1s","wait":7,"branches":[{},{}]}`},
		{"POST", "/v1/transactions", `{"branches":[{"participant":"p","json":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}]}`},
		{"POST", "/v1/transactions", strings.Repeat(" ", most+1)},
		{"POST", "/v1/transactions:begin", `{"timeout":"30s"}`},
		{"POST", "/v1/transactions/" + known + ":enlist", `{"branch":{"participant":"bank-a"},"external":true}`},
		{"POST", "/v1/transactions/" + known + ":commit", `{"votes":[{"branch":1,"vote":"VOTE_COMMIT"}],"wait":"WAIT_DECISION"}`},
		{"POST", "/v1/transactions/" + known + ":abort", `{"reason":"\u0000\ud800"}`},
		{"POST", "/v1/transactions/" + known + ":inquire", ""},
		{"GET", "/v1/transactions/" + known, ""},
		{"GET", "/v1/transactions/%2e%2e%2f%00'%3BDROP%20TABLE", ""},
		{"GET", "/v1/transactions/%ff", ""},
		{"GET", "/v1/transactions?participant=%ff&page_token=%ff", ""},
		{"GET", "/v1/transactions?page_size=-1&states=STATE_PREPARING&participant=bank-b&page_token=x", ""},
		{"GET", "/v1/transactions?" + strings.Repeat("a=1&", 300), ""},
		{"GET", "/v1/transactions:watch?txid=" + known, ""},
		{"PUT", "/v1/participants/bank-b", `{"driver":"fake","config":{"path":"x"}}`},
		{"GET", "/v1/participants", ""},
		{"POST", "/v1/participants/bank-a:check", ""},
		{"DELETE", "/v1/participants/bank-a", ""},
		{"POST", "/v1/cluster/nodes", `{"id":"n4","raft_address":"127.0.0.1:1"}`},
		{"POST", "/v1/cluster:transferLeadership", ""},
		{"GET", "/v1/cluster", ""},
		{"GET", "/healthz", ""},
		{"HEAD", "/readyz", ""},
		{"PATCH", "//v1/../v1/transactions", "{}"},
		{"OPTIONS", "*", ""},
	} {
		f.Add(seed[0], seed[1], []byte(seed[2]))
	}
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if len(method)+len(target) > httpMaxHeader {
			return // net/http answers 431
		}
		head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: decree\r\n\r\n", method, target)
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
		if err != nil || req.URL == nil {
			return // net/http answers 400
		}
		req = req.WithContext(ctx)
		req.Body, req.ContentLength = http.NoBody, int64(len(body))
		if len(body) > 0 {
			req.Body = http.MaxBytesReader(nil, readCloser{bytes.NewReader(body)}, 1<<62)
		}
		if strings.Contains(target, "watch") || strings.Contains(req.URL.Path, "watch") {
			time.AfterFunc(time.Millisecond, cancel) // a stream goes on until its client leaves
		}
		w := recorder{httptest.NewRecorder()}
		size := len(head) + len(body)
		memory := allocated(func() { n.http.Handler.ServeHTTP(w, req) })
		if memory > 512*size+4<<20 {
			t.Fatalf("%d bytes of memory for a request of %d", memory, size)
		}
		answer := w.Body.Bytes()
		if w.Code >= 500 {
			t.Fatalf("%s %q is answered with %d %.500s", req.Method, target, w.Code, answer)
		}
		if len(answer) > 16*size+64<<10 {
			t.Fatalf("an answer of %d bytes to a request of %d", len(answer), size)
		}
		served := strings.HasPrefix(req.URL.Path, "/v1/") && w.Code != http.StatusTemporaryRedirect && w.Code != http.StatusMovedPermanently
		if len(body) > most && served && w.Code != http.StatusRequestEntityTooLarge {
			t.Fatalf("%d bytes of body are answered with %d %.500s", len(body), w.Code, answer)
		}
		for line := range bytes.Lines(answer) {
			if w.Header().Get("Content-Type") == "application/json" && !json.Valid(line) {
				t.Fatalf("an answer of %.500q", answer)
			}
		}
	})
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }
