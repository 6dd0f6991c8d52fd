#!/usr/bin/env bash
# Checks scripts/monitoring: the alert rules, and what fires each of them. Takes promtool
# from PATH; where there is none, out of Debian's package, which it unpacks and does not
# install: that would start a server.
set -euo pipefail
cd "$(dirname "$0")/monitoring"

fail() { printf 'monitoring.sh: %s\n' "$*" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

promtool=$(command -v promtool) || {
  { command -v apt-get && command -v dpkg-deb; } >/dev/null ||
    fail 'promtool is needed and not here: it comes with Prometheus'
  chmod 755 "$work" # apt fetches as a user of its own
  fetch() { (cd "$work" && apt-get download prometheus) >"$work/log" 2>&1; }
  fetch || { apt-get update >"$work/log" 2>&1 && fetch; } || { cat "$work/log" >&2; fail 'prometheus cannot be downloaded'; }
  dpkg-deb -x "$work"/prometheus_*.deb "$work/unpacked"
  promtool=$work/unpacked/usr/bin/promtool
}
"$promtool" check rules alerts.yaml
"$promtool" test rules alerts_test.yaml
