//go:build !linux

package main

import (
	"errors"
	"os"
)

func openTerminal(_, _ uint16) (master, tty *os.File, err error) {
	return nil, nil, errors.ErrUnsupported
}
