#!/usr/bin/env bash
# Fails unless the protobuf code here is what the .proto files make: no file
# changed, none missing, none that no .proto file makes any more. It generates in
# a copy, so that it changes nothing here and needs no clean tree.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

# files PATTERN... lists what matches, checked in or about to be.
files() { git ls-files -z --cached --others --exclude-standard --deduplicate -- "$@"; }

files go.mod go.sum scripts '*.proto' transport/api/gateway.yaml |
  while IFS= read -r -d '' file; do
    mkdir -p "$copy/$(dirname "$file")"
    cp -p "$file" "$copy/$file"
  done
"$copy/scripts/generate.sh"

want=$(cd "$copy" && find . -name '*.pb.go' -o -name '*.pb.gw.go' | sed 's|^\./||' | LC_ALL=C sort)
have=$(files '*.pb.go' '*.pb.gw.go' | tr '\0' '\n' | LC_ALL=C sort)
status=0
diff -u --label 'generated files here' --label 'generated files by the .proto files' \
  <(printf '%s\n' "$have") <(printf '%s\n' "$want") || status=1
while IFS= read -r file; do
  [ ! -e "$file" ] || cmp -s "$file" "$copy/$file" || { echo "differs: $file"; status=1; }
done <<<"$want"

[ "$status" = 0 ] || { echo 'the generated code is not what the .proto files say: run make generate and commit' >&2; exit 1; }
echo 'generated code: up to date'
