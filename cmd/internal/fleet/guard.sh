#!/bin/sh
# The guard of a fleet. When its standard input ends, because the one who started
# the fleet closed it or is dead, it kills every process whose working directory is
# WORKPLACE, whoever its parent is by now, and removes DIRECTORY. The order "keep"
# leaves the directory.
#
# usage: guard.sh DIRECTORY WORKPLACE
dir=$1
workplace=$2
keep=no

# slay kills all of them and counts those it met.
slay() {
  count=0
  for process in /proc/[0-9]*; do
    if [ "$process/cwd" -ef "$workplace" ] && kill -s KILL "${process#/proc/}" 2>/dev/null; then
      count=$((count + 1))
    fi
  done
}

echo ready
while read -r order; do
  [ "$order" = keep ] && keep=yes
done
slay
while [ "$count" != 0 ]; do slay; done
[ "$keep" = yes ] && exit
# Database servers in the directory have guards of their own, which may still be
# at work in it.
tries=100
until rm -rf "$dir" 2>/dev/null && [ ! -e "$dir" ]; do
  [ $((tries = tries - 1)) -gt 0 ] || exit 1
  sleep 0.1
done
