package postgres

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// impostor stands before a server's socket and gives each client the number of
// another process than the server's, as poolers do. It returns the directory of its
// own socket.
func impostor(t testing.TB, server string) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "impostor-") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, filepath.Base(server)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()  //nolint:errcheck // the test is over
		os.RemoveAll(dir) //nolint:errcheck // nothing follows from it
	})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("unix", server)
			if err != nil {
				client.Close() //nolint:errcheck // the client sees that nobody is there
				continue
			}
			go func() {
				io.Copy(upstream, client) //nolint:errcheck // it ends with the connection
				upstream.Close()          //nolint:errcheck // the same
			}()
			go func() {
				renumber(client, upstream)
				client.Close() //nolint:errcheck // it ends with the connection
			}()
		}
	}()
	return dir
}

// renumber passes on a server's messages and changes the process in its
// BackendKeyData.
func renumber(client io.Writer, server io.Reader) {
	header := make([]byte, 5)
	for {
		if _, err := io.ReadFull(server, header); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if header[0] == 'K' {
			binary.BigEndian.PutUint32(body, binary.BigEndian.Uint32(body)+1)
		}
		if _, err := client.Write(append(header[:5:5], body...)); err != nil {
			return
		}
	}
}
