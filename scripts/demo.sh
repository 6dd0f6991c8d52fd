#!/usr/bin/env bash
# Tells decree's story with real processes, and audits it: see `make demo`. The
# story is told by the binary itself; this only finds it.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
bin=${DECREE_BIN:-$top/bin/decree}
[ -x "$bin" ] || make -C "$top" --no-print-directory build
exec "$bin" demo --script "$top/scripts/cluster.sh" "$@"
