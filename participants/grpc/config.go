package grpcparticipant

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/decree-tx/decree/participants"
)

// Config is the JSON object of a registration with this driver:
//
//	{"target": "127.0.0.1:7301"}
type Config struct {
	// Target is the service's host:port. A host name is resolved by DNS, again
	// when a connection is lost.
	Target string `json:"target"`
	// Insecure says that the connection is plain text; without it, TLS. The default is plain text for a loopback target and TLS for
	// every other, so that nothing crosses a network in the clear by omission.
	Insecure *bool `json:"insecure,omitempty"`
	// CA refers to the PEM certificates of the authorities, one of which must have
	// signed the service's certificate. The default is the system's. Where it is given,
	// the connection to a loopback target is TLS too.
	CA participants.Reference `json:"ca,omitempty"`
	// Certificate and Key refer to the PEM certificate and key that the node shows to
	// the service. The default is none.
	Certificate participants.Reference `json:"certificate,omitempty"`
	Key         participants.Reference `json:"key,omitempty"`
	// Authority is the name that the service's certificate must carry, where that
	// is not the target's host.
	Authority string `json:"authority,omitempty"`
}

// parseConfig reads a configuration strictly: unknown fields and anything after
// the object are mistakes. Its error names every problem.
func parseConfig(raw []byte) (Config, error) {
	var c Config
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("empty")
		}
		return Config{}, fmt.Errorf("config: %w; want an object such as {\"target\": \"127.0.0.1:7301\"}", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("config: something follows the JSON object")
	}
	return c, c.Validate()
}

// Validate reports everything that is wrong with c.
func (c Config) Validate() error {
	var problems []error
	if c.Target == "" {
		problems = append(problems, errors.New("target: missing, want host:port"))
	} else if err := checkTarget(c.Target); err != nil {
		problems = append(problems, fmt.Errorf("target: %w", err))
	}
	if c.Authority != "" && c.insecure() {
		problems = append(problems, errors.New("authority: has no meaning on a plain-text connection"))
	}
	return errors.Join(append(problems, c.validateSecurity()...)...)
}

func checkTarget(target string) error {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return fmt.Errorf("%w, want host:port", err)
	}
	if host == "" {
		return fmt.Errorf("%q has no host", target)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q, want 1 to 65535", port)
	}
	return nil
}

// insecure is what Insecure says, or its default.
func (c Config) insecure() bool {
	if c.Insecure != nil {
		return *c.Insecure
	}
	if c.CA != "" || c.Certificate != "" {
		return false
	}
	host, _, err := net.SplitHostPort(c.Target)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
