package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"
)

// profile takes a CPU profile of every process for some time, and writes them to a
// directory: those of the nodes and the services as name.pprof, this one's as
// bench.pprof. The leader's name is told by the report.
func (g *ground) profile(ctx context.Context, dir string, d time.Duration) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var fetching sync.WaitGroup
	errs := make(chan error, len(g.debug)+1)
	for name, address := range g.debug {
		fetching.Go(func() { errs <- fetchProfile(ctx, address, filepath.Join(dir, name+".pprof"), d) })
	}
	fetching.Go(func() { errs <- profileOwn(ctx, filepath.Join(dir, own+".pprof"), d) })
	fetching.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func fetchProfile(ctx context.Context, address, path string, d time.Duration) error {
	seconds := strconv.Itoa(max(int(d.Seconds()), 1)) // what the endpoint counts in
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/debug/pprof/profile?seconds="+seconds, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s answers %s", address, answer.Status)
	}
	return writeProfile(path, func(file *os.File) error {
		_, err := io.Copy(file, answer.Body)
		return err
	})
}

func profileOwn(ctx context.Context, path string, d time.Duration) error {
	return writeProfile(path, func(file *os.File) error {
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		pause(ctx, d)
		pprof.StopCPUProfile()
		return nil
	})
}

func writeProfile(path string, write func(*os.File) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// pause returns after d or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
