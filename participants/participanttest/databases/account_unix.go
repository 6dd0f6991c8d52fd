//go:build unix

package databases

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is the user that a server runs as. The zero account is ourselves.
type account struct {
	credential *syscall.Credential
}

// serverAccount is ourselves, unless we are root: the servers refuse to run as
// root, so they get the first of the usual users that there is.
func serverAccount(e Engine) (account, error) {
	if _, err := os.Stat("/proc/self/cwd"); err != nil {
		return account{}, fmt.Errorf("throwaway servers need Linux's /proc: %w", err)
	}
	if os.Getuid() != 0 {
		return account{}, nil
	}
	names := []string{"postgres", "nobody"}
	if e == MariaDB {
		names = []string{"mysql", "nobody"}
	}
	for _, name := range names {
		u, err := user.Lookup(name)
		if errors.As(err, new(user.UnknownUserError)) {
			continue
		} else if err != nil {
			return account{}, err
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			return account{}, err
		}
		return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, fmt.Errorf("a server cannot run as root, and there is no user of %q", names)
}

// own gives a file or directory to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// process is for processes of the account. They have a session of their own, so
// that an interrupt from the terminal is for us alone.
func (a account) process() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Credential: a.credential}
}

func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func syncDisks() { syscall.Sync() }
