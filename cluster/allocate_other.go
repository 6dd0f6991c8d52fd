//go:build !linux

package cluster

import (
	"errors"
	"fmt"
	"os"
)

// allocate gives a new file its size and its blocks, where the system can.
func allocate(*os.File, int64) error {
	return fmt.Errorf("reserve blocks on this system: %w", errors.ErrUnsupported)
}
