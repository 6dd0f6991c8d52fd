package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Role is what somebody is to a cluster. What each may do stands in
// transport/roles.go.
type Role string

// The roles.
const (
	Client      Role = "client"      // runs transactions, and sees its own
	Participant Role = "participant" // holds branches, and asks about its own
	Operator    Role = "operator"    // administers, and sees and ends everything
	Reader      Role = "reader"      // sees everything and changes nothing
	Node        Role = "node"        // a member of the cluster
)

// Roles are all of them.
var Roles = []Role{Client, Participant, Operator, Reader, Node}

// Identity is who somebody is, as a certificate or a token says. The zero Identity is
// nobody.
type Identity struct {
	Role Role
	Name string // letters, digits, '.', '_' and '-', at most 64, a letter or digit first
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// String is role/name, which Parse reads; empty for nobody.
func (i Identity) String() string {
	if i == (Identity{}) {
		return ""
	}
	return string(i.Role) + "/" + i.Name
}

// Parse reads what String writes.
func Parse(s string) (Identity, error) {
	role, name, _ := strings.Cut(s, "/")
	i := Identity{Role: Role(role), Name: name}
	return i, i.Validate()
}

// Validate reports what no identity is.
func (i Identity) Validate() error {
	var problems []error
	if !slices.Contains(Roles, i.Role) {
		problems = append(problems, fmt.Errorf("role %.40q: want one of %s", string(i.Role), roleNames()))
	}
	if !validName.MatchString(i.Name) {
		problems = append(problems, fmt.Errorf("name %.80q: want letters, digits, '.', '_' and '-', at most 64, a letter or digit first", i.Name))
	}
	return errors.Join(problems...)
}

func roleNames() string {
	names := make([]string, len(Roles))
	for i, r := range Roles {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

// scheme marks the URI of a certificate that is decree's.
const scheme = "decree"

// URI is how a certificate says it.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: scheme, Path: "/" + i.String()}
}

// ErrNoIdentity is wrapped where a certificate does not say who its holder is.
var ErrNoIdentity = errors.New("the certificate names no one identity: want one URI such as decree:///client/web among its alternative names")

// Of is who a certificate says its holder is. The caller has verified the certificate.
func Of(c *x509.Certificate) (Identity, error) {
	var ours []*url.URL
	for _, u := range c.URIs {
		if strings.EqualFold(u.Scheme, scheme) {
			ours = append(ours, u)
		}
	}
	if len(ours) != 1 {
		return Identity{}, ErrNoIdentity
	}
	i, err := Parse(strings.TrimPrefix(ours[0].Path, "/"))
	if err == nil && i.URI().String() != ours[0].String() {
		err = fmt.Errorf("%.100q", ours[0]) // it says more than a role and a name, or in another way
	}
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNoIdentity, err)
	}
	return i, nil
}
