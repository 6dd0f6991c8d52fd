//go:build !linux

package doctor

import "errors"

func fileSystemOf(string) (string, systemKind) { return "", unknownSystem }

func room(string) (free, files uint64, err error) { return 0, 0, errors.ErrUnsupported }

func fileLimit() (uint64, bool) { return 0, false }
