package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"time"
)

// backdate is by how much a new certificate is older than it is, for machines whose
// clocks are behind.
const backdate = 5 * time.Minute

// Pair is a certificate and its key, as PEM.
type Pair struct{ Certificate, Key []byte }

// NewAuthority makes an authority of its own, which is all that one cluster needs. Its
// key is ECDSA on P-256, as are those of the certificates that it issues.
func NewAuthority(name string, lifetime time.Duration) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-backdate),
		NotAfter:              time.Now().Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	return sign(template, template, key, key)
}

// Request says what a certificate is to be for.
type Request struct {
	Identity Identity
	// Hosts are the names and addresses at which its holder is dialled; only nodes and
	// participants are.
	Hosts    []string
	Lifetime time.Duration
}

// Issue makes a certificate that an authority signs. One of a node or a participant is
// good for either end of a connection, any other for a client's only.
func Issue(authority Pair, r Request) (Pair, error) {
	serves := r.Identity.Role == Node || r.Identity.Role == Participant
	if err := r.Identity.Validate(); err != nil {
		return Pair{}, err
	}
	if !serves && len(r.Hosts) > 0 {
		return Pair{}, fmt.Errorf("%s serves nobody, and needs no hosts", r.Identity)
	}
	signer, signerKey, err := authority.parse()
	if err != nil {
		return Pair{}, fmt.Errorf("authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: r.Identity.String()},
		NotBefore:    time.Now().Add(-backdate),
		NotAfter:     time.Now().Add(r.Lifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{r.Identity.URI()},
	}
	if template.NotAfter.After(signer.NotAfter) {
		return Pair{}, fmt.Errorf("a lifetime of %s ends after the authority's own, on %s", r.Lifetime, signer.NotAfter.UTC().Format(time.DateOnly))
	}
	if serves {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return sign(template, signer, key, signerKey)
}

// serial is random, as two authorities with one name may not give one number twice.
func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return new(big.Int).SetBytes(b)
}

func sign(template, signer *x509.Certificate, key *ecdsa.PrivateKey, signerKey crypto.Signer) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, signerKey)
	if err != nil {
		return Pair{}, fmt.Errorf("sign a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("write a key: %w", err)
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}, nil
}

func (p Pair) parse() (*x509.Certificate, crypto.Signer, error) {
	all, err := parseAuthorities(p.Certificate)
	if err != nil {
		return nil, nil, err
	}
	if !all[0].IsCA {
		return nil, nil, errors.New("the certificate is no authority's")
	}
	block, _ := pem.Decode(p.Key)
	if block == nil {
		return nil, nil, errors.New("the key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, errors.New("the key can't be read") // and is not told
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("the key signs nothing")
	}
	return all[0], signer, nil
}

// Read reads a pair.
func Read(certificate, key string) (p Pair, err error) {
	if p.Certificate, err = readFile(certificate); err != nil {
		return Pair{}, err
	}
	p.Key, err = readFile(key)
	return p, err
}

// Write writes a pair to two files that must not exist: what is overwritten may be the
// only key that somebody has. The key is its owner's alone.
func (p Pair) Write(certificate, key string) error {
	if err := writeNew(key, p.Key, 0o600); err != nil {
		return err
	}
	if err := writeNew(certificate, p.Certificate, 0o644); err != nil {
		return errors.Join(err, os.Remove(key)) // just made
	}
	return nil
}

func writeNew(path string, content []byte, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // an operator named it
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Sync(), file.Close())
}
