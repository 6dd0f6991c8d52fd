#!/usr/bin/env bash
# Installs Debian's Chromium for the tests of the page, and a font for it, where they are
# not here and this user may; says what is missing where not.
set -euo pipefail

for name in "${CHROMIUM:-chromium}" chromium-browser google-chrome; do
  command -v "$name" >/dev/null && exit
done

if command -v apt-get >/dev/null; then
  if [ "$(id -u)" = 0 ]; then
    as_root=()
  elif sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  else
    echo "chromium.sh: Chromium is not here, and this user can't install it: apt-get install chromium fonts-dejavu-core" >&2
    exit 1
  fi
  echo 'chromium.sh: installing Chromium'
  "${as_root[@]}" apt-get update >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null
  exit
fi
echo 'chromium.sh: Chromium is not here: install it, or name another one with CHROMIUM=/path/to/chrome' >&2
exit 1
