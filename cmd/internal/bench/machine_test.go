package bench

import "testing"

// What is proven here: the report names the disk under the data, not another.

func TestFileSystem(t *testing.T) {
	const mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/disk xfs rw 0 0\nbroken\n"
	for dir, want := range map[string]string{
		"/var/lib/x": "ext4", "/tmp": "tmpfs", "/tmp/decree-1": "tmpfs", "/tmp/disk/a": "xfs", "/tmpfoo": "ext4",
	} {
		if got := fileSystem(dir, mounts); got != want {
			t.Errorf("%s is on %s, want %s", dir, got, want)
		}
	}
}

func TestProcessor(t *testing.T) {
	if got := processor("processor\t: 0\nmodel name\t: A: fast one\n"); got != "A: fast one" {
		t.Errorf("processor %q", got)
	}
}
