#!/bin/sh
# The guard of one throwaway server. It obeys one order a line from its standard
# input and answers each with a line, and when the input ends, because the one who
# started the server closed it or is dead, it leaves nothing of the server behind.
#
# usage: guard.sh DIRECTORY
#
# The server's processes are those that work in DIRECTORY/data, whoever their
# parent is by now. "[ a -ef b ]" asks the shell itself for that: no process is
# forked to look at the hundreds in /proc.
dir=$1
data=$dir/data

# each SIGNAL sends a signal to all the server's processes and counts them.
each() {
  count=0
  for process in /proc/[0-9]*; do
    # shellcheck disable=SC3013 # dash, bash and busybox have -ef
    if [ "$process/cwd" -ef "$data" ] && kill -s "$1" "${process#/proc/}" 2>/dev/null; then
      count=$((count + 1))
    fi
  done
}

# freeze stops all of them; one that was forked meanwhile makes another round.
freeze() {
  before=-1
  each STOP
  while [ "$count" != "$before" ]; do
    before=$count
    each STOP
  done
}

# slay kills all of them: first they are stopped, so that none sees another die.
slay() {
  freeze
  each KILL
  while [ "$count" != 0 ]; do each KILL; done
}

# forget removes what outlives the server: PostgreSQL's interlock is a segment of
# System V shared memory, which line 7 of its pid file names.
forget() {
  # shellcheck disable=SC2046 # the line is a key and an id
  set -- $(sed -n 7p "$data/postmaster.pid" 2>/dev/null)
  [ $# = 2 ] && ipcrm -m "$2" 2>/dev/null
  rm -rf "$dir"
}

while read -r order; do
  case $order in
    kill) slay ;;
    suspend) freeze ;;
    resume) each CONT ;;
    *) echo "unknown order: $order"; continue ;;
  esac
  echo "done"
done
slay
forget
