package bench

import (
	"os"
	"path/filepath"
	"time"

	"github.com/decree-tx/decree/transport/certs"
	"github.com/decree-tx/decree/transport/client"
)

// certificatesLast is longer than any bench.
const certificatesLast = 7 * 24 * time.Hour

// issue makes an authority and certificates for the nodes and the bench, where TLS is
// measured. The variables are what each node finds its own by.
func (g *ground) issue(cfg Config, nodes []string) (variables func(id string) []string, err error) {
	if !cfg.TLS {
		return func(string) []string { return nil }, nil
	}
	dir := filepath.Join(g.fleet.Dir(), "certs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	authority, err := certs.NewAuthority("bench", certificatesLast)
	if err != nil {
		return nil, err
	}
	if err := authority.Write(path("ca.pem"), path("ca.key")); err != nil {
		return nil, err
	}
	requests := []certs.Request{{Identity: certs.Identity{Role: certs.Operator, Name: "bench"}}}
	for _, id := range nodes {
		requests = append(requests, certs.Request{Identity: certs.Identity{Role: certs.Node, Name: id}, Hosts: []string{"127.0.0.1"}})
	}
	for _, r := range requests {
		r.Lifetime = certificatesLast / 2
		pair, err := certs.Issue(authority, r)
		if err != nil {
			return nil, err
		}
		if err := pair.Write(path(r.Identity.Name+".pem"), path(r.Identity.Name+".key")); err != nil {
			return nil, err
		}
	}
	g.security = client.Security{CA: path("ca.pem"), Certificate: path("bench.pem"), Key: path("bench.key")}
	return func(id string) []string {
		return []string{"DECREE_TLS_CA=" + path("ca.pem"), "DECREE_TLS_CERT=" + path(id+".pem"), "DECREE_TLS_KEY=" + path(id+".key")}
	}, nil
}
