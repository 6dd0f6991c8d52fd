package faults

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// errHungUp says that a connection's other end is closed already.
var errHungUp = errors.New("the dialler has hung up")

// dialler finds the process at the other end of a connection on loopback: the
// kernel's table of sockets has its inode, and the process of the fleet that has
// that among its open files is it. The name is outside where none of them has.
func (l *Links) dialler(c *net.TCPConn) (string, error) {
	inode, err := socketInode(c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr))
	if err != nil {
		return "", err
	}
	for _, p := range l.fleet.Processes() {
		if p.Alive() && holds(p.PID(), "socket:["+inode+"]") {
			return p.Name(), nil
		}
	}
	return outside, nil
}

// socketTable has a line for each IPv4 socket: number, local address, remote
// address, and as the tenth field the inode.
const socketTable = "/proc/net/tcp"

func socketInode(local, remote *net.TCPAddr) (string, error) {
	table, err := os.Open(socketTable)
	if err != nil {
		return "", err
	}
	defer table.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[1] != kernelAddress(local) || f[2] != kernelAddress(remote) {
			continue
		}
		if f[9] == "0" { // closed, and not yet forgotten
			break
		}
		return f[9], nil
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", errHungUp
}

// kernelAddress writes an address as the table does: the four bytes as a number in
// this machine's order, and the port, in hexadecimal.
func kernelAddress(a *net.TCPAddr) string {
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a.IP.To4()), a.Port)
}

// holds reports whether a process has a file open whose link reads so.
func holds(pid int, file string) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	open, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	for _, fd := range open {
		if target, err := os.Readlink(dir + "/" + fd.Name()); err == nil && target == file {
			return true
		}
	}
	return false
}
