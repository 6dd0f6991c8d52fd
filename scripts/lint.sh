#!/usr/bin/env bash
# Runs every lint check, all of them, and fails if any found something.
# staticcheck has a module of its own, so that its dependencies stay out of ours.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

failed=()
# check NAME COMMAND... runs one check and remembers that it failed.
check() {
  local name=$1
  shift
  printf 'lint: %s\n' "$name"
  "$@" || failed+=("$name")
}

# formatted prints the files that gofmt would change; there must be none.
formatted() {
  local files
  files=$(gofmt -l cmd fsm cluster coordinator transport participants) || return
  [ -z "$files" ] || { printf 'gofmt would change:\n%s\n' "$files"; return 1; }
}

staticcheck() {
  local bin status=0
  bin=$(mktemp -d) || return
  (cd scripts/lint && go build -o "$bin/staticcheck" honnef.co/go/tools/cmd/staticcheck) &&
    "$bin/staticcheck" ./... || status=1
  rm -rf "$bin"
  return "$status"
}

# tidy fails when go.mod or go.sum is not what the imports ask for. The difference
# itself is long and says little.
tidy() { go mod tidy -diff >/dev/null || { echo 'go.mod or go.sum is not tidy: run go mod tidy'; return 1; }; }

# install_shellcheck makes shellcheck available where this user can do that.
install_shellcheck() {
  command -v shellcheck >/dev/null && return
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return
  { apt-get update && apt-get install -y --no-install-recommends shellcheck; } >/dev/null 2>&1
}

shell_scripts() {
  local scripts=(.ci/run scripts/*.sh participants/participanttest/databases/guard.sh)
  if install_shellcheck; then
    shellcheck "${scripts[@]}"
    return
  fi
  echo "shellcheck is not here and could not be installed; checking the syntax only." \
    "Install it (apt-get install shellcheck, brew install shellcheck) for the rest."
  local script
  for script in "${scripts[@]}"; do bash -n "$script" || return; done
}

check gofmt formatted
check 'go vet' go vet ./...
check 'go vet, failpoints' go vet -tags failpoints ./...
check staticcheck staticcheck
check 'go mod tidy' tidy
check 'shell scripts' shell_scripts

[ ${#failed[@]} = 0 ] || { printf 'lint failed: %s\n' "${failed[*]}" >&2; exit 1; }
echo 'lint: clean'
