//go:build !linux && !darwin && !freebsd

package cluster

import (
	"errors"
	"fmt"
	"os"
)

// freeBytes is not known here: a full disk is noticed when a write fails.
func freeBytes(string) (int64, error) {
	return 0, fmt.Errorf("free bytes of the disk: %w", errors.ErrUnsupported)
}

func allocate(f *os.File, size int64) error { return fill(f, size) }
