// Package databases starts throwaway database servers: a real PostgreSQL or
// MariaDB, in a directory of its own, that listens on a unix socket, and on a port
// of loopback only where that is asked for.
//
// It owns the servers' whole life. [Start] makes one in about a second, from a
// template that is made once a version; [Server.Kill], [Server.Suspend] and
// [Server.Restart] do to it what happens to servers; [Server.Close] leaves
// nothing of it. Neither does a process that forgets to close, or that is killed
// itself: beside each server waits a guard, which cleans up when the pipe to its
// starter ends.
//
// It knows nothing of decree or of any Go driver, speaks to the servers through
// their own client programs, and does not import package testing, so that a
// command may use it as well as a test. It needs the servers' programs
// (scripts/test-databases.sh installs them) and Linux's /proc.
package databases
