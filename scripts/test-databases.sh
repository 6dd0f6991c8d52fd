#!/usr/bin/env bash
# Installs what the tests against real servers need and this machine lacks: the
# programs of PostgreSQL and MariaDB, Node for the example HTTP service, and curl for
# its transcript. No server is set up or started: the tests start their own, on
# sockets in temporary directories. Does nothing where all is there.
set -euo pipefail

usage() {
  cat <<'TXT'
Usage: scripts/test-databases.sh [--check]

  --check   only tell what is missing; fails if anything is

Installs with apt-get, as root or through sudo where that asks for no password.
TXT
}

fail() { printf 'test-databases.sh: %s\n' "$*" >&2; exit 1; }

check=
case ${1-} in
  '') ;;
  --check) check=yes ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

# have PROGRAM: is it where the tests look for it?
have() {
  local path
  command -v "$1" >/dev/null && return
  for path in /usr/lib/postgresql/*/bin/"$1" /usr/sbin/"$1" /usr/local/sbin/"$1"; do
    [ ! -x "$path" ] || return 0
  done
  return 1
}

missing=() # programs
packages=()
# need PACKAGE PROGRAM... notes a package of which a program is missing.
need() {
  local package=$1 program lacking=
  shift
  for program in "$@"; do
    have "$program" || { missing+=("$program"); lacking=yes; }
  done
  [ -z "$lacking" ] || packages+=("$package")
}

need postgresql postgres initdb psql
need mariadb-server-core mariadbd mariadb-install-db
need mariadb-client-core mariadb
need nodejs node
need curl curl

[ ${#packages[@]} -gt 0 ] || exit 0
echo "test-databases.sh: missing: ${missing[*]}"
[ -z "$check" ] || exit 1

advice="install the packages yourself, then try again: ${packages[*]}
  (names as in Debian and Ubuntu; the tests start servers of their own, so none needs to run.
  make test-short leaves out the tests against databases.)"
command -v apt-get >/dev/null || fail "no apt-get here; $advice"

as_root=()
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || fail "installing needs root; $advice"
  as_root=(sudo -n)
fi

# Debian's package would make a cluster and start it. This file is read by the
# package's scripts before either; one that is there already is somebody's choice.
no_cluster() {
  local file=/etc/postgresql-common/createcluster.conf
  [ ! -e "$file" ] || return 0
  "${as_root[@]}" mkdir -p "${file%/*}"
  printf '%s\n' '# decree scripts/test-databases.sh: the programs only, no server.' \
    'create_main_cluster = false' | "${as_root[@]}" tee "$file" >/dev/null
}

# quietly COMMAND... shows what it printed only if it failed.
quietly() {
  local log
  log=$("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" 2>&1 </dev/null) || { printf '%s\n' "$log" >&2; return 1; }
}

echo "test-databases.sh: installing ${packages[*]}"
no_cluster
quietly apt-get update || fail "apt-get update failed; $advice"
# --force-confold: our createcluster.conf is there before the package's own.
quietly apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold "${packages[@]}" ||
  fail "apt-get install failed; $advice"

hash -r
exec "$0" --check
