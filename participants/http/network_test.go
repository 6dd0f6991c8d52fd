package httpparticipant_test

// These tests prove that the network's tricks leave a call unknown and nothing
// else: answers that are cut, too long or for somebody else, services that hang or
// hang up, and connections that are gone when they are needed.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
)

// exchange answers the n-th request of a connection, counted from 1, byte by byte,
// and says whether the connection stays open.
type exchange func(w io.Writer, path string, header http.Header, n int) (keep bool)

// serveRaw runs a service that speaks below HTTP's rules. It gives 501 to recover,
// which the driver asks by itself.
func serveRaw(t *testing.T, answer exchange) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go converse(conn, answer)
		}
	}()
	return "http://" + l.Addr().String()
}

func converse(conn net.Conn, answer exchange) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for n := 1; ; n++ {
		request, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, request.Body); err != nil {
			return
		}
		if request.URL.Path == "/recover" {
			io.WriteString(conn, "HTTP/1.1 501 x\r\nContent-Length: 0\r\n\r\n") //nolint:errcheck // the caller notices
			continue
		}
		if !answer(conn, request.URL.Path, request.Header, n) {
			return
		}
	}
}

// yes is a whole answer to a prepare.
const yes = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n" + `{"vote": "commit"}`

// R5: an answer that did not arrive whole is none, however much of it makes sense.
func TestHalfAnAnswer(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for name, said := range map[string]string{
		"nothing":                    "",
		"half a status line":         "HTTP/1.1 2",
		"no headers":                 "HTTP/1.1 200 OK\r\n",
		"no body":                    head + "Content-Length: 18\r\n\r\n",
		"half a body":                head + "Content-Length: 18\r\n\r\n{\"vote\": ",
		"less than it promised":      head + "Content-Length: 19\r\n\r\n" + `{"vote": "commit"}`,
		"chunks without an end":      head + "Transfer-Encoding: chunked\r\n\r\n12\r\n" + `{"vote": "commit"}` + "\r\n",
		"half a body, to its end":    head + "Connection: close\r\n\r\n" + `{"vote": "commit"`,
		"a body of unknown coding":   head + "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
		"another protocol":           "SSH-2.0-OpenSSH_9.2\r\n",
		"another protocol, accepted": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + `{"vote": "commit"}`,
		"a header without an end":    head + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"a header that is none":      head + strings.Repeat("\x1b[2J", 8000) + "\r\n\r\n",
		"a body without an end":      head + "Connection: close\r\n\r\n" + `{"vote": "commit"` + strings.Repeat(" ", 1<<20) + "}",
	} {
		url := serveRaw(t, func(w io.Writer, _ string, _ http.Header, _ int) bool {
			io.WriteString(w, said) //nolint:errcheck // the caller notices
			return false
		})
		_, err := open(t, httpparticipant.Config{URL: url}).Prepare(bounded(t), newBranch(""))
		mustBeAmbiguous(t, name, err)
		if text := err.Error(); len(text) > 2048 || strings.ContainsAny(text, "\r\n\x1b") {
			t.Errorf("%s: an error of %d bytes: %q", name, len(text), text)
		}
	}
}

// A bound on the answer is a bound on what is read of it.
func TestLongAnswers(t *testing.T) {
	for size, whole := range map[int]bool{64 << 10: true, 64<<10 + 1: false} {
		body := `{"vote": "commit"` + strings.Repeat(" ", size-len(`{"vote": "commit"}`)) + "}"
		_, err := open(t, httpparticipant.Config{URL: serve(t, saysJSON(200, body))}).Prepare(bounded(t), newBranch(""))
		if (err == nil) != whole {
			t.Errorf("a yes of %d bytes: %v", size, err)
		}
	}
	// One that never ends is left as soon as it is too long.
	url := serveRaw(t, func(w io.Writer, _ string, _ http.Header, _ int) bool {
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"+strings.Repeat(" ", 64<<10+1)) //nolint:errcheck // the caller notices
		return true
	})
	_, err := open(t, httpparticipant.Config{URL: url}).Prepare(bounded(t), newBranch(""))
	if err == nil || !strings.Contains(err.Error(), "more than 65536 bytes") {
		t.Errorf("a body without an end: %v", err)
	}
}

// A redirect is never followed: the service at its end was not asked by anybody.
func TestRedirectsAreRefused(t *testing.T) {
	var asked atomic.Int32
	elsewhere := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		saysJSON(200, `{"vote": "commit"}`)(w, r)
	}))
	for _, code := range []int{301, 302, 303, 307, 308} {
		p := open(t, httpparticipant.Config{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere+r.URL.Path, code)
		}))})
		for call, err := range calls(bounded(t), p, newBranch("")) {
			mustBeAmbiguous(t, fmt.Sprintf("%s redirected with %d", call, code), err)
			if !strings.Contains(err.Error(), "redirects are not followed") {
				t.Errorf("%s: %v; want a word about redirects", call, err)
			}
		}
		if _, err := p.Recover(bounded(t), "c1"); err == nil {
			t.Errorf("recover redirected with %d: no error", code)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the redirects' end was asked %d times", n)
	}
}

// A slow service costs its caller no more than the caller's context, and the end
// of the context reaches the service: before its answer, and in the middle of it.
func TestContextEndsASlowCall(t *testing.T) {
	for name, begin := range map[string]string{"before the answer": "", "in the middle of it": `{"vote": "co`} {
		t.Run(name, func(t *testing.T) {
			arrived, ended := make(chan struct{}), make(chan struct{})
			p := open(t, httpparticipant.Config{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/prepare" {
					http.NotFound(w, r)
					return
				}
				io.Copy(io.Discard, r.Body) //nolint:errcheck // the server notices a caller's end once it has read
				if begin != "" {
					w.Header().Set("Content-Type", "application/json")
					io.WriteString(w, begin) //nolint:errcheck // the caller notices
					w.(http.Flusher).Flush() //nolint:errcheck // httptest's can
				}
				close(arrived)
				<-r.Context().Done()
				close(ended)
			}))})
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error, 1)
			go func() {
				_, err := p.Prepare(ctx, newBranch(""))
				failed <- err
			}()
			<-arrived
			cancel()
			err := <-failed
			mustBeAmbiguous(t, "ended "+name, err)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v; want the context's end in it", err)
			}
			<-ended
		})
	}
}

// A service that closes a kept connection just as a prepare goes out on it does
// not abort the transaction: the prepare is sent again. It carries no key that a
// gateway could answer it by.
func TestConnectionClosedBetweenRequests(t *testing.T) {
	var seen, keyed atomic.Int32
	url := serveRaw(t, func(w io.Writer, _ string, header http.Header, n int) bool {
		seen.Add(1)
		if _, ok := header["Idempotency-Key"]; ok {
			keyed.Add(1)
		}
		if n > 1 {
			return false // read, and never answered
		}
		io.WriteString(w, yes) //nolint:errcheck // the caller notices
		return true
	})
	p := open(t, httpparticipant.Config{URL: url})
	for range 3 {
		if vote, err := p.Prepare(bounded(t), newBranch("")); err != nil || vote != participants.Yes() {
			t.Fatalf("prepare: %v, %v", vote, err)
		}
	}
	if n := seen.Load(); n != 5 { // the first, and each of the others twice
		t.Errorf("the service has seen %d requests, want 5: no request went out on a kept connection", n)
	}
	if keyed.Load() != 0 {
		t.Error("an Idempotency-Key was sent")
	}
}

// R5: on a new connection nothing is sent again, whatever becomes of it: that
// retry is the coordinator's.
func TestConnectionClosedUnderTheFirstRequest(t *testing.T) {
	var seen atomic.Int32
	url := serveRaw(t, func(io.Writer, string, http.Header, int) bool {
		seen.Add(1)
		return false
	})
	_, err := open(t, httpparticipant.Config{URL: url}).Prepare(bounded(t), newBranch(""))
	mustBeAmbiguous(t, "cut without an answer", err)
	if n := seen.Load(); n != 1 {
		t.Errorf("the request was sent %d times", n)
	}
}

// A service that is killed and started again on its address is found by the same
// driver.
func TestServiceComesBack(t *testing.T) {
	first := httptest.NewServer(saysJSON(200, `{"vote": "commit"}`))
	addr := first.Listener.Addr().String()
	p := open(t, httpparticipant.Config{URL: first.URL})
	if _, err := p.Prepare(bounded(t), newBranch("")); err != nil {
		t.Fatal(err)
	}
	first.CloseClientConnections()
	first.Close()
	_, err := p.Prepare(bounded(t), newBranch(""))
	mustBeAmbiguous(t, "while the service is down", err)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	second := httptest.NewUnstartedServer(saysJSON(200, `{"vote": "commit"}`))
	second.Listener.Close() //nolint:errcheck // it has another one
	second.Listener = l
	second.Start()
	t.Cleanup(second.Close)
	if _, err := p.Prepare(bounded(t), newBranch("")); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

// R14: connections are bounded. A prepare may wait in the service for a lock that
// only a commit frees: that commit finds a connection.
func TestCommitIsNotHeldUpByPrepares(t *testing.T) {
	var prepares, most atomic.Int32
	waiting, committed := make(chan struct{}, 8), make(chan struct{})
	p := openOverOne(t, &scripted{
		prepare: func(context.Context, participants.Branch) (participants.Vote, error) {
			most.Store(max(most.Load(), prepares.Add(1)))
			defer prepares.Add(-1)
			waiting <- struct{}{}
			<-committed
			return participants.Yes(), nil
		},
		commit: func(context.Context, participants.Branch) error { close(committed); return nil },
	})
	votes := make(chan error, 8)
	for range cap(votes) {
		go func() {
			_, err := p.Prepare(bounded(t), newBranch(""))
			votes <- err
		}()
	}
	<-waiting
	if err := p.Commit(bounded(t), newBranch("")); err != nil {
		t.Fatalf("commit: %v", err)
	}
	for range cap(votes) {
		if err := <-votes; err != nil {
			t.Errorf("prepare: %v", err)
		}
	}
	if n := most.Load(); n != 1 {
		t.Errorf("%d prepares at once over one connection", n)
	}
}

// openOverOne is openOver with one connection of each kind.
func openOverOne(t *testing.T, p participants.Participant) participants.Participant {
	t.Helper()
	url := serve(t, httpparticipant.Handler(p, httpparticipant.Options{}))
	return open(t, httpparticipant.Config{URL: url, MaxConnections: 1})
}

// No error shows what a service was sent, or a page that somebody else served.
func TestErrorsDoNotQuote(t *testing.T) {
	p := open(t, httpparticipant.Config{URL: serve(t, says(500, "text/html", "<pre>stack trace</pre>"))})
	for call, err := range calls(bounded(t), p, newBranch(`{"card": "4111"}`)) {
		if text := []byte(err.Error()); bytes.Contains(text, []byte("4111")) || bytes.Contains(text, []byte("stack")) {
			t.Errorf("%s: %v", call, err)
		}
	}
}
