#!/usr/bin/env bash
# Moves money between real databases and audits every coin: see `make bank`. All of
# it is done by the binary itself; this only makes what it needs.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
"$top/scripts/test-databases.sh"
bin=${DECREE_BIN:-$top/bin/decree}
[ -x "$bin" ] || make -C "$top" --no-print-directory build
exec "$bin" bank "$@"
