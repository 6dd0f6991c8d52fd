package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/decree-tx/decree/transport/certs"
)

// renewal is when a certificate that expires is told of: there should be time for a
// weekend and a change that has to be agreed on.
const renewal = 14 * 24 * time.Hour

const issue = "issue another: decree cert issue node %s=HOST,..."

// certificates looks at what the node proves itself with: that the key is the
// certificate's, that an authority has signed it, whom it names, for which hosts, and
// until when.
func (e *exam) certificates(now time.Time) {
	c := e.Config
	if !c.Secured() {
		if c.Insecure {
			e.found("certificate", "", Warn, "make certificates (decree cert) and set --tls-cert, --tls-key and --tls-ca",
				"none: whoever reaches this node can do anything")
		} else {
			e.found("certificate", "", OK, "", "none is needed at loopback")
		}
		return
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		e.found("certificate", c.TLSCert, Fail, "give the certificate and the key that belong to each other", "%s", err)
		return
	}
	authorities, err := os.ReadFile(c.TLSCA)
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(authorities) {
		err = fmt.Errorf("%s holds no certificate", c.TLSCA)
	}
	if err != nil {
		e.found("certificate", c.TLSCA, Fail, "name the PEM file of the cluster's authorities with --tls-ca", "%s", err)
		return
	}
	e.chain(pair, pool, now)
	e.holder(pair.Leaf)
}

// chain verifies that an authority has signed the certificate, and tells until when all
// of the chain is good.
func (e *exam) chain(pair tls.Certificate, pool *x509.CertPool, now time.Time) {
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	path, leaf := e.Config.TLSCert, pair.Leaf
	switch {
	case now.After(leaf.NotAfter):
		e.found("certificate", path, Fail, fmt.Sprintf(issue, e.Config.NodeID), "expired at %s", stamp(leaf.NotAfter))
		return
	case now.Before(leaf.NotBefore):
		e.found("certificate", path, Fail, "look at this machine's clock", "is good from %s on only", stamp(leaf.NotBefore))
		return
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		e.found("certificate", path, Fail, "have one of the authorities in --tls-ca sign it, or add its own there", "%s", err)
		return
	}
	until := leaf.NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	if until.Sub(now) < renewal {
		e.found("certificate", path, Warn, "renew it; nodes read the new files by themselves", "expires at %s", stamp(until))
		return
	}
	e.found("certificate", path, OK, "", "signed, and good until %s", stamp(until))
}

// holder holds whom the certificate names against this node and its addresses.
func (e *exam) holder(leaf *x509.Certificate) {
	who, err := certs.Of(leaf)
	want := certs.Identity{Role: certs.Node, Name: e.Config.NodeID}
	switch {
	case err != nil:
		e.found("certificate", "holder", Fail, fmt.Sprintf(issue, e.Config.NodeID), "%s", err)
		return
	case who.Role != certs.Node:
		e.found("certificate", "holder", Fail, fmt.Sprintf(issue, e.Config.NodeID), "is %s, and only a node's certificate opens Raft's port", who)
		return
	case who != want:
		e.found("certificate", "holder", Warn, fmt.Sprintf(issue, e.Config.NodeID), "is %s, this node is %s", who, e.Config.NodeID)
		return
	}
	for _, address := range []string{e.Config.AdvertisedRaft(), e.Config.AdvertisedGRPC()} {
		host, _, err := net.SplitHostPort(address)
		if err == nil {
			err = leaf.VerifyHostname(host)
		}
		if err != nil {
			e.found("certificate", "hosts", Fail, fmt.Sprintf(issue, e.Config.NodeID), "others dial %s: %s", address, err)
			return
		}
	}
	e.found("certificate", "holder", OK, "", "%s, at the addresses that others dial", who)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
