package papers_test

// What is proven here: every holder of a run's papers is let in by the others and a
// stranger is not; what is replaced is in use for new connections while open ones go on;
// and without papers everything is plain text.

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/decree-tx/decree/cmd/internal/papers"
	"github.com/decree-tx/decree/transport/certs"
)

func issued(t *testing.T, life time.Duration) *papers.Papers {
	t.Helper()
	p, err := papers.New(papers.Config{Dir: filepath.Join(t.TempDir(), "certs"), Life: life, Nodes: []string{"n1"}, Services: []string{"bank"}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// named are the files that a holder was told of, in either way.
func named(told []string) certs.Files {
	var paths []string
	for _, word := range told {
		if _, path, ok := strings.Cut(word, "="); ok {
			word = path
		}
		if filepath.IsAbs(word) {
			paths = append(paths, word)
		}
	}
	return certs.Files{CA: paths[0], Certificate: paths[1], Key: paths[2]}
}

// service serves health with what a participant's process was told of.
func service(t *testing.T, p *papers.Papers) (address string) {
	t.Helper()
	source, err := certs.Open(named(p.Service("bank")), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(source.ServerForNodes("h2"))))
	healthv1.RegisterHealthServer(s, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String()
}

func asks(t *testing.T, address string, c credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	return err
}

func TestServicesAreForNodes(t *testing.T) {
	p := issued(t, papers.Lasting)
	defer p.Close()
	address := service(t, p)
	if err := asks(t, address, p.Calls()); err != nil {
		t.Errorf("who calls as a node does: %v", err)
	}
	c := p.Client()
	client, err := certs.Open(certs.Files{CA: c.CA, Certificate: c.Certificate, Key: c.Key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := client.Peer("h2")
	cfg.VerifyConnection = func(tls.ConnectionState) error { return nil } // it is the service that is to refuse
	if err := asks(t, address, credentials.NewTLS(cfg)); err == nil {
		t.Error("a client calls a service")
	}
	stranger := issued(t, papers.Lasting)
	defer stranger.Close()
	if err := asks(t, address, stranger.Calls()); err == nil {
		t.Error("the node of another authority calls a service")
	}
	fields := p.Registration(address)
	for _, name := range []string{"ca", "certificate", "key"} {
		path, isFile := strings.CutPrefix(fields[name].(string), "file:")
		if _, err := os.Stat(path); err != nil || !isFile {
			t.Errorf("%s is registered as %v: %v", name, fields[name], err)
		}
	}
	if _, err := certs.OpenNode(named(p.Node("n1")), nil); err != nil {
		t.Errorf("a node's: %v", err)
	}
}

// TestKeptFresh lets ten minutes pass: a certificate is always good for half of its life,
// and many have expired.
func TestKeptFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := issued(t, papers.Brief)
		files := named(p.Node("n1"))
		if n := p.Expired(); n != 0 {
			t.Errorf("%d have expired at the start", n)
		}
		first := until(t, files)
		for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(7 * time.Second) {
			if left := time.Until(until(t, files)); left < papers.Brief/2-time.Second {
				t.Fatalf("after %s a certificate is good for %s", time.Since(began), left)
			}
		}
		if !time.Now().After(first) || p.Expired() < 5*50 { // five holders, every ten seconds
			t.Errorf("%d have expired after ten minutes, the first until %s", p.Expired(), first)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		last := until(t, files)
		time.Sleep(papers.Brief)
		if until(t, files) != last {
			t.Error("it was replaced after the end")
		}
	})
}

func until(t *testing.T, files certs.Files) time.Time {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.NotAfter
}

// TestFailureIsTold takes the directory away.
func TestFailureIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := issued(t, papers.Brief)
		if err := os.RemoveAll(filepath.Dir(p.Client().CA)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(papers.Brief)
		if err := p.Close(); err == nil || !strings.Contains(err.Error(), "a certificate for operator/run: ") {
			t.Errorf("what can't be replaced is told as %v", err)
		}
	})
}

func TestPlainText(t *testing.T) {
	var none *papers.Papers
	if none.Node("n1") != nil || none.Service("bank") != nil || len(none.Registration("127.0.0.1:1")) != 1 || none.Expired() != 0 || none.Close() != nil {
		t.Error("a run in plain text has papers")
	}
	if none.Operator() != none.Client() || none.Calls().Info().SecurityProtocol != "insecure" {
		t.Error("clients of a run in plain text have papers")
	}
}
