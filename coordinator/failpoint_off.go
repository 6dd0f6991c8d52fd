//go:build !failpoints

package coordinator

// failpoint marks a protocol step at which tests stop a node. It is nothing in a
// build without the failpoints tag.
func failpoint(string) {}
