package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The hello protocol is one question and one answer on a connection of its own,
// each a 32-bit big-endian length and that many bytes of JSON.
const (
	helloVersion = 1
	// maxHello bounds a frame. An answer lists members, some hundred bytes each.
	maxHello = 64 << 10
)

// question asks who answers, or admits it.
type question struct {
	Version     int    `json:"version"`
	ID          string `json:"id"`          // of the node that asks
	Incarnation string `json:"incarnation"` // of its disk
	// Admit asks the node to join the asker's cluster. It is meant for one disk,
	// and refused by every other.
	Admit *admit `json:"admit,omitempty"`
}

// admit names the disk that is admitted.
type admit struct {
	ID          string `json:"id"`
	Incarnation string `json:"incarnation"`
	Lineage     string `json:"lineage,omitempty"` // of the asker's cluster
}

// answer is what a node tells of itself.
type answer struct {
	Version     int    `json:"version"`
	ID          string `json:"id"`
	Incarnation string `json:"incarnation"`
	RaftAddress string `json:"raft_address"`
	APIAddress  string `json:"api_address,omitempty"`
	Phase       phase  `json:"phase"`
	// Founders are the first members. While the phase is empty they are what was
	// configured, without incarnations; later what was agreed. A node vouches for
	// the incarnations among them. Nodes that were admitted have none.
	Founders []founder `json:"founders,omitempty"`
	// Members is the configuration that Raft uses, empty while it does not run.
	Members []Member `json:"members,omitempty"`
	Leader  bool     `json:"leader,omitempty"` // by its own belief
	Term    uint64   `json:"term,omitempty"`
	// LastIndex is the last entry in its log.
	LastIndex uint64 `json:"last_index,omitempty"`
	// KnowsYou reports that the asker is in the committed or in the latest
	// configuration.
	KnowsYou bool `json:"knows_you,omitempty"`
	DiskLow  bool `json:"disk_low,omitempty"`
	// Clock is the node's wall clock, in nanoseconds since 1970. Nothing here goes by it;
	// it is for those who look for a clock that is wrong.
	Clock int64 `json:"clock,omitempty"`
	// Level is Config.Level; nodes from before there were levels do not tell any.
	Level uint32 `json:"level,omitempty"`
	Error string `json:"error,omitempty"` // why Admit was refused
}

// errRefused is what the other side said no to.
var errRefused = errors.New("refused")

// ask sends a question and returns the answer. The context and greetTimeout bound
// it.
func (p *port) ask(ctx context.Context, to string, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	conn, err := p.dial(ctx, to, []byte{kindHello})
	if err != nil {
		return answer{}, fmt.Errorf("hello to %s: %w", to, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	q.Version = helloVersion
	var a answer
	if err := errors.Join(writeFrame(conn, q), readFrame(conn, &a)); err != nil {
		return answer{}, fmt.Errorf("hello to %s: %w", to, errors.Join(ctx.Err(), err))
	}
	if a.Version != helloVersion {
		return answer{}, fmt.Errorf("hello to %s: it speaks version %d, this node %d", to, a.Version, helloVersion)
	}
	if a.Error != "" {
		return a, fmt.Errorf("hello to %s: %w: %s", to, errRefused, a.Error)
	}
	return a, nil
}

// answerHello serves one connection. The port has set its deadline.
func (n *Node) answerHello(conn net.Conn) {
	var q question
	if err := readFrame(conn, &q); err != nil {
		n.log.Debug("a hello broke off", "from", conn.RemoteAddr(), "error", err)
		return
	}
	var refusal error
	if q.Admit != nil {
		refusal = n.acceptAdmission(q)
	}
	a := n.describe(q)
	if refusal != nil {
		a.Error = refusal.Error()
	}
	if err := writeFrame(conn, a); err != nil {
		n.log.Debug("a hello broke off", "from", conn.RemoteAddr(), "error", err)
	}
}

// describe is what this node tells the asker.
func (n *Node) describe(q question) answer {
	me := n.disk.identity()
	a := answer{
		Version: helloVersion, ID: me.ID, Incarnation: me.Incarnation, RaftAddress: string(n.port.advertise),
		APIAddress: n.cfg.APIAddress, Phase: me.Phase, Founders: me.Founders,
	}
	if me.Phase == phaseEmpty {
		a.Founders = configuredFounders(n.cfg.Peers)
	}
	s := n.Status()
	a.Members, a.Term, a.LastIndex, a.DiskLow = s.Members, s.Term, s.LastIndex, s.Disk.Low
	a.Leader, a.Clock = n.leads(), time.Now().UnixNano()
	a.Level = n.cfg.Level
	a.KnowsYou = memberOf(s.Members, q.ID) || n.state.committedHas(q.ID)
	return a
}

func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxHello {
		return fmt.Errorf("a hello of %d bytes: at most %d", len(body), maxHello)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

func readFrame(r io.Reader, v any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(size[:])
	if length > maxHello {
		return fmt.Errorf("a hello of %d bytes: at most %d", length, maxHello)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}
