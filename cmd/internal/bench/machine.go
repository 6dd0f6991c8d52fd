package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Machine is where the run took place; figures mean little without it.
type Machine struct {
	Cores      int    `json:"cores"`
	Processor  string `json:"processor"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"` // of the nodes' data
	Go         string `json:"go"`
	// SyncMicros is the median of a 4 KiB write and its fsync there.
	SyncMicros int64 `json:"fsync_us"`
	// RoundTripMicros is the median of a unary gRPC call to a participant's process, one
	// at a time; 0 where the participants are somebody else's.
	RoundTripMicros int64 `json:"round_trip_us,omitempty"`
}

func describeMachine(dir string) (Machine, error) {
	m := Machine{
		Cores: runtime.NumCPU(), Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
		Processor:  processor(readText("/proc/cpuinfo")),
		Kernel:     strings.TrimSpace(readText("/proc/sys/kernel/osrelease")),
		FileSystem: fileSystem(dir, readText("/proc/mounts")),
	}
	var err error
	m.SyncMicros, err = measureSync(dir)
	return m, err
}

// readText is a file's content, empty where there is no such file.
func readText(path string) string {
	content, _ := os.ReadFile(path)
	return string(content)
}

func processor(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		name, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fileSystem is the type of the one that holds dir, by the longest mount point above
// it.
func fileSystem(dir, mounts string) string {
	var kind, longest string
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		point := fields[1]
		below := point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
		if below && len(point) >= len(longest) {
			longest, kind = point, fields[2]
		}
	}
	return kind
}

// roundTrips is enough for a median, and takes a tenth of a second.
const roundTrips = 300

// measureRoundTrip is the median time, in microseconds, of a unary gRPC call that does
// nothing.
func measureRoundTrip(ctx context.Context, address string) (us int64, err error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // nothing is under way
	took := newHistogram()
	for range roundTrips {
		start := time.Now()
		if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
			return 0, fmt.Errorf("a call to %s: %w", address, err)
		}
		if err := took.RecordValue(max(time.Since(start).Microseconds(), 1)); err != nil {
			return 0, err
		}
	}
	return took.ValueAtQuantile(50), nil
}

// syncs is enough for a median, and takes a tenth of a second on a slow disk.
const syncs = 64

// measureSync is the median time, in microseconds, of a small write and its fsync in
// dir.
func measureSync(dir string) (us int64, err error) {
	file, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(filepath.Clean(file.Name())) //nolint:errcheck // the directory goes with the run
	defer file.Close()                           //nolint:errcheck
	page := make([]byte, 4096)
	took := newHistogram()
	for range syncs {
		start := time.Now()
		if _, err := file.Write(page); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
		if err := took.RecordValue(max(time.Since(start).Microseconds(), 1)); err != nil {
			return 0, err
		}
	}
	return took.ValueAtQuantile(50), nil
}
