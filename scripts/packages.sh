#!/usr/bin/env bash
# Checks what decree is installed by, as far as that goes without root and without an
# engine for containers: go install from a module proxy, the systemd unit, and the
# Kubernetes manifests. The configuration in each is held by tests of cmd/decree.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

# go_install publishes the last commit in a proxy of files, and installs from there as
# anybody would. A replace directive would fail it.
go_install() {
  local module=github.com/decree-tx/decree version=v0.0.1-check
  local at=$work/proxy/$module/@v said
  mkdir -p "$at"
  echo "$version" >"$at/list"
  printf '{"Version": "%s"}\n' "$version" >"$at/$version.info"
  git show HEAD:go.mod >"$at/$version.mod"
  # The modules in scripts/ are others, which a module's archive does not have.
  git archive --format=zip --prefix="$module@$version/" -o "$at/$version.zip" HEAD -- . ':(exclude)scripts'
  # -trimpath, as in make build, lets dependencies come from the build cache.
  (cd "$work" && CGO_ENABLED=0 GOBIN=$work/bin GOFLAGS='-modcacherw -trimpath' GOMODCACHE=$work/mod GONOSUMDB=$module GOWORK=off \
    GOPROXY="file://$work/proxy,file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" \
    go install "$module/cmd/decree@$version")
  said=$("$work/bin/decree" version)
  [[ $said == "decree $version "* ]] || { echo "the binary calls itself: $said"; return 1; }
  echo "$said"
}

# systemd_unit verifies the unit with a binary in the place that it names.
systemd_unit() {
  if ! command -v systemd-analyze >/dev/null; then
    echo 'systemd-analyze is not here: the unit was not verified'
    return
  fi
  local unit=$work/decree.service said
  sed "s|/usr/bin/decree|$work/bin/decree|" scripts/systemd/decree.service >"$unit"
  said=$(systemd-analyze verify --man=no "$unit" 2>&1) || { echo "$said"; return 1; }
  [ -z "$said" ] || { echo "$said"; return 1; }
  # A score of 10 is that of a unit without any protection.
  systemd-analyze security --offline=true --threshold=15 "$unit" | tail -1
}

kubernetes() { go test -C scripts/kubernetes/check .; }

failed=()
for check in go_install systemd_unit kubernetes; do
  printf 'packages: %s\n' "$check"
  (set -e; "$check") || failed+=("$check")
done
[ ${#failed[@]} = 0 ] || { printf 'packages failed: %s\n' "${failed[*]}" >&2; exit 1; }
