//go:build !unix

package databases

import (
	"errors"
	"syscall"
)

type account struct{}

func serverAccount(Engine) (account, error) {
	return account{}, errors.New("throwaway servers need Linux's /proc")
}

func (account) own(string) error              { return nil }
func (account) process() *syscall.SysProcAttr { return nil }
func ownSession() *syscall.SysProcAttr        { return nil }
func syncDisks()                              {}
