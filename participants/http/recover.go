package httpparticipant

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/participants"
)

const (
	// pageLimit is how many branches are asked for at once: some 70 KiB.
	pageLimit = 1000
	// maxPage bounds the body of a page. A service that does not look at the limit
	// may list some ten thousand branches in it.
	maxPage = 1 << 20
	// maxCursor bounds the cursor, which is sent back as it came.
	maxCursor = 1024
	// maxRecovered bounds the branches that one Recover takes in: some ten megabytes
	// of memory. A service that lists more is broken or lies; a list that was cut
	// short would hide branches, so it is an error.
	maxRecovered = 100_000
	// maxPages bounds how often a service may say that there is more, with room for
	// pages that are not full, so that no list goes on for ever.
	maxPages = 10 * maxRecovered / pageLimit
)

// How the background learner asks whether a service can list what it holds.
const (
	// probeCluster is no cluster's id, so there is nothing to list under it.
	probeCluster = "probe"
	learnTimeout = 30 * time.Second
	learnPause   = 250 * time.Millisecond
	// A service that is down or cannot list is asked again at this pace: it may come
	// up, or be replaced by a version that can.
	learnPauseMax = time.Minute
)

// Recover implements participants.Participant. The error of a service that
// cannot list its branches wraps errors.ErrUnsupported.
func (c *client) Recover(ctx context.Context, cluster string) ([]participants.Branch, error) {
	return c.list(ctx, cluster)
}

// Recovers implements participants.Participant: false until the service has
// listed its branches once, and again from when it says that it cannot.
func (c *client) Recovers() bool { return c.recovers.Load() }

// learn finds out in the background whether the service can list its branches,
// so that the first transactions after Open need not wait for a recovery scan.
func (c *client) learn(ctx context.Context) {
	defer close(c.learnt)
	for pause := learnPause; ; pause = min(2*pause, learnPauseMax) {
		call, cancel := context.WithTimeout(ctx, learnTimeout)
		_, err := c.list(call, probeCluster)
		cancel()
		if err == nil {
			return
		}
		if errors.Is(err, errors.ErrUnsupported) {
			pause = learnPauseMax
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// list calls recover and remembers whether the service can do that.
func (c *client) list(ctx context.Context, cluster string) ([]participants.Branch, error) {
	branches, err := c.pages(ctx, cluster)
	switch {
	case err == nil:
		if !c.recovers.Swap(true) {
			c.log.Info("the service lists its prepared branches: prepares need not wait for staging")
		}
		return branches, nil
	case errors.Is(err, errors.ErrUnsupported):
		if c.recovers.Swap(false) {
			c.log.Warn("the service no longer lists its prepared branches: prepares wait for staging")
		}
	}
	return nil, fmt.Errorf("recover: %w", err)
}

// pages fetches every page of the list.
func (c *client) pages(ctx context.Context, cluster string) ([]participants.Branch, error) {
	if err := checkCluster(cluster); err != nil {
		return nil, err
	}
	var all []participants.Branch
	cursor := ""
	for range maxPages {
		r, err := c.post(ctx, opRecover, recoverRequest{Cluster: cluster, Limit: pageLimit, Cursor: cursor}, maxPage, "")
		if err != nil {
			return nil, err
		}
		branches, next, err := r.page(cluster)
		if err != nil {
			return nil, err
		}
		if all = append(all, branches...); len(all) > maxRecovered {
			return nil, fmt.Errorf("the service lists more than %d branches", maxRecovered)
		}
		if next == "" {
			return all, nil
		}
		if next == cursor {
			return nil, errors.New("the service gives the same cursor again")
		}
		cursor = next
	}
	return nil, fmt.Errorf("the list has not ended after %d pages", maxPages)
}
