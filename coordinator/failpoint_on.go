//go:build failpoints

package coordinator

import (
	"os"
	"path/filepath"
	"time"
)

// failpoint holds the caller at a protocol step when a test has armed it: where
// DECREE_FAILPOINT_DIR contains a file of the step's name, the file is renamed to
// NAME.hit, which tells the test, and the caller waits until that is removed. A
// step fires once for each arming.
func failpoint(name string) {
	dir := os.Getenv("DECREE_FAILPOINT_DIR")
	if dir == "" {
		return
	}
	armed := filepath.Join(dir, name)
	hit := armed + ".hit"
	if os.Rename(armed, hit) != nil {
		return
	}
	for {
		if _, err := os.Stat(hit); err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
