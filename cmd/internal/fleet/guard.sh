#!/bin/sh
# The guard of a fleet. When its standard input ends, because the one who started
# the fleet closed it or is dead, it kills every process whose working directory is
# WORKPLACE, whoever its parent is by now, unmounts what is mounted below MOUNTS, and
# removes DIRECTORY. The order "keep" leaves the directory.
#
# usage: guard.sh DIRECTORY WORKPLACE MOUNTS
dir=$1
workplace=$2
mounts=$3
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

# release unmounts, the last mount first. A file system that is still in use goes
# as soon as it is not: what used it is dead. Nothing may be removed through a mount.
release() {
  points=
  while read -r _ point _; do
    case $point in
      "$mounts"/*) points="$point
$points" ;;
    esac
  done < /proc/mounts
  printf '%s' "$points" | while read -r point; do
    umount "$point" 2>/dev/null || umount -l "$point" || exit
  done
}

echo ready
while read -r order; do
  [ "$order" = keep ] && keep=yes
done
slay
while [ "$count" != 0 ]; do slay; done
[ ! -r /proc/mounts ] || release || exit 1
[ "$keep" = yes ] && exit
# Database servers in the directory have guards of their own, which may still be
# at work in it.
tries=100
until rm -rf "$dir" 2>/dev/null && [ ! -e "$dir" ]; do
  [ $((tries = tries - 1)) -gt 0 ] || exit 1
  sleep 0.1
done
