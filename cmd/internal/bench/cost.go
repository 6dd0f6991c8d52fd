package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of CPU time in /proc: 1/100 s on every Linux, whatever its kernel
// counts in.
const tick = 10 * time.Millisecond

// usage is what a process has used since it began.
type usage struct {
	cpu     time.Duration // in user and system mode
	written int64         // bytes that it caused to be written to disk
	rss     int64         // bytes resident now
}

// usageOf reads a process's usage from /proc.
func usageOf(pid int) (usage, error) {
	var u usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	if u.cpu, u.rss, err = parseStat(stat); err != nil {
		return u, fmt.Errorf("process %d: %w", pid, err)
	}
	// Only its owner may read this one; without it, the bytes are not known.
	if io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil {
		u.written = parseWritten(io)
	}
	return u, nil
}

// parseStat reads CPU time and resident memory out of /proc/PID/stat. The command's
// name, in parentheses, may hold anything; fields are counted behind it (proc(5)).
func parseStat(stat []byte) (cpu time.Duration, rss int64, err error) {
	const (
		utime = 14 - 3
		stime = 15 - 3
		pages = 24 - 3
	)
	end := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[end+1:])
	if end < 0 || len(fields) <= pages {
		return 0, 0, fmt.Errorf("no stat: %.64q", stat)
	}
	var n [pages + 1]int64
	for _, i := range []int{utime, stime, pages} {
		if n[i], err = strconv.ParseInt(string(fields[i]), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("no stat: %.64q", stat)
		}
	}
	return time.Duration(n[utime]+n[stime]) * tick, n[pages] * int64(os.Getpagesize()), nil
}

// parseWritten reads the bytes that went to disk out of /proc/PID/io; 0 where they
// are not told.
func parseWritten(io []byte) int64 {
	for line := range bytes.Lines(io) {
		if digits, ok := bytes.CutPrefix(line, []byte("write_bytes: ")); ok {
			n, _ := strconv.ParseInt(string(bytes.TrimSpace(digits)), 10, 64)
			return n
		}
	}
	return 0
}

// role is a process's part in the cost of a transaction.
type role string

const (
	leading       role = "leader"
	following     role = "followers"
	participating role = "participants"
	asking        role = "clients"   // this process
	idling        role = "bystander" // not of the cluster: bare Raft, while decree is measured
)
