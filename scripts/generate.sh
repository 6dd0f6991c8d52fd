#!/usr/bin/env bash
# Regenerates the protobuf code beside its .proto files. The plugins are the tool
# lines of go.mod; buf has a module of its own, so that its dependencies stay out
# of ours.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
(cd scripts/buf && go build -o "$bin/buf" github.com/bufbuild/buf/cmd/buf)

# generate NAME DIR lints and generates the module of that configuration.
generate() {
  local conf=$PWD/scripts/buf/$1
  (cd "$2" && "$bin/buf" lint --config "$conf.yaml" &&
    "$bin/buf" generate --config "$conf.yaml" --template "$conf.gen.yaml")
}
generate api transport/api
generate fsm fsm
