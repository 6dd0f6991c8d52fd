#!/usr/bin/env bash
# Checks the model of the protocol in coordinator/model with Spin: every state of it
# in each configuration, and that each seeded bug is found. See the README there.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TXT'
Usage: scripts/model.sh [--full] [--jobs N] [--timeout SECONDS]

  --full     the larger searches too, and the bugs that a second guard masks
  --jobs     searches at the same time (default: the processors)
  --timeout  bounds the whole run (default: $MODEL_TIMEOUT, else 300, or 3600 with --full)

Needs Spin and a C compiler; as root it installs them with apt-get.
TXT
}

fail() { printf 'model.sh: %s\n' "$*" >&2; exit 1; }

full='' jobs=$(nproc) limit=${MODEL_TIMEOUT-}
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=yes ;;
    --jobs) jobs=${2?} && shift ;;
    --timeout) limit=${2?} && shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[ -n "$limit" ] || limit=$([ -n "$full" ] && echo 3600 || echo 300)

missing=()
command -v spin >/dev/null || missing+=(spin)
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "install these packages first: ${missing[*]}"
  fi
  echo "model.sh: installing ${missing[*]}"
  { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1 ||
    fail "apt-get could not install ${missing[*]}"
fi

model=$PWD/coordinator/model/decree.pml
table=$PWD/coordinator/model/testdata/searches.txt
dead=$PWD/coordinator/model/testdata/unreached.txt
work=$(mktemp -d)
trap 'ended' EXIT
trap 'exit 1' INT TERM

# ended leaves nothing behind: no directory, and no search.
ended() {
  # shellcheck disable=SC2046 # process ids are words
  kill $(jobs -rp) 2>/dev/null || true
  wait
  rm -rf "$work"
}

# figure NAME PATTERN prints the first number that follows a pattern in an output.
figure() { sed -nE "s/$2/\1/p" "$work/$1/out" | head -n 1; }

# search NAME FLAGS... makes a verifier and runs it, breadth first where a trail is
# wanted, for that one is short. Its output is judged, not its exit code.
search() {
  local name=$1 how=(-O2) spin=(spin) slots=-w24
  shift
  case $name in
    bug-* | masked-*) how=(-O1 -DBFS) slots=-w22 ;;
    # Merged statements hide dead ones; without them a compiler that optimizes takes minutes.
    dead-*) how=(-O0) spin=(spin -o3) slots=-w22 ;;
    three-terms-bounces) slots=-w26 ;;
  esac
  mkdir "$work/$name"
  cd "$work/$name"
  { within "${spin[@]}" "$@" -a "$model" &&
    within gcc "${how[@]}" -w -DSAFETY -DNOREDUCE -DNOFAIR -DMEMLIM=4000 -o pan pan.c &&
    within ./pan -m100000 "$slots"; } >out 2>&1 || echo "it ended with $?" >>out
}

# within COMMAND... runs it in what is left of the time, and ends it with this script.
within() {
  local left=$((limit - SECONDS))
  [ "$left" -gt 0 ] || { echo 'no time is left'; return 1; }
  timeout "$left" "$@" &
  child=$!
  wait "$child"
}

# complete NAME: was every state looked at? A search that was cut short says so in one
# of several ways, or says nothing at all.
complete() {
  grep -q '^Full statespace search' "$work/$1/out" && grep -q 'pan: elapsed time' "$work/$1/out" &&
    ! grep -qiE 'max search depth too small|not completed|out of memory|reached -DMEMLIM|hash-?compact|bit ?state|ended with' "$work/$1/out"
}

failed=()
# judge NAME RULE: prints the line of one search.
judge() {
  local name=$1 rule=$2 errors verdict
  errors=$(figure "$name" '.*errors: ([0-9]+).*')
  case $name in
    bug-*)
      verdict='NOT FOUND'
      [ "${errors:-0}" -gt 0 ] && [ -s "$work/$name/decree.pml.trail" ] && verdict=found ;;
    *)
      verdict=INCOMPLETE
      complete "$name" && verdict='no error'
      [ "${errors:-0}" -eq 0 ] || verdict='ERROR FOUND' ;;
  esac
  case $verdict in found | 'no error') ;; *) failed+=("$name") ;; esac
  printf '%-32s %-4s %-11s depth %4s %10s states\n' "$name" "$rule" "$verdict" \
    "$(figure "$name" '.*depth reached ([0-9]+).*')" "$(figure "$name" ' *([0-9.e+]+) states, stored.*')"
  if [ "$verdict" != found ] && [ "$verdict" != 'no error' ]; then
    grep -E 'assertion|rror|ended|no time|Warning' "$work/$name/out" | head -n 3 || true
  fi
}

# The table: name, rule, when (ci or full), flags. Comments begin with #.
names=() rules=()
while read -r name rule when flags; do
  case $name in '' | '#'*) continue ;; esac
  [ "$when" = ci ] || [ -n "$full" ] || continue
  names+=("$name")
  rules+=("$rule")
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
  # shellcheck disable=SC2086 # flags are words
  (trap '' INT; trap 'kill "$child"; exit 1' TERM; search "$name" $flags) &
done <"$table"
wait

printf '\n%s\n' 'model.sh: searches and seeded bugs'
for i in "${!names[@]}"; do judge "${names[$i]}" "${rules[$i]}"; done


# statements PATTERN prints what a verifier says of statements, as "LINE TEXT" for each
# expansion of an inline. Numbers become n: terms and branches differ only in those.
statements() { sed -nE "s/^\t.*decree\.pml:([0-9]+)$1(.*[^\"])\"?$/\1 \2/p" | sed -E 's/([^0-9 ] *)[0-9]+/\1n/g' | sort; }

# A statement that no dead-... search reached, in any expansion, is dead: what is claimed
# about it would be empty. Those that are right to be dead are listed.
for name in "${names[@]}"; do
  case $name in dead-*) ;; *) continue ;; esac
  complete "$name" || continue
  "$work/$name/pan" -d </dev/null | statements ' => ' >"$work/all"
  statements ', state [0-9]+, "' <"$work/$name/out" >"$work/unreached"
  sort -u "$work/all" >>"$work/possible"
  comm -23 "$work/all" "$work/unreached" | sort -u >>"$work/reached" # more often there than unreached
done
touch "$work/possible" "$work/reached"
comm -23 <(sort -u "$work/possible") <(sort -u "$work/reached") | cut -d' ' -f1 | sort -un | while read -r line; do
  sed -n "${line}s/^[[:space:]]*//p" "$model"
done | sort -u >"$work/dead"
if ! diff <(grep -v '^#' "$dead" | sort -u) "$work/dead" >"$work/difference"; then
  failed+=('dead lines')
  printf 'model.sh: lines with what nothing reaches differ from testdata/unreached.txt (> is dead and not listed):\n'
  cat "$work/difference"
fi
printf 'statements of the model: %s, lines with one that is dead, all listed: %s\n' \
  "$(sort -u "$work/possible" | wc -l)" "$(wc -l <"$work/dead")"

if [ ${#failed[@]} -gt 0 ]; then
  printf 'model: FAILED after %ds: %s\n' "$SECONDS" "${failed[*]}"
  exit 1
fi
bugs=$(printf '%s\n' "${names[@]}" | grep -c '^bug-')
printf 'model: passed, %d searches complete without an error, %d of %d seeded bugs found, %ds\n' \
  "$((${#names[@]} - bugs))" "$bugs" "$bugs" "$SECONDS"
