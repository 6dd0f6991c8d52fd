package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A setting ties a name to a field.
type setting struct {
	name  string // as a flag
	value value
	usage string
}

func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}
func (s setting) key() string { return strings.ReplaceAll(s.name, "-", "_") }

// A value reads and writes one field as text.
type value struct {
	kind   string // for help texts
	set    func(string) error
	show   func() string
	secret bool // is not shown to people
}

// secret is a value that is not shown to people.
func secret(v value) value {
	v.secret = true
	return v
}

// field makes the value of a field from how its type is read and shown.
func field[T any](p *T, kind string, parse func(string) (T, error), show func(T) string) value {
	return value{
		kind: kind,
		set: func(s string) error {
			v, err := parse(s)
			if err != nil {
				return fmt.Errorf("%q: %w", s, err)
			}
			*p = v
			return nil
		},
		show: func() string { return show(*p) },
	}
}

func text(p *string) value {
	same := func(s string) string { return s }
	return field(p, "text", func(s string) (string, error) { return s, nil }, same)
}

func boolean(p *bool) value {
	parse := func(s string) (bool, error) {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return false, errors.New("want true or false")
		}
		return b, nil
	}
	return field(p, "bool", parse, strconv.FormatBool)
}

func share(p *float64) value {
	parse := func(s string) (float64, error) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return 0, errors.New("want a number from 0 to 1")
		}
		return f, nil
	}
	return field(p, "number", parse, func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) })
}

func duration(p *time.Duration) value {
	parse := func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, errors.New("want a duration, such as 500ms, 15s or 1h30m")
		}
		return d, nil
	}
	return field(p, "duration", parse, showDuration)
}

// showDuration drops the zero parts that the standard library prints: 1h0m0s.
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func count(p *int) value {
	parse := func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, errors.New("want a whole number")
		}
		return n, nil
	}
	return field(p, "number", parse, strconv.Itoa)
}

// The units in which a size may be given.
var sizeUnits = []struct {
	suffix string
	bytes  int
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

func size(p *int) value {
	parse := func(s string) (int, error) {
		for _, unit := range sizeUnits {
			digits, ok := strings.CutSuffix(s, unit.suffix)
			if !ok {
				continue
			}
			// Sizes stay within 32 bits, so that no unit overflows an int.
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
			if err != nil || n > (1<<31-1)/int64(unit.bytes) {
				break
			}
			return int(n) * unit.bytes, nil
		}
		return 0, errors.New("want a size below 2GiB, such as 65536, 512KiB or 1MiB")
	}
	show := func(n int) string {
		for _, unit := range sizeUnits {
			if n != 0 && n%unit.bytes == 0 {
				return strconv.Itoa(n/unit.bytes) + unit.suffix
			}
		}
		return strconv.Itoa(n)
	}
	return field(p, "size", parse, show)
}

// Peer is a first member of a cluster and its Raft address.
type Peer struct{ ID, Addr string }

// Peers are the first members, sorted by id.
type Peers []Peer

func (p Peers) String() string {
	members := make([]string, len(p))
	for i, peer := range p {
		members[i] = peer.ID + "=" + peer.Addr
	}
	return strings.Join(members, ",")
}

func (p Peers) find(id string) (Peer, bool) {
	i := slices.IndexFunc(p, func(peer Peer) bool { return peer.ID == id })
	if i < 0 {
		return Peer{}, false
	}
	return p[i], true
}

func peers(p *Peers) value {
	return field(p, "members", parsePeers, Peers.String)
}

func parsePeers(s string) (Peers, error) {
	byID := map[string]Peer{}
	for member := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(member) == "" {
			continue // a trailing comma
		}
		id, addr, ok := strings.Cut(strings.TrimSpace(member), "=")
		if !ok {
			return nil, fmt.Errorf("%q: want id=host:port", member)
		}
		if _, twice := byID[id]; twice {
			return nil, fmt.Errorf("%s is named twice", id)
		}
		byID[id] = Peer{id, addr}
	}
	list := slices.SortedFunc(maps.Values(byID), func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// nodeText gives the text of a YAML value: a scalar as written, a list or a
// mapping of scalars as its members joined by commas, which is how members of a
// cluster read best in YAML.
func nodeText(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "", errors.New("has no value")
		}
		return n.Value, nil
	case yaml.SequenceNode:
		return joinNodes(n.Content, 1)
	case yaml.MappingNode:
		return joinNodes(n.Content, 2)
	default:
		return "", errors.New("want a plain value, a list or a mapping")
	}
}

func joinNodes(nodes []*yaml.Node, width int) (string, error) {
	var members []string
	for group := range slices.Chunk(nodes, width) {
		var parts []string
		for _, n := range group {
			if n.Kind != yaml.ScalarNode {
				return "", fmt.Errorf("line %d: want a plain value", n.Line)
			}
			parts = append(parts, n.Value)
		}
		members = append(members, strings.Join(parts, "="))
	}
	return strings.Join(members, ","), nil
}
