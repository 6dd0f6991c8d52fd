#!/usr/bin/env bash
# Breaks real processes at every step of the protocol, and audits: see `make chaos`
# and `scripts/chaos.sh --help`. All of it is done by the binary itself; this installs
# what faults need where it can, and builds a binary that can be held at a step, which
# a release can't.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)

# Faults that lack something are skipped, and the matrix says why.
lacking=()
command -v strace >/dev/null || lacking+=(strace)
command -v mkfs.ext4 >/dev/null || lacking+=(e2fsprogs)
if [ ${#lacking[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update && apt-get install -y --no-install-recommends "${lacking[@]}"; } >/dev/null ||
    echo "chaos.sh: could not install ${lacking[*]}; what needs them is skipped" >&2
fi

bin=$top/bin/decree-failpoints
(cd "$top" && CGO_ENABLED=0 "${GO:-go}" build -trimpath -tags failpoints -o "$bin" ./cmd/decree)
exec "$bin" chaos "$@"
