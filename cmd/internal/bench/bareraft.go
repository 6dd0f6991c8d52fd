package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/decree-tx/decree/cmd/internal/bench/bare"
)

// bareNode begins the names of the nodes that run only Raft.
const bareNode = "bare-"

// bareRaft is the cluster that decree is compared with: as many processes, on the same
// disk, with nothing but Raft in them.
type bareRaft struct {
	controls   []string // addresses, by node
	entryBytes int      // of what they propose
}

// startBare starts the bare nodes beside the others, and waits until one leads.
func (g *ground) startBare(ctx context.Context, cfg Config) (*bareRaft, error) {
	b := &bareRaft{}
	var peers, raft []string
	for n := 1; n <= cfg.Nodes; n++ {
		address, err1 := g.ports.next()
		control, err2 := g.ports.next()
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		raft, b.controls = append(raft, address), append(b.controls, control)
		peers = append(peers, bareNode+strconv.Itoa(n)+"="+address)
	}
	for i := range raft {
		name := bareNode + strconv.Itoa(i+1)
		_, err := g.fleet.Start(name, "bench", "bare", "--node-id", name, "--data-dir", filepath.Join(g.fleet.Dir(), name),
			"--raft-addr", raft[i], "--control", b.controls[i], "--peers", strings.Join(peers, ","), "--log-store", cfg.LogStore)
		if err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := b.leader(ctx)
	return b, err
}

// leader waits until a bare node leads and gives where it takes orders.
func (b *bareRaft) leader(ctx context.Context) (control string, err error) {
	err = poll(ctx, "a bare node to lead", func() (bool, error) {
		for _, control = range b.controls {
			answer, err := get(ctx, control, bare.LeadsPath)
			if err != nil {
				continue // it is starting
			}
			answer.Body.Close() //nolint:errcheck // the status said it
			if answer.StatusCode == http.StatusOK {
				return true, nil
			}
		}
		return false, nil
	})
	return control, err
}

// measure has callers propose entries of a size.
func (b *bareRaft) measure(ctx context.Context, cfg Config, callers int) (Bare, error) {
	control, err := b.leader(ctx)
	if err != nil {
		return Bare{}, err
	}
	order := bare.Order{Callers: callers, Bytes: b.entryBytes, Warmup: cfg.Warmup, Duration: cfg.Duration}
	body, err := json.Marshal(order)
	if err != nil {
		return Bare{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+control+bare.ApplyPath, bytes.NewReader(body))
	if err != nil {
		return Bare{}, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return Bare{}, err
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	if answer.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(answer.Body)
		return Bare{}, fmt.Errorf("bare Raft: %s: %s", answer.Status, why)
	}
	var out bare.Outcome
	if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
		return Bare{}, fmt.Errorf("bare Raft: %w", err)
	}
	return Bare{
		Callers: callers, EntryBytes: order.Bytes, Throughput: float64(out.Entries) / out.Span.Seconds(),
		Failed: out.Failed, Latency: latencyOf(hdr.Import(out.Latency)),
	}, nil
}

func get(ctx context.Context, address, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}
