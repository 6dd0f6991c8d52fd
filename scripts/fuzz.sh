#!/usr/bin/env bash
# Fuzzes every Fuzz target of the module, one after the other, and prints a table.
#
#   scripts/fuzz.sh [NAME]   those whose package or name holds NAME; all by default
#
# FUZZTIME (30s) is for each; WORKERS (2) is how many processes share it. A failure
# leaves its input under the package's testdata/fuzz, where go test finds it from then
# on: fix what it shows, and check it in.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C

only=${1:-}
time=${FUZZTIME:-30s}
workers=${WORKERS:-2}
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

# targets prints a line for each: package and name.
targets() {
  grep -r --include='*_test.go' '^func Fuzz' . |
    sed -nE 's|^(\./.*)/[^/]*_test\.go:func (Fuzz[A-Za-z0-9_]*)\(.*|\1 \2|p' | sort
}

# last PATTERN prints the last number that follows it in the log, or a dash.
last() {
  local n
  n=$(grep -oE "$1[0-9]+" "$log" | tail -n 1 | grep -oE '[0-9]+$')
  printf '%s' "${n:--}"
}

row='%-28s %-20s %12s %16s  %s\n'
# shellcheck disable=SC2059 # the row is a format
print_row() { printf "$row" "$@"; }

# cut_short says whether a run failed only because its time was over, for which Go
# before 1.27 may report a failure without an input (golang/go#75804).
cut_short() {
  grep -qE '^ +context deadline exceeded$' "$log" && ! grep -qE 'Failing input|panic:|_test\.go:[0-9]+:' "$log"
}

found=0 failed=()
print_row package target executions 'new interesting' result
while read -r package name; do
  case "$package $name" in *"$only"*) ;; *) continue ;; esac
  found=$((found + 1)) result=ok
  # By default an input that covers something new may be made smaller for a minute,
  # which would be all the time there is; here it is five seconds.
  if ! go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 5s \
    -parallel "$workers" "$package" >"$log" 2>&1 </dev/null && ! cut_short; then
    result=FAILED
    failed+=("$package $name")
  fi
  execs=$(last 'execs: ')
  # The corpus itself took all the time: nothing new was tried.
  [ "$result$execs" != ok- ] || result='ok, but too short'
  print_row "${package#./}" "$name" "$execs" "$(last 'new interesting: ')" "$result"
  [ "$result" != FAILED ] || sed 's/^/    /' "$log"
done < <(targets)

if [ "$found" = 0 ]; then
  echo "fuzz: no target matches ${only@Q}" >&2
  exit 1
fi
[ ${#failed[@]} = 0 ] || { printf 'fuzz: FAILED: %s\n' "${failed[@]}" >&2; exit 1; }
printf 'fuzz: %d targets, %s each: nothing found\n' "$found" "$time"
