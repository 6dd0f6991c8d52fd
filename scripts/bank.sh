#!/usr/bin/env bash
# Moves money between real databases and audits every coin: see `make bank`, and
# `make bank-chaos` for the same under faults. All of it is done by the binary itself,
# which takes the arguments; this only makes what it needs.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
"$top/scripts/test-databases.sh"
bin=${DECREE_BIN:-$top/bin/decree}
[ -x "$bin" ] || make -C "$top" --no-print-directory build
exec "$bin" bank "$@"
