package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/decree-tx/decree/transport/certs"
)

// Security is how connections are secured, and by what a cluster knows the caller: a
// certificate, or a token. Anything but the zero Security means TLS 1.3. The files are
// read again while the client runs, so that they may be replaced under traffic; where
// new ones can't be read, those read before stay in use.
type Security struct {
	// CA is the file with the PEM certificates of the cluster's authorities; empty for
	// the system's.
	CA string
	// Certificate and Key are the PEM files that say who the caller is.
	Certificate, Key string
	// Token is the bearer token that says it instead, and TokenFile the file that holds
	// one.
	Token, TokenFile string
}

// tokenPause is how long a token's file is taken for the same.
const tokenPause = 2 * time.Second

// dialOptions are the credentials of connections.
func (s Security) dialOptions() ([]grpc.DialOption, error) {
	if s == (Security{}) {
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
	}
	if s.Token != "" && s.TokenFile != "" {
		return nil, errors.New("decree: a token and a token file: want one of them")
	}
	source, err := certs.Open(certs.Files{CA: s.CA, Certificate: s.Certificate, Key: s.Key}, nil)
	if err != nil {
		return nil, fmt.Errorf("decree: %w", err)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(source.DialGRPC())}
	if s.Token == "" && s.TokenFile == "" {
		return options, nil
	}
	bearer := &bearer{token: strings.TrimSpace(s.Token), file: s.TokenFile}
	if _, err := bearer.read(); err != nil {
		return nil, err
	}
	return append(options, grpc.WithPerRPCCredentials(bearer)), nil
}

// bearer sends a token with each call.
type bearer struct {
	file string // set once; empty where the token is

	mu    sync.Mutex
	token string    // guarded by mu
	at    time.Time // when it was read; guarded by mu
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b *bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := b.read()
	return map[string]string{"authorization": "Bearer " + token}, err
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (*bearer) RequireTransportSecurity() bool { return true }

func (b *bearer) read() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != "" && time.Since(b.at) > tokenPause {
		content, err := os.ReadFile(b.file)
		token := strings.TrimSpace(string(content))
		if err == nil && token != "" {
			b.token, b.at = token, time.Now()
		} else if b.token == "" {
			return "", fmt.Errorf("decree: token file %s: %w", b.file, errors.Join(err, errNoToken))
		}
	}
	return b.token, nil
}

var errNoToken = errors.New("it holds no token")
