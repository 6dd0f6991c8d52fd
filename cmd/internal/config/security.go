package config

import (
	"net"
	"strings"
)

// Loopback reports whether nobody but this machine reaches an address.
func Loopback(address string) bool {
	host, err := splitAddress(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Secured reports whether the node speaks TLS, and knows its callers.
func (c Server) Secured() bool { return c.TLSCert != "" || c.TLSKey != "" || c.TLSCA != "" }

func (c Server) validateSecurity(p *problems) {
	if c.LimitRate < 0 {
		p.add("limit-rate", "%d: must not be below zero", c.LimitRate)
	}
	if c.LimitInFlight < 0 {
		p.add("limit-in-flight", "%d: must not be below zero", c.LimitInFlight)
	}
	if c.Secured() {
		c.validateSecured(p)
		return
	}
	if c.AccessFile != "" {
		p.add("access-file", "needs tls-cert, tls-key and tls-ca: in plain text a token is everybody's")
	}
	if c.LimitRate > 0 || c.LimitInFlight > 0 {
		p.add("limit-rate", "needs tls-cert, tls-key and tls-ca: without them nobody is known who could be limited")
	}
	if c.Insecure {
		return
	}
	var open []string
	for _, l := range []struct{ name, address string }{
		{"raft-addr", c.RaftAddr}, {"grpc-addr", c.GRPCAddr}, {"http-addr", c.HTTPAddr},
	} {
		_, err := splitAddress(l.address)
		if l.address != "" && err == nil && !Loopback(l.address) {
			open = append(open, l.name+" "+l.address)
		}
	}
	if len(open) > 0 {
		p.add("insecure", "whoever reaches %s could end any transaction: give tls-cert, tls-key and tls-ca "+
			"(decree cert makes them), or say insecure where the network keeps everybody else out", strings.Join(open, ", "))
	}
}

func (c Server) validateSecured(p *problems) {
	for _, f := range []struct{ name, path string }{
		{"tls-cert", c.TLSCert}, {"tls-key", c.TLSKey}, {"tls-ca", c.TLSCA},
	} {
		if f.path == "" {
			p.add(f.name, "missing: TLS needs tls-cert, tls-key and tls-ca")
		}
	}
	if c.Insecure {
		p.add("insecure", "contradicts tls-cert, tls-key and tls-ca")
	}
}
