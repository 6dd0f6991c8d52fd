package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// lockFile is held by the process that has the directory open, whichever its log
	// store is: the stores' own locks are not the same file.
	lockFile = "lock"
	// lockTimeout is how long to wait for another process to let go of the
	// directory: one that is just ending, not one that runs.
	lockTimeout = time.Second
	// lockPause paces the tries.
	lockPause = 20 * time.Millisecond
)

// lockDir takes a directory for this process. Closing the file gives it back.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := awaitLock(f, false); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// peekLock fails where another process has the directory. It makes no file.
func peekLock(dir string) error {
	f, err := os.Open(filepath.Join(dir, lockFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return errors.Join(awaitLock(f, true), f.Close())
}

// awaitLock tries until lockTimeout.
func awaitLock(f *os.File, shared bool) error {
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(lockPause) {
		ok, err := tryLock(f, shared)
		switch {
		case err != nil:
			return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		case ok:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%w: %s is locked", ErrDirInUse, f.Name())
		}
	}
}
