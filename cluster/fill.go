package cluster

import (
	"math/rand/v2"
	"os"
)

// fill writes a new file full, with bytes at random: a file system that compresses
// would keep no room for zeros.
func fill(f *os.File, size int64) error {
	chance := rand.NewChaCha8([32]byte{})
	chunk := make([]byte, 1<<20)
	for size > 0 {
		chance.Read(chunk) //nolint:errcheck,gosec // never fails, and hides nothing
		n, err := f.Write(chunk[:min(size, int64(len(chunk)))])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}
