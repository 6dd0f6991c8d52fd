package httpparticipant

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/decree-tx/decree/participants"
)

const (
	// defaultConnections is as many as the coordinator has prepares under way at one
	// participant, unless it is told otherwise: none of them waits for a connection.
	defaultConnections = 256
	// maxConnections keeps one participant from taking all of a node's sockets.
	maxConnections = 1024
	// maxURL bounds what is replicated and shown to people; no service needs more.
	maxURL = 2048
)

// Config is the JSON object of a registration with this driver:
//
//	{"url": "https://orders.internal/decree", "token": "file:/run/secrets/orders"}
//
// It is replicated and shown to people. Whatever is secret, or a file of the
// node, stands in it as a reference that each node resolves for itself, and
// reads again while it runs, so that it can be rotated under traffic.
type Config struct {
	// URL is where the service answers: the operations' names are appended to its
	// path. It has no user, query or fragment, because errors show it.
	URL string `json:"url"`
	// Insecure allows plain http. The default allows it for a loopback host only,
	// so that nothing crosses a network in the clear by omission.
	Insecure *bool `json:"insecure,omitempty"`
	// Token refers to the bearer token that is sent with every request.
	Token participants.Reference `json:"token,omitempty"`
	// CA refers to the PEM certificates of the authorities, one of which must have
	// signed the service's certificate. The default is the system's.
	CA participants.Reference `json:"ca,omitempty"`
	// Certificate and Key refer to the PEM certificate and key that the node shows
	// to the service. The default is none.
	Certificate participants.Reference `json:"certificate,omitempty"`
	Key         participants.Reference `json:"key,omitempty"`
	// ServerName is the name that the service's certificate must carry, where that
	// is not the URL's host.
	ServerName string `json:"server_name,omitempty"`
	// MaxConnections bounds the connections that prepares use, and once more those
	// that everything else uses. The default is 256.
	MaxConnections int `json:"max_connections,omitempty"`
	// ProxyFromEnvironment says to go through the proxy that HTTPS_PROXY, HTTP_PROXY
	// and NO_PROXY name on the node. The default is to ignore them: a proxy that was
	// set up for something else must not see branches.
	ProxyFromEnvironment bool `json:"proxy_from_environment,omitempty"`
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
		return Config{}, fmt.Errorf("config: %w; want an object such as {\"url\": \"https://orders.internal/decree\"}", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("config: something follows the JSON object")
	}
	return c, c.Validate()
}

// Validate reports everything that is wrong with c.
func (c Config) Validate() error {
	var problems []error
	u, err := c.parseURL()
	if err != nil {
		problems = append(problems, fmt.Errorf("url: %w", err))
	} else {
		problems = append(problems, c.checkSecurity(u)...)
	}
	for name, r := range map[string]participants.Reference{
		"token": c.Token, "ca": c.CA, "certificate": c.Certificate, "key": c.Key,
	} {
		if r == "" {
			continue
		}
		if err := r.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	if (c.Certificate == "") != (c.Key == "") {
		problems = append(problems, errors.New("certificate and key: want both or neither"))
	}
	if c.MaxConnections < 0 || c.MaxConnections > maxConnections {
		problems = append(problems, fmt.Errorf("max_connections: %d, want 1 to %d", c.MaxConnections, maxConnections))
	}
	return errors.Join(problems...)
}

// parseURL checks the URL for what cannot be meant. Its errors do not quote it: a
// password or a token may stand in it.
func (c Config) parseURL() (*url.URL, error) {
	if c.URL == "" {
		return nil, errors.New("missing, want one such as https://orders.internal/decree")
	}
	u, err := url.Parse(c.URL)
	if err != nil || len(c.URL) > maxURL {
		return nil, fmt.Errorf("not a URL of at most %d bytes", maxURL)
	}
	var problems []error
	if u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "" {
		problems = append(problems, errors.New("want https://HOST/PATH"))
	}
	if u.Hostname() == "" {
		problems = append(problems, errors.New("it has no host"))
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			problems = append(problems, errors.New("want a port of 1 to 65535"))
		}
	}
	if u.User != nil {
		problems = append(problems, errors.New("it has a user, which everybody would see: use token"))
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		problems = append(problems, errors.New("it has a query or a fragment, to which no operation can be appended"))
	}
	return u, errors.Join(problems...)
}

// checkSecurity reports settings that contradict the URL's scheme.
func (c Config) checkSecurity(u *url.URL) []error {
	var problems []error
	if u.Scheme == "https" {
		if c.Insecure != nil && *c.Insecure {
			problems = append(problems, errors.New("insecure: has no meaning with https"))
		}
		return problems
	}
	if !c.insecure(u) {
		problems = append(problems, errors.New("url: plain http to another host is readable on the way: use https, or say \"insecure\": true"))
	}
	for name, set := range map[string]bool{
		"ca": c.CA != "", "certificate": c.Certificate != "", "server_name": c.ServerName != "",
	} {
		if set {
			problems = append(problems, fmt.Errorf("%s: has no meaning on a plain-text connection", name))
		}
	}
	return problems
}

// insecure is what Insecure says, or its default.
func (c Config) insecure(u *url.URL) bool {
	if c.Insecure != nil {
		return *c.Insecure
	}
	return loopback(u.Hostname())
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// exposesToken reports whether a token crosses a network in the clear.
func (c Config) exposesToken() bool {
	u, err := c.parseURL()
	return err == nil && c.Token != "" && u.Scheme == "http" && !loopback(u.Hostname())
}

// connections is what MaxConnections says, or its default.
func (c Config) connections() int {
	if c.MaxConnections == 0 {
		return defaultConnections
	}
	return c.MaxConnections
}
