package databases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Filling a data directory takes a second or two; copying one takes a tenth of
// that. So each version of each server is installed once for each user and kept
// in their cache directory.

// templateFormat is part of a template's name; raise it when install changes.
const templateFormat = "1"

// fill makes the server's data directory, from the template if there is one.
func fill(ctx context.Context, s *Server) error {
	template, err := templateOf(ctx, s)
	if err != nil {
		return err
	}
	if template != "" {
		err := copyTree(template, s.data(), s.account)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := installData(ctx, s); err != nil {
		return err
	}
	if template == "" {
		return nil
	}
	return keep(s.data(), template)
}

// templateOf is where the template is or would be; empty when the user has no
// cache directory.
func templateOf(ctx context.Context, s *Server) (string, error) {
	version, err := s.engine.version(ctx)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", nil
	}
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("/ ()~,:", r) {
			return '_'
		}
		return r
	}, version)
	return filepath.Join(cache, "decree-test-databases", name+"."+templateFormat), nil
}

// installData runs the engine's installer. Its working directory is the data
// directory, so that the guard ends it too.
func installData(ctx context.Context, s *Server) error {
	if err := os.Mkdir(s.data(), 0o700); err != nil {
		return err
	}
	if err := s.account.own(s.data()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	cmd := s.engine.install(ctx, s.dir)
	cmd.Dir, cmd.Env = s.data(), environment()
	cmd.SysProcAttr = s.account.process()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w:\n%s", filepath.Base(cmd.Path), errors.Join(err, ctx.Err()), out)
	}
	return nil
}

// keep makes a template of a data directory that no server has used yet. It
// appears whole or not at all; when two make it at once, the first one stays.
func keep(data, template string) error {
	if err := os.MkdirAll(filepath.Dir(template), 0o700); err != nil {
		return err
	}
	draft, err := os.MkdirTemp(filepath.Dir(template), ".draft-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(draft)
	whole := filepath.Join(draft, "data")
	if err := copyTree(data, whole, account{}); err != nil {
		return err
	}
	syncDisks() // else a power loss could leave a template of empty files
	if err := os.Rename(whole, template); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// copyTree copies a directory to one that is not there yet, and gives it to an
// account.
func copyTree(from, to string, a account) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, below)
		switch {
		case entry.IsDir():
			err = os.Mkdir(target, 0o700)
		case entry.Type().IsRegular():
			err = copyFile(path, target)
		default:
			err = fmt.Errorf("%s is neither a file nor a directory", path)
		}
		if err != nil {
			return err
		}
		return a.own(target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Close())
}
