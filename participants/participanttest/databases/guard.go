package databases

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

//go:embed guard.sh
var guardScript string

// guard is the process beside a server that signals all of the server's processes
// when told to, and ends them and removes the directory when its input ends. That
// is how Close works, and it is what happens when this process dies in whatever
// way: one path for both.
type guard struct {
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Reader
}

// post starts the guard of a directory. It has a session of its own, so that
// neither a terminal's interrupt nor a kill of our process group ends it.
func post(dir string) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "guard.sh", dir)
	cmd.Dir, cmd.Env = "/", environment()
	cmd.SysProcAttr = ownSession()
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the server's guard: %w", err)
	}
	return &guard{cmd, orders, bufio.NewReader(answers)}, nil
}

// tell gives an order and waits until it is carried out. One caller at a time.
func (g *guard) tell(order string) error {
	if _, err := fmt.Fprintln(g.orders, order); err != nil {
		return fmt.Errorf("the server's guard: %w", err)
	}
	answer, err := g.answers.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the server's guard: %w", err)
	}
	if answer = strings.TrimSpace(answer); answer != "done" {
		return fmt.Errorf("the server's guard: %s", answer)
	}
	return nil
}

// dismiss ends the input and waits until the guard has cleaned up.
func (g *guard) dismiss() error {
	if err := g.orders.Close(); err != nil {
		return fmt.Errorf("the server's guard: %w", err)
	}
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("the server's guard: %w", err)
	}
	return nil
}
